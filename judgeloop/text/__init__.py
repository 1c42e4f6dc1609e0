"""Text to numbers and to prompts: features, Markdown, templates, matching a reference."""

"""What a user may say, once: the schema, its files read and checked, and what they resolve to."""

"""The local OpenAI-compatible server: recordings, planted judges, faults, and engines that run a model here."""

"""Judges, arms and runs compared: who is compared (contenders), by how much two differ (differences), in what order all
of them come (ranking)."""

"""Differences between judges, arms and runs, and their ranking."""

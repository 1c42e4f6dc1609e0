"""Picks to preferences, signals, selections and training sets: pure functions."""

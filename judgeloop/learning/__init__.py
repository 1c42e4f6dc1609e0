"""Learning from picks: preferences by label rule, preference signals, and selections. Pure functions."""

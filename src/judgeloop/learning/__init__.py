"""What is learned from the picks: labels, preference signals, and the selections that they make. Pure functions."""

"""Where weights move: training by the user's own command or by hand."""

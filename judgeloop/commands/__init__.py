"""One file a command: what it does, for Python and the command line alike."""

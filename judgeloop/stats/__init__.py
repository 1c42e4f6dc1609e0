"""Statistics: frames in, estimates out. Pure: no I/O, no clock, no global randomness."""

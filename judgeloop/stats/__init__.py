"""Tables to estimates: pure functions, without files, clock, network or global randomness."""

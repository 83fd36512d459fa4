"""Pure functions of bytes: no I/O, no clock, no randomness that was not given."""

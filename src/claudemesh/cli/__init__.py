"""The command line: one module per noun; it sees only the daemon's local API."""

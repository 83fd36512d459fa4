"""What tells the nodes of one broker to look into the store: hints that may be lost."""

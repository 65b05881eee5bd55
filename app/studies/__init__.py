"""Studies: batch size, complexity, architecture and search, on the user's own data and machine."""

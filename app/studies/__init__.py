"""Answer a question about training by experiment: batch size, complexity, architecture and search."""

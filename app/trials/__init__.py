"""One training among several: its overrides, its settings, its process, and what became of it."""

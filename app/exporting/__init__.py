"""A finished run as a model that other programs run, and what they must know to feed it."""

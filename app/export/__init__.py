"""A finished run as a model for other programs, with the preprocessing that it needs."""

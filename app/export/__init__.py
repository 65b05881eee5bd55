"""Export of a finished run: a model for other programs, and a contract with its preprocessing."""

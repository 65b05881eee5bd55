"""A network scored: probabilities of prepared volumes, what they are worth, and what they cost."""

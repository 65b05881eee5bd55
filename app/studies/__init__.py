"""Answer a question about training by experiment.

The questions: batch size, complexity, architecture, search, sample size, learning curve and shortcuts.
"""

"""Checks before the first epoch: network, memory, speed, and whether one batch can be overfitted."""

"""Batch size: speed, memory, score and stability."""

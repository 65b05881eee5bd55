"""Compare a model with contestants that should not be able to distinguish the classes."""

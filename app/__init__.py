"""Voxlift commands: the only floor that knows Hydra, run folders and process globals."""

__version__ = "0.1.0"

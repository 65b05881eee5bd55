"""The commands and what they run: the only package that knows Hydra, run folders and process globals."""

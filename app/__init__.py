"""The commands: the only floor that knows Hydra, run folders and process globals."""

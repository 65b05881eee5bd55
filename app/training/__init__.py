"""One training, from its settings to a finished run folder."""

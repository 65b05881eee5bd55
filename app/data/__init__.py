"""From the data settings to subjects, splits and prepared volumes."""

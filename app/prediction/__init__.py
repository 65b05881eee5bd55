"""New volumes through finished runs: found, prepared, scored, explained, written."""

"""External validation: finished runs and comparisons, scored on the table of other subjects."""

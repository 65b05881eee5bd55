"""Several models on the same subjects, folds and seeds: planned as trials, trained, and set side by side."""

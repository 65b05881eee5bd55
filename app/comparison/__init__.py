"""Train several models on the same subjects, folds and seeds, and compare them."""

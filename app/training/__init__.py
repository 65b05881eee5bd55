"""A training, from its settings and a cohort to a finished run."""

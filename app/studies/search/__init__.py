"""Search: hyper-parameters by Optuna, judged on validation."""

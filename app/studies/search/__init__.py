"""Search hyper-parameters with Optuna, and check the gain on other seeds."""

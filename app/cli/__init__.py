"""The commands: one module each; Hydra is started here and errors become exit statuses."""

"""The front door of every command: Hydra started our way, outcomes as exit statuses, mistakes in words."""

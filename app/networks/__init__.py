"""From the model settings to networks: built, lifted, taken from earlier runs, loaded and saved."""

"""Logits, probabilities and maps of volumes: held-out splits, new scans, ensembles."""

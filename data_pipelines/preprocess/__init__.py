"""Prepare volumes for a network: orientation, spacing, shape and intensity."""

"""Prepared volumes on disk: written once, read by every epoch."""

"""Whose volumes are learned from: tables, splits, leaks, prepared files, and the audit of them all."""

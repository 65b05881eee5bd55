"""Metrics, intervals, calibration and paired tests on arrays of scores."""

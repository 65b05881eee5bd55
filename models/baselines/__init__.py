"""2D networks to start from: three small ones, those of `keras.applications`, and saved ones."""

from voxlift.models.baselines.build import build_baseline, explain_unknown_baseline

__all__ = ["build_baseline", "explain_unknown_baseline"]

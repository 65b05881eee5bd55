"""2D networks to start from: a flat CNN, a small residual one, the tutorial's, the zoo's, or a saved one."""

from voxlift.models.baselines.choose import build_baseline

__all__ = ["build_baseline"]

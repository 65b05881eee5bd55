"""2D baselines and the lift to 3D, in pure Keras 3."""

"""Training: loss, optimiser, what happens around epochs, and the fit itself, as functions of values."""

"""Training: the stream of batches, loss, optimiser, checkpoints, and the fit itself."""

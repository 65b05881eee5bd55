"""What happens around the epochs and batches of a training, as Keras callbacks."""

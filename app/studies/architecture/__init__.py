"""Architecture: score against cost over settings of the model."""

"""Changes of the 2D network that a lift makes on request: filters, input channels, head and classes."""

"""Step 3 of a lift: prove that the 3D network on a slice repeated along depth equals the 2D network."""

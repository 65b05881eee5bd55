"""From the voxels of a file to a prepared volume: orientation, spacing, shape, intensity."""

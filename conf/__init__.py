"""Configuration files of the voxlift commands, shipped as a package so that Hydra finds them anywhere."""

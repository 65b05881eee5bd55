"""Voxlift: does a 3D network beat my 2D slice network on my data?"""

__version__ = "0.2.0"

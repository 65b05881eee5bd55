"""Planes of a volume the way a person looks at them."""

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]


def three_planes(volume: Plane, at: tuple[int, int, int]) -> list[Plane]:
    """The axial, coronal and sagittal plane through a voxel, row 0 on top.

    Args:
        volume: [depth, height, width] with depth towards the head, height towards the front, width towards
            the patient's right.
        at: index (depth, height, width).

    Returns:
        Axial [H, W] with the front on top, coronal [D, W] and sagittal [D, H] with the head on top; the right
        of the axial and coronal picture is the patient's right, of the sagittal one the front.
    """
    depth, height, width = at
    return [plane[::-1] for plane in (volume[depth], volume[:, height], volume[:, :, width])]

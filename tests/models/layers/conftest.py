"""Plain-numpy convolution with its gradients: the oracle of every convolution here."""

import itertools

import numpy as np
import pytest


def _same_padding(size, taps, stride, dilation):
    windows = -(-size // stride)
    total = max((windows - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


class Convolution:
    """Sum over taps, one loop, dense kernel [kd, kh, kw, Cin, Cout] in float64."""

    def __init__(self, voxels, kernel, strides, padding, dilation):
        taps = kernel.shape[:3]
        pads = [(0, 0)] * 3
        if padding == "same":
            pads = [
                _same_padding(*item) for item in zip(voxels.shape[1:4], taps, strides, dilation, strict=True)
            ]
        self.pads, self.shape = pads, voxels.shape
        self.padded = np.pad(voxels.astype("float64"), [(0, 0), *pads, (0, 0)])
        self.kernel = kernel.astype("float64")
        self.places = {}
        for tap in itertools.product(*map(range, taps)):
            place = [slice(None)]
            for axis in range(3):
                first = tap[axis] * dilation[axis]
                last = self.padded.shape[axis + 1] - (taps[axis] - 1 - tap[axis]) * dilation[axis]
                place.append(slice(first, last, strides[axis]))
            self.places[tap] = tuple(place)

    def outputs(self):
        return sum(self.padded[place] @ self.kernel[tap] for tap, place in self.places.items())

    def gradients(self, weights):
        """Gradients of sum(outputs * weights) for the input and the kernel."""
        padded_gradient, kernel_gradient = np.zeros_like(self.padded), np.zeros_like(self.kernel)
        for tap, place in self.places.items():
            padded_gradient[place] += weights @ self.kernel[tap].T
            kernel_gradient[tap] = np.einsum("bdhwi,bdhwo->io", self.padded[place], weights)
        inner = tuple(slice(a, a + n) for (a, _), n in zip(self.pads, self.shape[1:4], strict=True))
        return padded_gradient[(slice(None), *inner)], kernel_gradient


@pytest.fixture(name="convolution")
def convolution_fixture():
    return Convolution

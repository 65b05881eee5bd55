"""Python's and numpy's generators, left as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def unchanged_randomness() -> Iterator[None]:
    """Whatever is drawn inside from Python's and numpy's generators, which seed Keras's, is put back."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the generator that libraries use
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002 - as above

"""Units of length in image headers, converted to millimetres."""

MM_PER_UNIT = {
    "": 1.0,
    "mm": 1.0,
    "millimeter": 1.0,
    "millimetre": 1.0,
    "um": 1e-3,
    "µm": 1e-3,  # micro sign
    "μm": 1e-3,
    "micron": 1e-3,
    "micrometer": 1e-3,
    "micrometre": 1e-3,
    "nm": 1e-6,
    "nanometer": 1e-6,
    "nanometre": 1e-6,
    "cm": 10.0,
    "centimeter": 10.0,
    "centimetre": 10.0,
    "m": 1000.0,
    "meter": 1000.0,
    "metre": 1000.0,
    "in": 25.4,
    "inch": 25.4,
}


def find_mm_per_unit(unit: str) -> float | None:
    """Return the length of a unit in mm, None where it is not known.

    >>> [find_mm_per_unit(unit) for unit in ("Microns", " mm", "voxel")]
    [0.001, 1.0, None]
    """
    name = unit.strip().strip('"').lower()
    return MM_PER_UNIT.get(name, MM_PER_UNIT.get(name.removesuffix("s")))

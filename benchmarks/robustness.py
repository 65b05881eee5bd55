"""Read and preprocess every image file of a folder, and print the result of each: a volume or a message.

    python benchmarks/robustness.py FOLDER

The exit status is 1 if a file caused any other exception, or if files named by three axis codes (RAS.nii.gz,
LPI.nii.gz, ...) in one folder do not give the same array.
"""

import argparse
import sys
import time
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np

from voxlift.data_pipelines.geometry import axcodes_of, spacing_of
from voxlift.data_pipelines.preprocess.prepare import Preprocess, prepare_volume
from voxlift.data_pipelines.preprocess.settings import is_axcodes, preset
from voxlift.data_pipelines.readers import load_volume
from voxlift.data_pipelines.volume import VolumeError

NOT_IMAGES = {".md", ".csv", ".txt", ".json"}
PREPROCESS = preset("mri", spacing=(4, 4, 4), shape=(32, 32, 32), time_axis="first", zscore="none")


def read_file(path: Path) -> tuple[str, str]:
    """Return "volume", "message" or "TRACEBACK", and a description."""
    try:
        volume = load_volume(path, time_axis="channels")
        tensor = prepare_volume(path, PREPROCESS).voxels
    except VolumeError as error:
        return "message", str(error).replace(f"{path}: ", "").replace(f"{path.parent}/", "")
    except Exception as error:  # noqa: BLE001 - this script must report any exception
        return "TRACEBACK", repr(error)
    if not np.isfinite(tensor).all():
        return "TRACEBACK", "the preprocessed voxels are not finite"
    sides = "x".join(map(str, volume.voxels.shape))
    spacing = "x".join(f"{mm:.3g}" for mm in spacing_of(volume.affine)[::-1])
    return "volume", f"{sides} {volume.voxels.dtype} {axcodes_of(volume.affine)} {spacing} mm"


def find_differing(paths: list[Path]) -> list[str]:
    """Return the files named by axis codes whose array in RAS differs from the first of their folder."""
    differing: list[str] = []
    for _, group in groupby(paths, key=lambda path: path.parent):
        named = [path for path in group if is_axcodes(path.name.split(".")[0])]
        volumes = [prepare_volume(path, Preprocess()) for path in named]
        found = [
            path.name
            for path, volume in zip(named, volumes, strict=True)
            if not np.array_equal(volume.voxels, volumes[0].voxels)
            or not np.allclose(volume.affine, volumes[0].affine, atol=1e-3)
        ]
        if named:
            print(f"{named[0].parent.name}: {len(named)} axis codes, {len(found)} differ from the first")
        differing += found
    return differing


def main() -> int:
    """Print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    paths = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() not in NOT_IMAGES
    )
    counts: Counter[str] = Counter()
    started = time.perf_counter()
    for path in paths:
        kind, text = read_file(path)
        counts[kind] += 1
        print(f"{path.relative_to(folder)!s:75} {kind:9} {text}")
    seconds = time.perf_counter() - started
    print(f"{len(paths)} files in {seconds:.1f} s: " + ", ".join(f"{n} {kind}" for kind, n in counts.items()))
    differing = find_differing(paths)
    return 1 if differing or counts["TRACEBACK"] else 0


if __name__ == "__main__":
    sys.exit(main())

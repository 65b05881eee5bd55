"""Read and prepare every image file of a folder and print what came of each: a volume, or a sentence.

    python benchmarks/robustness.py FOLDER

Exit status 1 where a file ended in anything else (a traceback), or where files named by three axis codes
(RAS.nii.gz, LPI.nii.gz, ...) in one folder do not give one array.
"""

import argparse
import sys
import time
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np

from voxlift.data_pipelines.geometry import axcodes_of, is_axcodes, spacing_of
from voxlift.data_pipelines.preprocess.prepare import Preprocess, prepare_volume
from voxlift.data_pipelines.preprocess.settings import preset
from voxlift.data_pipelines.readers import load_volume
from voxlift.data_pipelines.volume import VolumeError

NOT_IMAGES = {".md", ".csv", ".txt", ".json"}
TENSOR = preset("mri", spacing=(4, 4, 4), shape=(32, 32, 32), time_axis="first", zscore="none")


def outcome(path: Path) -> tuple[str, str]:
    """Return "volume", "sentence" or "TRACEBACK", and what there is to say."""
    try:
        volume = load_volume(path, time_axis="channels")
        tensor = prepare_volume(path, TENSOR).voxels
    except VolumeError as error:
        return "sentence", str(error).replace(f"{path}: ", "").replace(f"{path.parent}/", "")
    except Exception as error:  # noqa: BLE001 - to show that none is left is what this script is for
        return "TRACEBACK", repr(error)
    if not np.isfinite(tensor).all():
        return "TRACEBACK", "the prepared voxels are not finite"
    sides = "x".join(map(str, volume.voxels.shape))
    spacing = "x".join(f"{mm:.3g}" for mm in spacing_of(volume.affine)[::-1])
    return "volume", f"{sides} {volume.voxels.dtype} {axcodes_of(volume.affine)} {spacing} mm"


def disagreeing(paths: list[Path]) -> list[str]:
    """Return the files named by axis codes that do not give their folder's one array in RAS."""
    wrong: list[str] = []
    for _, group in groupby(paths, key=lambda path: path.parent):
        named = [path for path in group if is_axcodes(path.name.split(".")[0])]
        volumes = [prepare_volume(path, Preprocess()) for path in named]
        odd = [
            path.name
            for path, volume in zip(named, volumes, strict=True)
            if not np.array_equal(volume.voxels, volumes[0].voxels)
            or not np.allclose(volume.affine, volumes[0].affine, atol=1e-3)
        ]
        if named:
            print(f"{named[0].parent.name}: {len(named)} axis codes, {len(odd)} differ from the first")
        wrong += odd
    return wrong


def main() -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    paths = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() not in NOT_IMAGES
    )
    counts: Counter[str] = Counter()
    started = time.perf_counter()
    for path in paths:
        kind, text = outcome(path)
        counts[kind] += 1
        print(f"{path.relative_to(folder)!s:75} {kind:9} {text}")
    seconds = time.perf_counter() - started
    print(f"{len(paths)} files in {seconds:.1f} s: " + ", ".join(f"{n} {kind}" for kind, n in counts.items()))
    wrong = disagreeing(paths)
    return 1 if wrong or counts["TRACEBACK"] else 0


if __name__ == "__main__":
    sys.exit(main())

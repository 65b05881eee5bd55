"""Volumes per second into the training loop: ours beside MONAI's and TorchIO's, same files, one run.

    .venv/bin/python benchmarks/input_pipeline.py [--files FOLDER] [--count 24] [--repeats 3]

First epoch: decode, RAS, 1.5 mm, window, crop or pad to 96^3, with two workers each, start-up excluded.
Cached epochs: what each system reads back on later epochs. Without --files the volumes (160x192x160 int16,
gzip) are generated. MONAI and TorchIO are measured where they are installed:

    .venv/bin/python -m pip install -r benchmarks/requirements.txt

Each contestant runs in a process of its own, so that its peak memory is its own; contestants take turns.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

SHAPE, SPACING, WINDOW = (96, 96, 96), (1.5, 1.5, 1.5), (-1000.0, 1000.0)
WORKERS, BATCH, EPOCHS = 2, 4, 16
Measured = dict[str, float]


def generate(folder: Path, count: int) -> list[Path]:
    """Write volumes that compress like scans: a smooth body, int16 noise, mixed axes.

    Args:
        folder: Where to.
        count: How many volumes of 160 x 192 x 160 voxels.
    """
    import nibabel as nib

    rng = np.random.default_rng(0)
    i, j, k = np.ogrid[-1:1:160j, -1:1:192j, -1:1:160j]
    body = np.where(i**2 + j**2 + k**2 < 0.8, 40.0, -1000.0)
    for index in range(count):
        voxels = (body + rng.normal(0, 10, body.shape) * (body > 0)).astype(np.int16)
        image = nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 1.2, 1.0]))
        turn = nib.orientations.axcodes2ornt(("RAS", "LPS", "LAS", "PIR")[index % 4])
        nib.save(image.as_reoriented(turn), folder / f"{index:03d}.nii.gz")
    return sorted(folder.glob("*.nii.gz"))


def clock(batches: Iterable[object], count: int, bytes_per_volume: int) -> Measured:
    """Return volumes/s and MB/s of one pass.

    Args:
        batches: What is gone through once.
        count: Volumes in all of them.
        bytes_per_volume: Of the voxels that are handed over.
    """
    started = time.perf_counter()
    for _ in batches:
        pass
    seconds = time.perf_counter() - started
    return {"volumes/s": count / seconds, "MB/s": count * bytes_per_volume / seconds / 1e6}


def ours(files: list[Path], cache: Path) -> dict[str, Measured]:
    """Measure our first epoch (preparing with two threads) and our cached epochs (read in the graph).

    Args:
        files: The volumes.
        cache: An empty folder.
    """
    from voxlift.data_pipelines.cache.fill import fill_cache
    from voxlift.data_pipelines.cache.prepared import PreparedVolumes
    from voxlift.data_pipelines.pipeline import TrainingOptions, training_volumes
    from voxlift.data_pipelines.preprocess.settings import preset

    settings = preset("ct", spacing=SPACING, shape=SHAPE, window_hu=WINDOW)
    # One file elsewhere first: imports and thread pools are start-up.
    fill_cache([(files[0],)], settings, folder=cache / "warm", workers=WORKERS)
    started = time.perf_counter()
    cached = fill_cache([(file,) for file in files], settings, folder=cache / "run", workers=WORKERS)
    seconds = time.perf_counter() - started
    ready = PreparedVolumes(tuple(file for file in cached.files if file), cached.shape, cached.dtype)
    size = ready.files[0].stat().st_size
    first = {"volumes/s": len(files) / seconds, "MB/s": len(files) * size / seconds / 1e6}
    options = TrainingOptions(batch_size=BATCH, epochs=EPOCHS, seed=0)
    batches = training_volumes(ready, np.zeros(len(files), np.int64), options)
    steps = EPOCHS * (len(files) // BATCH)
    return {"first epoch": first, "cached": after_start_up(batches, (steps - 1) * BATCH, size)}


def monai(files: list[Path], cache: Path) -> dict[str, Measured]:
    """Measure MONAI's usual chain in a DataLoader, and its PersistentDataset with two workers and none.

    Args:
        files: The volumes.
        cache: An empty folder.
    """
    from monai.data import DataLoader, Dataset, PersistentDataset

    chain = monai_chain()
    data = [{"image": str(file)} for file in files]
    size = 4 * int(np.prod(SHAPE))
    loader = DataLoader(Dataset([*data[:BATCH], *data], chain), batch_size=BATCH, num_workers=WORKERS)
    results = {"first epoch": after_start_up(loader, len(data), size)}
    persistent = PersistentDataset(data, chain, cache_dir=cache)
    for index in range(len(data)):
        persistent[index]
    for workers, name in ((WORKERS, "cached, 2 workers"), (0, "cached, no worker")):
        twice = PersistentDataset([*data[:BATCH], *data * EPOCHS], chain, cache_dir=cache)
        results[name] = after_start_up(
            DataLoader(twice, batch_size=BATCH, num_workers=workers), EPOCHS * len(data), size
        )
    return results


def monai_chain() -> Callable[[dict[str, str]], dict[str, np.ndarray]]:
    """Return MONAI's transforms for the same work."""
    from monai.transforms import (
        Compose,
        LoadImaged,
        Orientationd,
        ResizeWithPadOrCropd,
        ScaleIntensityRanged,
        Spacingd,
    )

    return Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            Orientationd("image", "RAS"),
            Spacingd("image", SPACING, mode="bilinear"),
            ScaleIntensityRanged("image", *WINDOW, 0, 1, clip=True),
            ResizeWithPadOrCropd("image", SHAPE),
        ]
    )


def torchio(files: list[Path], cache: Path) -> dict[str, Measured]:  # noqa: ARG001 - one signature for all
    """Measure TorchIO's usual chain in a DataLoader; it has no cache on disk.

    Args:
        files: The volumes.
        cache: Not used.
    """
    import torchio as tio
    from torch.utils.data import DataLoader

    chain = tio.Compose(
        [
            tio.ToCanonical(),
            tio.Resample(SPACING),
            tio.Clamp(*WINDOW),
            tio.RescaleIntensity((0, 1), in_min_max=WINDOW),
            tio.CropOrPad(SHAPE, padding_mode=0),
        ]
    )
    subjects = [tio.Subject(image=tio.ScalarImage(file)) for file in [*files[:BATCH], *files]]
    loader = DataLoader(
        tio.SubjectsDataset(subjects, chain), BATCH, num_workers=WORKERS, collate_fn=lambda batch: batch
    )
    return {"first epoch": after_start_up(loader, len(files), 4 * int(np.prod(SHAPE)))}


def after_start_up(loader: Iterable[object], count: int, size: int) -> Measured:
    """Return the rate after the first batch, which carries the workers' start-up.

    Args:
        loader: Batches, one more than are counted.
        count: Volumes behind the first batch.
        size: Bytes per volume.
    """
    batches = iter(loader)
    next(batches)
    return clock(batches, count, size)


def compare(files: list[Path]) -> str:
    """Return how far MONAI's voxels are from ours on MONAI's own output grid."""
    from voxlift.data_pipelines.geometry import Grid, field_of_view
    from voxlift.data_pipelines.preprocess.intensity import apply_window
    from voxlift.data_pipelines.preprocess.resample import resample
    from voxlift.data_pipelines.readers import read_stored

    chain = monai_chain()
    off = []
    for file in files[:4]:
        theirs = chain({"image": str(file)})["image"]
        stored = read_stored(file)
        grid = Grid(SHAPE, np.linalg.inv(stored.affine) @ np.asarray(theirs.affine, float))
        mine = apply_window(resample(stored.voxels, grid), *WINDOW)
        seen = np.broadcast_to(field_of_view(grid, stored.voxels.shape), SHAPE)
        off.append(np.abs(mine - np.asarray(theirs)[0])[seen])
    every = np.concatenate(off)
    most = np.quantile(every, 0.999)
    return f"MONAI against ours, same grid: mean |difference| {every.mean():.2g}, 99.9 % below {most:.2g}"


CONTESTANTS = {"ours": ours, "monai": monai, "torchio": torchio}


def run_one(name: str, files: list[Path]) -> None:
    """Measure one contestant and print its figures as JSON: the child's side."""
    with tempfile.TemporaryDirectory() as cache:
        results = CONTESTANTS[name](files, Path(cache))
    peak = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    )
    print(json.dumps({"results": results, "peak_mb": peak / 1024}))


def ask(name: str, folder: Path) -> dict[str, Measured]:
    """Return what one contestant measured in a process of its own."""
    command = [sys.executable, __file__, "--files", str(folder), "--one", name]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    answer = json.loads(printed.splitlines()[-1])
    return {what: {**figures, "peak MB": answer["peak_mb"]} for what, figures in answer["results"].items()}


def run_all(files: list[Path], folder: Path, repeats: int) -> None:
    """Let the contestants take turns and print the best of each.

    Args:
        files: The volumes.
        folder: Where they lie.
        repeats: Turns of each contestant.
    """
    here = [name for name in CONTESTANTS if name == "ours" or find_spec(name)]
    best: dict[tuple[str, str], Measured] = {}
    for name in here * repeats:
        for what, figures in ask(name, folder).items():
            if figures["volumes/s"] > best.get((name, what), {"volumes/s": 0})["volumes/s"]:
                best[name, what] = figures
    print(f"{len(files)} files, best of {repeats}\n")
    print("| system | epoch | volumes/s | MB/s | peak MB |\n|---|---|---|---|---|")
    for (name, what), m in best.items():
        print(f"| {name} | {what} | {m['volumes/s']:.1f} | {m['MB/s']:.0f} | {m['peak MB']:.0f} |")
    print()
    for name in sorted(set(CONTESTANTS) - set(here)):
        print(f"{name} is not installed here, so it was not measured (see the head of this file).")
    if "monai" in here:
        print(compare(files))


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, help="folder of .nii.gz files; generated where absent")
    parser.add_argument("--count", type=int, default=24, help="how many to generate")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", choices=CONTESTANTS, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = wanted.files or Path(made)
        files = sorted(folder.rglob("*.nii.gz")) if wanted.files else generate(folder, wanted.count)
        if not files:
            parser.error(f"{folder} holds no .nii.gz file")
        if wanted.one:
            run_one(wanted.one, files)
        else:
            run_all(files, folder, wanted.repeats)


if __name__ == "__main__":
    main()

"""Volumes per second of the input pipeline: Voxlift, MONAI and TorchIO on the same files, in one run.

    .venv/bin/python benchmarks/input_pipeline.py [--files FOLDER] [--count 24] [--repeats 3]

First epoch: decode, RAS, 1.5 mm, window, crop or pad to 96^3, with two workers each, start-up excluded.
Cached epochs: what each system reads in later epochs. Without --files the volumes (160x192x160 int16, gzip)
are generated. MONAI and TorchIO are measured if they are installed:

    .venv/bin/python -m pip install -r benchmarks/requirements.txt

Each system runs in a process of its own, for its own peak of memory; the systems take turns.
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
Rates = dict[str, float]


def generate(folder: Path, count: int) -> list[Path]:
    """Write volumes that compress like scans: a smooth body, int16 noise, several orientations.

    Args:
        folder: Where to write.
        count: Number of volumes of 160 x 192 x 160 voxels.
    """
    import nibabel as nib

    rng = np.random.default_rng(0)
    i, j, k = np.ogrid[-1:1:160j, -1:1:192j, -1:1:160j]
    body = np.where(i**2 + j**2 + k**2 < 0.8, 40.0, -1000.0)
    for index in range(count):
        voxels = (body + rng.normal(0, 10, body.shape) * (body > 0)).astype(np.int16)
        image = nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 1.2, 1.0]))
        orientation = nib.orientations.axcodes2ornt(("RAS", "LPS", "LAS", "PIR")[index % 4])
        nib.save(image.as_reoriented(orientation), folder / f"{index:03d}.nii.gz")
    return sorted(folder.glob("*.nii.gz"))


def measure_rate(batches: Iterable[object], count: int, bytes_per_volume: int) -> Rates:
    """Return volumes/s and MB/s of one pass over batches.

    Args:
        batches: The batches.
        count: Volumes in all of them.
        bytes_per_volume: Size of a volume's voxels as they arrive.
    """
    started = time.perf_counter()
    for _ in batches:
        pass
    seconds = time.perf_counter() - started
    return {"volumes/s": count / seconds, "MB/s": count * bytes_per_volume / seconds / 1e6}


def measure_voxlift(files: list[Path], cache: Path) -> dict[str, Rates]:
    """Measure the first epoch (preprocessing in two threads) and cached epochs of Voxlift.

    Args:
        files: The volumes.
        cache: An empty folder.
    """
    from voxlift.app.runtime.setup import keep_freed_memory
    from voxlift.data_pipelines.cache.fill import fill_cache
    from voxlift.data_pipelines.cache.format import PreparedVolumes
    from voxlift.data_pipelines.pipeline import TrainingOptions, training_volumes
    from voxlift.data_pipelines.preprocess.settings import preset

    keep_freed_memory()  # as every command does
    settings = preset("ct", spacing=SPACING, shape=SHAPE, window_hu=WINDOW)
    # One file into another folder first: imports and thread pools are start-up.
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
    return {"first epoch": first, "cached": measure_after_start_up(batches, (steps - 1) * BATCH, size)}


def measure_monai(files: list[Path], cache: Path) -> dict[str, Rates]:
    """Measure MONAI's usual transforms in a DataLoader, and its PersistentDataset with two workers and none.

    Args:
        files: The volumes.
        cache: An empty folder.
    """
    from monai.data import DataLoader, Dataset, PersistentDataset

    chain = build_monai_chain()
    data = [{"image": str(file)} for file in files]
    size = 4 * int(np.prod(SHAPE))
    loader = DataLoader(Dataset([*data[:BATCH], *data], chain), batch_size=BATCH, num_workers=WORKERS)
    results = {"first epoch": measure_after_start_up(loader, len(data), size)}
    persistent = PersistentDataset(data, chain, cache_dir=cache)
    for index in range(len(data)):
        persistent[index]
    for workers, name in ((WORKERS, "cached, 2 workers"), (0, "cached, no worker")):
        twice = PersistentDataset([*data[:BATCH], *data * EPOCHS], chain, cache_dir=cache)
        results[name] = measure_after_start_up(
            DataLoader(twice, batch_size=BATCH, num_workers=workers), EPOCHS * len(data), size
        )
    return results


def build_monai_chain() -> Callable[[dict[str, str]], dict[str, np.ndarray]]:
    """Return MONAI's transforms for the same preprocessing."""
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


def measure_torchio(files: list[Path], cache: Path) -> dict[str, Rates]:  # noqa: ARG001 - one signature for all
    """Measure TorchIO's usual transforms in a DataLoader; it has no cache on disk.

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
    return {"first epoch": measure_after_start_up(loader, len(files), 4 * int(np.prod(SHAPE)))}


def measure_after_start_up(loader: Iterable[object], count: int, size: int) -> Rates:
    """Return the rate after the first batch, which includes the start-up of the workers.

    Args:
        loader: Batches, one more than are counted.
        count: Volumes after the first batch.
        size: Bytes per volume.
    """
    batches = iter(loader)
    next(batches)
    return measure_rate(batches, count, size)


def compare_voxels(files: list[Path]) -> str:
    """Return the differences of MONAI's voxels from Voxlift's on MONAI's output grid."""
    from voxlift.data_pipelines.geometry import Grid, field_of_view
    from voxlift.data_pipelines.preprocess.intensity import apply_window
    from voxlift.data_pipelines.preprocess.resample import resample
    from voxlift.data_pipelines.readers import read_stored

    chain = build_monai_chain()
    differences = []
    for file in files[:4]:
        theirs = chain({"image": str(file)})["image"]
        stored = read_stored(file)
        grid = Grid(SHAPE, np.linalg.inv(stored.affine) @ np.asarray(theirs.affine, float))
        ours = apply_window(resample(stored.voxels, grid), *WINDOW)
        in_field = np.broadcast_to(field_of_view(grid, stored.voxels.shape), SHAPE)
        differences.append(np.abs(ours - np.asarray(theirs)[0])[in_field])
    merged = np.concatenate(differences)
    quantile = np.quantile(merged, 0.999)
    return f"MONAI and ours, same grid: mean |difference| {merged.mean():.2g}, 99.9 % below {quantile:.2g}"


SYSTEMS = {"ours": measure_voxlift, "monai": measure_monai, "torchio": measure_torchio}


def measure_system(name: str, files: list[Path]) -> None:
    """Measure one system and print the results as JSON; runs in the child process."""
    with tempfile.TemporaryDirectory() as cache:
        results = SYSTEMS[name](files, Path(cache))
    peak = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    )
    print(json.dumps({"results": results, "peak_mb": peak / 1024}))


def measure_in_child(name: str, folder: Path) -> dict[str, Rates]:
    """Return the result of `measure_system` in a process of its own."""
    command = [sys.executable, __file__, "--files", str(folder), "--one", name]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result = json.loads(printed.splitlines()[-1])
    return {epoch: {**rates, "peak MB": result["peak_mb"]} for epoch, rates in result["results"].items()}


def run_all(files: list[Path], folder: Path, repeats: int) -> None:
    """Measure the systems in turns, and print the best result of each.

    Args:
        files: The volumes.
        folder: Their folder.
        repeats: Measurements of each system.
    """
    installed = [name for name in SYSTEMS if name == "ours" or find_spec(name)]
    best: dict[tuple[str, str], Rates] = {}
    for name in installed * repeats:
        for epoch, rates in measure_in_child(name, folder).items():
            if rates["volumes/s"] > best.get((name, epoch), {"volumes/s": 0})["volumes/s"]:
                best[name, epoch] = rates
    print(f"{len(files)} files, best of {repeats}\n")
    print("| system | epoch | volumes/s | MB/s | peak MB |\n|---|---|---|---|---|")
    for (name, epoch), m in best.items():
        print(f"| {name} | {epoch} | {m['volumes/s']:.1f} | {m['MB/s']:.0f} | {m['peak MB']:.0f} |")
    print()
    for name in sorted(set(SYSTEMS) - set(installed)):
        print(f"{name} is not installed and was not measured. Install benchmarks/requirements.txt.")
    if "monai" in installed:
        print(compare_voxels(files))


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, help="folder of .nii.gz files; default: generated files")
    parser.add_argument("--count", type=int, default=24, help="how many to generate")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", choices=SYSTEMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = options.files or Path(made)
        files = sorted(folder.rglob("*.nii.gz")) if options.files else generate(folder, options.count)
        if not files:
            parser.error(f"{folder} has no .nii.gz file")
        if options.one:
            measure_system(options.one, files)
        else:
            run_all(files, folder, options.repeats)


if __name__ == "__main__":
    main()

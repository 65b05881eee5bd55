"""A damaged header ends in a volume or an error that names the file: no crash, hang or memory blow-up."""

import gzip
import resource
import time

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from voxlift.data_pipelines.preprocess.prepare import prepare_tensor
from voxlift.data_pipelines.preprocess.settings import preset
from voxlift.data_pipelines.readers import load_volume
from voxlift.data_pipelines.volume import VolumeError

SHAPE = (5, 7, 11)
TIME_AXES = ("error", "channels", "depth", "first")
SETTINGS = [preset(name, shape=(6, 6, 6), time_axis="first") for name in ("ct", "mri", "mask", "none")]


def seeds(folder):
    """Return the clean files that are mutated: every format, both byte orders, plain and packed."""
    voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.3) * 2, [1, 2, 3])
    for order in "<>":
        for kind, name in ((nib.Nifti1Image, "one"), (nib.Nifti2Image, "two")):
            image = kind(voxels, affine, kind.header_class(endianness=order))
            image.header.set_slope_inter(2.0, -1.0)
            for ending in (".nii", ".nii.gz"):
                nib.save(image, folder / f"{name}{ord(order)}{ending}")
    nib.save(nib.MGHImage(voxels, affine), folder / "a.mgh")
    return sorted(folder.iterdir())


def mutate(content, rng):
    """Return the content with a few header bytes changed, swapped for extremes, or with its end cut off."""
    packed = content[:2] == b"\x1f\x8b"
    data = bytearray(gzip.decompress(content) if packed else content)
    reach = min(600, len(data))
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(0, reach))
        if rng.random() < 0.5:
            data[place] = int(rng.integers(0, 256))
        else:
            extreme = (
                b"\xff\xff\xff\xff",
                b"\x7f\xff\xff\xff",
                bytes(4),
                b"\xff\xff\xff\x7f",
                b"\0\0\xc0\x7f",
            )
            data[place : place + 4] = extreme[int(rng.integers(0, len(extreme)))]
    if rng.random() < 0.1:
        del data[int(rng.integers(0, len(data))) :]
    return gzip.compress(bytes(data), 1) if packed and rng.random() < 0.9 else bytes(data)


def run(folder, clean, count, rng):
    """Read and prepare `count` mutated files; return how many gave a volume and how many an error."""
    volumes, messages, path = 0, [], folder / "mutant"
    contents = [path.read_bytes() for path in clean]
    for index in range(count):
        path.write_bytes(mutate(contents[index % len(contents)], rng))
        try:
            volume = load_volume(path, time_axis=TIME_AXES[index % 4])
            assert volume.voxels.nbytes <= 16 * 1024 * 1024
            assert np.isfinite(volume.affine).all()
            volumes += 1
            tensor = prepare_tensor(path, SETTINGS[index % 4])
            assert np.isfinite(tensor).all()
        except VolumeError as error:
            messages.append(str(error))
    assert all(str(path) in message for message in messages)
    return volumes, len(messages)


def check(tmp_path, count):
    (tmp_path / "clean").mkdir()
    clean = seeds(tmp_path / "clean")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    volumes, errors = run(tmp_path, clean, count, np.random.default_rng(7))
    assert volumes > count / 10
    assert errors > count / 10
    assert time.process_time() - started < count * 0.02
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_500_mutated_headers_end_in_a_volume_or_an_error(tmp_path):
    check(tmp_path, 500)


@pytest.mark.slow
def test_10000_mutated_headers_end_in_a_volume_or_an_error(tmp_path):
    check(tmp_path, 10_000)


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_mutated_headers_of_simpleitks_formats_end_in_a_volume_or_an_error(tmp_path, ending):
    image = SimpleITK.GetImageFromArray(np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16))
    clean = tmp_path / f"clean.{ending}"
    SimpleITK.WriteImage(image, str(clean))
    run(tmp_path, [clean], 150, np.random.default_rng(3))

"""A damaged header ends in a volume or an error that names the file: no crash, hang or memory blow-up."""

import gzip
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK

from dicom_files import CAPTURE, frames, write_bare, write_whole
from voxlift.data_pipelines.preprocess.prepare import prepare_tensor
from voxlift.data_pipelines.preprocess.settings import preset
from voxlift.data_pipelines.readers import load_volume
from voxlift.data_pipelines.readers.identity import find_reading, identify_image
from voxlift.data_pipelines.volume import VolumeError

SHAPE = (5, 7, 11)
TIME_AXES = ("error", "channels", "depth", "first")
SETTINGS = [preset(name, shape=(6, 6, 6), time_axis="first") for name in ("ct", "mri", "mask", "none")]
MAX_GROWTH_KB = 500_000
MAX_SECONDS = 10  # for one file
TEXTS = (*b"0 -1 nan 1e30 99999999999999999999 none ( %d LIST = :".split(), b"\n", b"\n\n")
EXTREMES = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f")


def voxels_of(dtype=np.int16):
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def write_nifti_seeds(folder):
    """Write clean NIfTI and MGH files: every version, both byte orders, plain and packed."""
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.3) * 2, [1, 2, 3])
    for order in "<>":
        for kind, name in ((nib.Nifti1Image, "one"), (nib.Nifti2Image, "two")):
            image = kind(voxels_of(), affine, kind.header_class(endianness=order))
            image.header.set_slope_inter(2.0, -1.0)
            for ending in (".nii", ".nii.gz"):
                nib.save(image, folder / f"{name}{ord(order)}{ending}")
    nib.save(nib.MGHImage(voxels_of(), affine), folder / "a.mgh")


def write_nrrd_seeds(folder):
    """Write clean NRRD files: as SimpleITK writes them, packed, with channels, units, limits and parts."""
    _write_itk_seeds(folder, "nrrd")
    raw = voxels_of().tobytes(order="F")
    head = "NRRD0005\ntype: short\ndimension: 3\nsizes: 5 7 11\nendian: little\nencoding: raw\n"
    (folder / "v.raw").write_bytes(raw)
    (folder / "limits.nrrd").write_bytes(
        (head + 'axis mins: 0 0 0\naxis maxs: 5 7 11\nunits: "um" "um" "um"\n\n').encode() + raw
    )
    (folder / "list.nrrd").write_text(head + "spacings: 1 1 1\ndata file: LIST\nv.raw\n")
    (folder / "parts.nrrd").write_text(head + "spacings: 1 1 1\ndata file: v%01d.raw 0 1 1\n")
    text = " ".join(map(str, voxels_of().ravel())).encode()
    (folder / "text.nrrd").write_bytes(head.replace("raw", "ascii").encode() + b"\n" + text)


def write_metaimage_seeds(folder):
    """Write clean MetaImage files: as SimpleITK writes them, packed, with channels, scaled, and in parts."""
    _write_itk_seeds(folder, "mha")
    raw = voxels_of().tobytes(order="F")
    head = (
        "ObjectType = Image\nNDims = 3\nDimSize = 5 7 11\nElementType = MET_SHORT\nElementSpacing = 1 2 3\n"
    )
    (folder / "v.raw").write_bytes(raw)
    scaled = (
        "DistanceUnits = um\nElementToIntensityFunctionSlope = 2\nElementToIntensityFunctionOffset = -3\n"
    )
    (folder / "scaled.mha").write_bytes((head + scaled + "ElementDataFile = LOCAL\n").encode() + raw)
    (folder / "list.mha").write_text(head + "ElementDataFile = LIST\nv.raw\n")
    (folder / "parts.mha").write_text(head + "HeaderSize = -1\nElementDataFile = v%01d.raw 0 1 1\n")


def _write_itk_seeds(folder, ending):
    for channels in (1, 2):
        image = SimpleITK.GetImageFromArray(
            np.stack([voxels_of()] * channels, -1) if channels > 1 else voxels_of(), isVector=channels > 1
        )
        for packed in (False, True):
            SimpleITK.WriteImage(image, str(folder / f"itk{channels}{packed}.{ending}"), packed)


def write_dicom_seeds(folder):
    """Write clean DICOM files of many frames: of two classes, with and without preamble."""
    write_whole(folder / "a.dcm", frames(CAPTURE, [(2, -7)] * 4))
    write_whole(folder / "b.dcm", frames("1.2.840.10008.5.1.4.1.1.4.1", [(1, 0)] * 4))
    write_bare(folder / "c.dcm", frames(CAPTURE, [(1, 0)] * 4), implicit=True)
    write_bare(folder / "d.dcm", frames(CAPTURE, [(1, 0)] * 4), implicit=False)
    assert pydicom.dcmread(folder / "a.dcm").NumberOfFrames == 4


SEEDS = {
    "nifti": write_nifti_seeds,
    "nrrd": write_nrrd_seeds,
    "metaimage": write_metaimage_seeds,
    "dicom": write_dicom_seeds,
}


def mutate(content, rng, *, is_text):
    """Return the content with a few header bytes changed, swapped for extremes, or with its end cut off."""
    packed = content[:2] == b"\x1f\x8b"
    data = bytearray(gzip.decompress(content) if packed else content)
    reach = min(600, len(data))
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(0, reach))
        if is_text and rng.random() < 0.5:
            text = TEXTS[int(rng.integers(0, len(TEXTS)))]
            data[place : place + int(rng.integers(0, 8))] = text
        elif rng.random() < 0.5:
            data[place % len(data)] = int(rng.integers(0, 256))
        else:
            data[place : place + 4] = EXTREMES[int(rng.integers(0, len(EXTREMES)))]
    if rng.random() < 0.1:
        del data[int(rng.integers(0, len(data))) :]
    return gzip.compress(bytes(data), 1) if packed and rng.random() < 0.9 else bytes(data)


def run(folder, clean, count, rng, *, is_text=False):
    """Read `count` mutated files; return how many gave a volume, how many an error, and the longest time."""
    volumes, messages, longest, path = 0, [], 0.0, folder / "mutant"
    contents = [file.read_bytes() for file in clean]
    for index in range(count):
        path.write_bytes(mutate(contents[index % len(contents)], rng, is_text=is_text))
        started = time.monotonic()
        try:
            identify_image(path)
            find_reading(path)
            volume = load_volume(path, time_axis=TIME_AXES[index % 4])
            assert volume.voxels.nbytes <= 16 * 1024 * 1024
            assert np.isfinite(volume.affine).all()
            volumes += 1
            tensor = prepare_tensor(path, SETTINGS[index % 4])
            assert np.isfinite(tensor).all()
        except VolumeError as error:
            messages.append(str(error))
        longest = max(longest, time.monotonic() - started)
    assert all(str(path) in message for message in messages)
    return volumes, len(messages), longest


def check(folder, name, count):
    """Mutate the seeds of one format; return a line about what came of it."""
    SEEDS[name](folder)
    clean = sorted(file for file in folder.iterdir() if file.suffix != ".raw")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    rng = np.random.default_rng(7)
    volumes, errors, longest = run(folder, clean, count, rng, is_text=name in ("nrrd", "metaimage"))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert volumes > count / 20
    assert errors > count / 20
    assert longest < MAX_SECONDS
    assert grown < MAX_GROWTH_KB
    return (
        f"{name}: {count} mutations, {volumes} volumes, {errors} errors, longest {longest:.2f} s,"
        f" {time.process_time() - started:.0f} s of CPU, {grown / 1000:.0f} MB more"
    )


@pytest.mark.parametrize("name", SEEDS)
def test_some_mutated_headers_end_in_a_volume_or_an_error(tmp_path, name):
    check(tmp_path, name, {"nifti": 500, "dicom": 60}.get(name, 300))


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS)
def test_10000_mutated_headers_end_in_a_volume_or_an_error(tmp_path, name):
    """In a process of its own, which a crash in C++ ends and whose memory is counted alone."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), str(tmp_path), name, "10000"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    sys.stdout.write(done.stdout)


if __name__ == "__main__":
    sys.stdout.write(check(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])) + "\n")

"""Score one image with an exported model: numpy and nibabel, and onnxruntime or tensorflow for the model.

    python score_image.py IMAGE [IMAGE ...]      one per channel, in the contract's order

A short reading of contract.json for the usual settings; what it does not cover, it refuses.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
How = Mapping[str, Any]  # the contract's entry `preprocess`
Array = NDArray[Any]


def prepare(paths: Sequence[str | Path], how: How) -> Array:
    """One tensor [1, depth, height, width, channels] from one image per channel."""
    refused = {"antialias": True, "foreground_crop": True, "interpolation": "nearest", "same_grid": False}
    for key, value in refused.items():
        if how[key] == value:
            raise SystemExit(f"{key}={value}: not in this example; prepare the image with voxlift-predict.")
    return np.stack([prepare_channel(path, how) for path in paths], axis=-1)[None].astype(np.float32)


def prepare_channel(path: str | Path, how: How) -> Array:
    """One channel [depth, height, width]."""
    image = nib.load(path)
    if how["axcodes"]:
        wanted = nib.orientations.axcodes2ornt(how["axcodes"])
        turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted)
        image = image.as_reoriented(turn)
    voxels = np.squeeze(image.get_fdata(dtype=np.float32))
    if voxels.ndim != 3:
        raise SystemExit(f"{path}: expected three axes, found {voxels.ndim}.")
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    finite = np.isfinite(voxels)
    outside = padding_value(voxels[finite], how)
    voxels = np.where(finite, voxels, np.float32(outside))
    scanned = []
    for axis in range(3):
        voxels, seen = resample_axis(voxels, axis, *sampling(axis, voxels.shape[axis], spacing, how))
        scanned.append(seen)
    inside = scanned[0][:, None, None] & scanned[1][:, None] & scanned[2]
    voxels = np.where(inside, voxels, np.float32(padding_value(voxels[inside], how)))
    return np.swapaxes(set_intensity(voxels, inside, how), 0, 2)


def sampling(axis: int, side: int, spacing: Array, how: How) -> tuple[float, float, int]:
    """Where an axis is sampled: start and step in stored voxels, and how many samples."""
    start, step, count = 0.0, 1.0, side
    if how["spacing"]:
        step = how["spacing"][2 - axis] / spacing[axis]
        step = 1.0 if abs(step - 1) * side < 0.01 else step
        count = max(1, round(side / step))
        start = (side - 1) / 2 - (count - 1) / 2 * step
    if how["shape"] and how["fit"] == "resize":
        factor = count / how["shape"][2 - axis]
        start, step, count = start + (factor - 1) / 2 * step, step * factor, how["shape"][2 - axis]
    elif how["shape"]:
        wanted = how["shape"][2 - axis]
        start, count = start + int((count - wanted) / 2) * step, wanted
    return start, step, count


def resample_axis(voxels: Array, axis: int, start: float, step: float, count: int) -> tuple[Array, Array]:
    """Linear interpolation along one axis, and which samples lie in the scanned field."""
    side = voxels.shape[axis]
    place = start + step * np.arange(count)
    low = np.clip(np.floor(place), 0, side - 1).astype(int)
    share = np.clip(place - low, 0, 1).astype(np.float32)
    share = share.reshape([-1 if one == axis else 1 for one in range(3)])
    first, second = np.take(voxels, low, axis), np.take(voxels, np.minimum(low + 1, side - 1), axis)
    return first * (1 - share) + second * share, (place > -0.5 + 1e-6) & (place < side - 0.5 - 1e-6)


def padding_value(values: Array, how: How) -> float:
    """What stands where nothing was scanned."""
    if how["pad"] is not None:
        return float(how["pad"])
    return float(how["window_hu"][0] if how["window_hu"] else values.min())


def set_intensity(voxels: Array, inside: Array, how: How) -> Array:
    """Window, percentiles, standard score and rounding, as the contract says."""
    chosen = inside
    if how["zscore"] == "foreground":
        threshold = how["foreground_threshold"]
        above = voxels > (foreground_threshold(voxels[inside]) if threshold is None else threshold)
        chosen = above & inside if (above & inside).any() else inside
    if how["window_hu"]:
        low, high = how["window_hu"]
        voxels = np.clip((voxels - low) / (high - low), 0, 1)
    if how["clip_percentiles"]:
        voxels = np.clip(voxels, *np.percentile(voxels[inside], how["clip_percentiles"]))
    if how["zscore"] != "none":
        voxels = (voxels - voxels[chosen].mean(dtype=float)) / voxels[chosen].std(dtype=float)
    return voxels.astype(how["rounded_to"] or np.float32)


def foreground_threshold(values: Array) -> float:
    """Otsu's threshold of 256 bins; the minimum of an image a tenth of which holds it."""
    sample = values.ravel()[:: max(1, values.size // 200_000)].astype(float)
    if (sample == sample.min()).mean() >= 0.1:
        return float(sample.min())
    counts, edges = np.histogram(sample, bins=256)
    below, mass = counts.cumsum()[:-1], (counts * (edges[:-1] + edges[1:]) / 2).cumsum()
    above = counts.sum() - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass[:-1] / below - (mass[-1] - mass[:-1]) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between))])


def score(tensor: Array, model: Mapping[str, Any]) -> Array:
    """The model's scores [classes] of one tensor."""
    if model["format"] == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(HERE / model["file"], providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {model["input"]["name"]: tensor})[0][0])
    import tensorflow as tf

    signature = tf.saved_model.load(str(HERE / model["file"])).signatures["serving_default"]
    outputs: Mapping[str, Any] = signature(**{model["input"]["name"]: tf.constant(tensor)})
    scores: Array = np.asarray(outputs[model["output"]["name"]])[0]
    return scores


def softmax(scores: Array) -> Array:
    """Probabilities that sum to one."""
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def main() -> None:
    """Print each class's probability, plain and calibrated, and the decision."""
    contract = json.loads((HERE / "contract.json").read_text(encoding="utf-8"))
    if len(sys.argv) - 1 != len(contract["channels"]):
        raise SystemExit(f"Expected one image for each of: {', '.join(contract['channels'])}.")
    scores = score(prepare(sys.argv[1:], contract["preprocess"]), contract["model"]).astype(float)
    plain, calibrated = softmax(scores), softmax(scores / contract["temperature"])
    for name, one, other in zip(contract["classes"], plain, calibrated, strict=True):
        sys.stdout.write(f"{name}\t{one:.6f}\tcalibrated {other:.6f}\n")
    threshold = contract["threshold"]
    decided = int(plain[1] >= threshold) if threshold is not None else int(plain.argmax())
    sys.stdout.write(f"decision\t{contract['classes'][decided]}\n")


if __name__ == "__main__":
    main()

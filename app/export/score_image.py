"""Score one image with an exported model: numpy and nibabel, and onnxruntime or tensorflow for the model.

    python score_image.py IMAGE [IMAGE ...]      one file per channel, in the order of the contract
    python score_image.py IMAGE age=63 sex=F     where the contract has columns; one that is left out is a gap
    python score_image.py IMAGE mask=FILE        where the contract has a region: its mask, on any grid, or
    python score_image.py IMAGE centre=10,-4,31  its centre in world mm, in the space that the contract names

It reads contract.json and supports the usual settings; it stops at settings that it does not support.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
Preprocess = Mapping[str, Any]  # the entry `preprocess` of the contract
Array = NDArray[Any]


def main() -> None:
    """Print what the model predicts for the image, and the decision."""
    contract = json.loads((FOLDER / "contract.json").read_text(encoding="utf-8"))
    columns = contract.get("columns", [])
    names = [column["name"] for column in columns]
    region = contract.get("region")
    named = {*names, "mask" if region["mask"] else "centre"} if region else {*names}
    cells = dict(one.split("=", 1) for one in sys.argv[1:] if one.split("=", 1)[0] in named)
    images = [one for one in sys.argv[1:] if one.split("=", 1)[0] not in named]
    if len(images) != len(contract["channels"]):
        raise SystemExit(f"Expected one image for each of: {', '.join(contract['channels'])}.")
    volume = prepare_image(images, contract["preprocess"], find_place(cells, region))
    scores = score(volume, contract["model"], encode_columns(cells, columns)).astype(float)
    lines = (
        describe_task(scores, contract["task"]) if "task" in contract else describe_classes(scores, contract)
    )
    sys.stdout.writelines(f"{line}\n" for line in lines)


def describe_classes(scores: Array, contract: Mapping[str, Any]) -> list[str]:
    """Return the probability of each class, uncalibrated and calibrated, and the decision."""
    bias = np.array(contract.get("bias", 0.0))
    probabilities, calibrated = softmax(scores), softmax(scores / contract["temperature"] + bias)
    lines = [
        f"{name}\t{one:.6f}\tcalibrated {other:.6f}"
        for name, one, other in zip(contract["classes"], probabilities, calibrated, strict=True)
    ]
    threshold = contract["threshold"]
    decided = int(probabilities[1] >= threshold) if threshold is not None else int(probabilities.argmax())
    return [*lines, f"decision\t{contract['classes'][decided]}"]


def describe_task(scores: Array, task: Mapping[str, Any]) -> list[str]:
    """Return the number with its unit, or the probabilities of findings or grades with the decisions."""
    names = task["outputs"]
    if task["name"] == "number":
        return [f"{names[0]}\t{scores[0]:.6g}\t{task['unit'] or ''}".rstrip()]
    if task["name"] == "findings":
        probabilities = 1 / (1 + np.exp(-scores))
        decided = [
            "yes" if p >= task["thresholds"][name] else "no"
            for name, p in zip(names, probabilities, strict=True)
        ]
        return [
            f"{name}\t{p:.6f}\t{word}" for name, p, word in zip(names, probabilities, decided, strict=True)
        ]
    probabilities = softmax(scores)
    above = 1 - np.cumsum(probabilities)[:-1]
    lines = [f"{name}\t{p:.6f}" for name, p in zip(names, probabilities, strict=True)]
    return [*lines, f"decision\t{names[int((above >= 0.5 - 1e-9).sum())]}"]


class Region(NamedTuple):
    """The mask or the centre of an image.

    Attributes:
        start: First voxel [3] of the box to crop to; of the whole image without a crop.
        stop: The voxel [3] after the last one.
        mask: Which voxels are inside, on the mask's own grid; None for a centre.
        to_mask: 4x4, voxel index in the image -> in the mask.
    """

    start: Array
    stop: Array
    mask: Array | None
    to_mask: Array


def find_place(cells: Mapping[str, str], region: Mapping[str, Any] | None) -> str | Array | None:
    """Return the file of the mask, or the centre [3] in world mm (RAS); None where neither is needed."""
    if region is None:
        return None
    if region["mask"]:
        if "mask" not in cells:
            raise SystemExit("This model needs the mask of the image: add mask=FILE.")
        return cells["mask"]
    numbers = cells.get("centre", "").split(",")
    if len(numbers) != 3:
        raise SystemExit(f"This model needs the centre in world mm: add centre=x,y,z ({region['space']}).")
    return np.array(numbers, float) * ([-1, -1, 1] if region["space"] == "LPS" else 1)


def prepare_image(
    paths: Sequence[str | Path], preprocess: Preprocess, place: str | Path | Array | None = None
) -> Array:
    """Return the model's input [1, depth, height, width, channels] from one file per channel.

    Args:
        paths: The files.
        preprocess: Of the contract.
        place: The file of the mask, or the centre in world mm (RAS), where the contract has a region.
    """
    unsupported = {"antialias": True, "foreground_crop": True, "interpolation": "nearest", "same_grid": False}
    for key, value in unsupported.items():
        if preprocess[key] == value:
            raise SystemExit(f"{key}={value} is not supported by this example. Use voxlift-predict.")
    prepared = [prepare_channel(path, preprocess, place) for path in paths]
    masks = [mask for _, mask in prepared[:1] if mask is not None and "channel" in preprocess["mask"]]
    return np.stack([*(voxels for voxels, _ in prepared), *masks], axis=-1)[None].astype(np.float32)


def prepare_channel(
    path: str | Path, preprocess: Preprocess, place: str | Path | Array | None = None
) -> tuple[Array, Array | None]:
    """Return one channel [depth, height, width], and the mask on the same grid where there is one."""
    image = nib.load(path)
    if preprocess["axcodes"]:
        target = nib.orientations.axcodes2ornt(preprocess["axcodes"])
        change = nib.orientations.ornt_transform(nib.io_orientation(image.affine), target)
        image = image.as_reoriented(change)
    voxels = np.squeeze(image.get_fdata(dtype=np.float32))
    if voxels.ndim != 3:
        raise SystemExit(f"{path}: expected three axes, found {voxels.ndim}.")
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    region = Region(np.zeros(3, int), np.array(voxels.shape), None, np.eye(4))
    if preprocess.get("mask"):
        region = find_region(place, voxels.shape, image.affine, preprocess)
    finite = np.isfinite(voxels)
    voxels = np.where(finite, voxels, np.float32(padding_value(voxels[finite], preprocess)))
    has_margin = preprocess.get("mask_margin_mm") is not None and "crop" in preprocess["mask"]
    in_field, positions = [], []
    for axis, (start, stop) in enumerate(zip(region.start, region.stop, strict=True)):
        first, step, count = sample_positions(axis, stop - start, spacing, preprocess)
        positions.append(start + first + step * np.arange(count))
        voxels, scanned = resample_axis(voxels, axis, positions[-1])
        in_box = (positions[-1] > start - 0.5 + 1e-6) & (positions[-1] < stop - 0.5 - 1e-6)
        in_field.append(scanned & in_box if has_margin else scanned)
    inside = in_field[0][:, None, None] & in_field[1][:, None] & in_field[2]
    mask = None if region.mask is None else sample_mask(region.mask, region.to_mask, positions)
    if mask is not None and "blank" in preprocess["mask"]:
        inside = inside & mask
    voxels = np.where(inside, voxels, np.float32(padding_value(voxels[inside], preprocess)))
    prepared = np.swapaxes(normalise(voxels, inside, preprocess), 0, 2)
    return prepared, None if mask is None else np.swapaxes(mask, 0, 2)


def find_region(
    place: str | Path | Array | None, shape: tuple[int, ...], affine: Array, preprocess: Preprocess
) -> Region:
    """Return the region of an image of this shape and affine, with the box around it and its margin."""
    mask, to_mask, half = None, np.eye(4), np.zeros(3)
    if isinstance(place, np.ndarray):
        at = (np.linalg.inv(affine) @ [*place, 1])[None, :3]
    else:
        mask, mask_affine = read_mask(place, preprocess)
        to_mask = np.linalg.inv(mask_affine) @ affine
        corners = np.array([[*np.multiply(one, shape), 1] for one in np.ndindex(2, 2, 2)])
        if np.abs((to_mask - np.round(to_mask)) @ corners.T).max() < 0.1:
            to_mask = np.round(to_mask)  # the same grid: headers are rounded
        to_image = np.linalg.inv(to_mask)
        at = np.argwhere(mask) @ to_image[:3, :3].T + to_image[:3, 3]
        half = np.abs(to_image[:3, :3]).sum(axis=1) / 2
    at = at[((at > -0.5) & (at < np.array(shape) - 0.5)).all(axis=1)]
    if not len(at):
        raise SystemExit(f"{place}: expected a mask or a centre inside of the image.")
    if "crop" not in preprocess["mask"]:
        return Region(np.zeros(3, int), np.array(shape), mask, to_mask)
    low = np.clip(at.min(axis=0) - half, -0.5, None)
    high = np.clip(at.max(axis=0) + half, None, np.array(shape) - 0.5)
    margin = (preprocess["mask_margin_mm"] or 0) / np.linalg.norm(affine[:3, :3], axis=0)
    start = np.floor(low - margin + 0.5 + 1e-3).astype(int)
    return Region(
        start, np.maximum(np.ceil(high + margin + 0.5 - 1e-3).astype(int), start + 1), mask, to_mask
    )


def read_mask(path: str | Path | None, preprocess: Preprocess) -> tuple[Array, Array]:
    """Return which voxels are inside a mask, and its affine."""
    if path is None:
        raise SystemExit("This model needs the mask or the centre of the image.")
    image = nib.load(path)
    inside = image.get_fdata(dtype=np.float32) >= 0.5
    inside = inside.any(axis=3) if inside.ndim == 4 else inside
    if preprocess["mask_components"] == "largest":
        from scipy import ndimage

        labels, count = ndimage.label(inside, np.ones((3, 3, 3)))
        inside = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]) if count > 1 else inside
    return inside, image.affine


def sample_mask(mask: Array, to_mask: Array, positions: Sequence[Array]) -> Array:
    """Return which samples are inside a mask, by nearest neighbour.

    Args:
        mask: On its own grid.
        to_mask: 4x4, voxel index in the image -> in the mask.
        positions: Of the samples along each axis, in voxels of the image.
    """
    grid = np.stack(np.meshgrid(*positions, indexing="ij"), axis=-1)
    nearest = np.floor(grid @ to_mask[:3, :3].T + to_mask[:3, 3] + 0.5).astype(int)
    is_in = ((nearest >= 0) & (nearest < mask.shape)).all(axis=-1)
    inside = np.zeros(is_in.shape, bool)
    inside[is_in] = mask[tuple(nearest[is_in].T)]
    return inside


def sample_positions(
    axis: int, size: int, spacing: Array, preprocess: Preprocess
) -> tuple[float, float, int]:
    """Return the first position and the step, in stored voxels, and the number of samples along an axis."""
    start, step, count = 0.0, 1.0, size
    if preprocess["spacing"]:
        step = preprocess["spacing"][2 - axis] / spacing[axis]
        step = 1.0 if abs(step - 1) * size < 0.01 else step
        count = max(1, round(size / step))
        start = (size - 1) / 2 - (count - 1) / 2 * step
    if preprocess["shape"] and preprocess["fit"] == "resize":
        factor = count / preprocess["shape"][2 - axis]
        start, step, count = start + (factor - 1) / 2 * step, step * factor, preprocess["shape"][2 - axis]
    elif preprocess["shape"]:
        target = preprocess["shape"][2 - axis]
        start, count = start + int((count - target) / 2) * step, target
    return start, step, count


def resample_axis(voxels: Array, axis: int, positions: Array) -> tuple[Array, Array]:
    """Return linearly interpolated samples along one axis, and which of them lie in the scanned field."""
    size = voxels.shape[axis]
    lower = np.clip(np.floor(positions), 0, size - 1).astype(int)
    fraction = np.clip(positions - lower, 0, 1).astype(np.float32)
    fraction = fraction.reshape([-1 if one == axis else 1 for one in range(3)])
    first = np.take(voxels, lower, axis)
    second = np.take(voxels, np.minimum(lower + 1, size - 1), axis)
    in_field = (positions > -0.5 + 1e-6) & (positions < size - 0.5 - 1e-6)
    return first * (1 - fraction) + second * fraction, in_field


def padding_value(values: Array, preprocess: Preprocess) -> float:
    """Return the value of voxels outside the scanned field."""
    if preprocess["pad"] is not None:
        return float(preprocess["pad"])
    return float(preprocess["window_hu"][0] if preprocess["window_hu"] else values.min())


def normalise(voxels: Array, inside: Array, preprocess: Preprocess) -> Array:
    """Apply window, percentiles, z-score and rounding."""
    selected = inside
    if preprocess["zscore"] == "foreground":
        threshold = preprocess["foreground_threshold"]
        above = voxels > (foreground_threshold(voxels[inside]) if threshold is None else threshold)
        selected = above & inside if (above & inside).any() else inside
    if preprocess["window_hu"]:
        low, high = preprocess["window_hu"]
        voxels = np.clip((voxels - low) / (high - low), 0, 1)
    if preprocess["clip_percentiles"]:
        voxels = np.clip(voxels, *np.percentile(voxels[inside], preprocess["clip_percentiles"]))
    if preprocess["zscore"] != "none":
        voxels = (voxels - voxels[selected].mean(dtype=float)) / voxels[selected].std(dtype=float)
    return voxels.astype(preprocess["rounded_to"] or np.float32)


def foreground_threshold(values: Array) -> float:
    """Return Otsu's threshold over 256 bins, or the minimum if at least a tenth of the voxels have it."""
    sample = values.ravel()[:: max(1, values.size // 200_000)].astype(float)
    if (sample == sample.min()).mean() >= 0.1:
        return float(sample.min())
    counts, edges = np.histogram(sample, bins=256)
    below, mass = counts.cumsum()[:-1], (counts * (edges[:-1] + edges[1:]) / 2).cumsum()
    above = counts.sum() - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass[:-1] / below - (mass[-1] - mass[:-1]) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between))])


def encode_columns(cells: Mapping[str, str], columns: Sequence[Mapping[str, Any]]) -> Array:
    """Return the columns of one subject as the model takes them, [1, features]."""
    numbers, marks, words = [], [], []
    for column in columns:
        cell = cells.get(column["name"], "")
        if column["kind"] == "number":
            value = (
                float(cell.strip("<>=+ ")) if cell else column["median"]
            )  # a limit such as 89+ counts as 89
            numbers.append((yeo_johnson(value, column["power"]) - column["mean"]) / column["scale"])
            marks += [column["gap"][0 if cell else 1]] if column["gap"] else []
        else:
            words += [float((cell or "(missing)") == word) for word in column["words"]]
    return np.array([[*numbers, *marks, *words]], np.float32)


def yeo_johnson(x: float, power: float) -> float:
    """Return a number transformed by Yeo and Johnson (2000), doi:10.1093/biomet/87.4.954."""
    if x >= 0:
        return float(np.log1p(x)) if abs(power) < 1e-12 else float(((x + 1) ** power - 1) / power)
    rest = 2 - power
    return float(-np.log1p(-x)) if abs(rest) < 1e-12 else float(-((1 - x) ** rest - 1) / rest)


def score(volume: Array, model: Mapping[str, Any], columns: Array) -> Array:
    """Return the model's scores [classes] for one volume, and its columns where the model takes any."""
    inputs = {model["input"]["name"]: volume}
    if "columns_input" in model:
        inputs[model["columns_input"]["name"]] = columns
    if model["format"] == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(FOLDER / model["file"], providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, inputs)[0][0])
    import tensorflow as tf

    signature = tf.saved_model.load(str(FOLDER / model["file"])).signatures["serving_default"]
    outputs: Mapping[str, Any] = signature(**{name: tf.constant(one) for name, one in inputs.items()})
    scores: Array = np.asarray(outputs[model["output"]["name"]])[0]
    return scores


def softmax(scores: Array) -> Array:
    """Return probabilities that sum to one."""
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


if __name__ == "__main__":
    main()

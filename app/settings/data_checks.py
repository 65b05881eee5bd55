"""What is wrong with the settings of what is read: the data set, its splits, the grid of the volumes."""

from __future__ import annotations

from types import UnionType

from voxlift.app.settings.groups import DataSettings, PreprocessSettings, SplitSettings
from voxlift.app.settings.sentences import choice_problem, range_problem

DATA_NAMES = ("phantom", "manifest", "medmnist3d")


def data_problems(data: DataSettings) -> list[str]:
    """One sentence for each thing wrong with where subjects come from (group `data`)."""
    needs = {"phantom": "task", "manifest": "table", "medmnist3d": "npz"}
    problems = choice_problem("data.name", data.name, DATA_NAMES)
    needed = needs.get(data.name)
    if needed and getattr(data, needed) is None:
        problems.append(f"data.{needed}: data={data.name} needs it; say data.{needed}=...")
    return [
        *problems,
        *_unread_problems(data),
        *choice_problem("data.time_axis", data.time_axis, ("error", "channels", "depth", "first")),
        *choice_problem("data.on_bad_file", data.on_bad_file, ("stop", "skip")),
    ]


def _unread_problems(data: DataSettings) -> list[str]:
    """What names the user's own files, where another data set would be read without a word."""
    readers = {"table": "manifest", "root": "manifest", "npz": "medmnist3d"}
    return [
        f"data.{key}={value}: data={data.name} does not read it; add data={reader}."
        for key, reader in readers.items()
        if (value := getattr(data, key)) is not None and data.name in DATA_NAMES and data.name != reader
    ]


def split_problems(splits: SplitSettings) -> list[str]:
    """One sentence for each thing wrong with the fractions or the folds."""
    problems = range_problem("splits.val", splits.val, 0.01, 0.9)
    problems += _fold_problems("outer_fold", splits.outer_folds, splits.outer_fold)
    if splits.folds == 0:
        problems += range_problem("splits.test", splits.test, 0.0, 0.9)
        if splits.val + splits.test >= 1:
            problems.append(
                f"splits: expected val + test below 1; received {splits.val:g} + {splits.test:g}."
            )
        return problems
    return problems + _fold_problems("fold", splits.folds, splits.fold)


def _fold_problems(name: str, folds: int, fold: int) -> list[str]:
    if folds == 0:
        return []
    if folds < 2:
        return [f"splits.{name}s: expected 0 (no folds) or at least 2; received {folds}."]
    return range_problem(f"splits.{name}", fold, 0, folds - 1)


def shape_problems(preprocess: PreprocessSettings) -> list[str]:
    """One sentence for each of shape (voxels) and spacing (mm) that is no triple of depth, height, width."""
    shape, spacing = preprocess.shape, preprocess.spacing
    problems = []
    if shape is not None and not _is_triple(shape, int):
        problems.append(
            f"preprocess.shape: expected three voxel counts [depth,height,width]; received {shape}."
        )
    if spacing != "native" and not _is_triple(spacing, int | float):
        problems.append(
            f"preprocess.spacing: expected three mm [depth,height,width] or native; received {spacing}."
        )
    return problems


def _is_triple(value: object, kind: type | UnionType) -> bool:
    items = value if isinstance(value, list) else []
    return len(items) == 3 and all(isinstance(item, kind) and item > 0 for item in items)  # type: ignore[operator]

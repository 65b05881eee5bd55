"""Check the augmentation settings, and build the functions that augment examples."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from voxlift.app.config import SettingsError
from voxlift.app.data.cohort import Cohort
from voxlift.data_pipelines.augment import Augment, changes_handedness
from voxlift.data_pipelines.errors import list_some

log = logging.getLogger("voxlift")

_SIDE = re.compile(r"(?<![^\W_])(left|right|l|r|lh|rh)(?![^\W_])")


def read_augment(augment: Mapping[str, Any]) -> Augment:
    """Return the augmentation settings as a checked value.

    Raises:
        SettingsError: A field is unknown or out of range.
    """
    fields: dict[str, Any] = {key: value for key, value in augment.items() if key != "name"}
    try:
        chosen = Augment(**fields)
        chosen.check()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"augment: {error}") from error
    return chosen


def warn_of_mirrors(augment: Augment, classes: Sequence[str]) -> None:
    """Warn that volumes will be mirrored, and name the key that stops it.

    Args:
        augment: The augmentation settings.
        classes: Class names; those that differ only by the side are named.
    """
    if not changes_handedness(augment):
        return
    sides = find_laterality_classes(classes)
    if sides:
        log.warning(
            "The classes %s differ by their side, and the augmentation mirrors volumes, which turns one into "
            "the other: set augment.keep_handedness=true, or the network cannot separate them.",
            list_some(sides),
        )
        return
    log.warning(
        "The augmentation mirrors volumes, which swaps left and right. If the label depends on side or "
        "handedness, set augment.keep_handedness=true, which switches all mirroring off."
    )


def find_laterality_classes(classes: Sequence[str]) -> list[str]:
    """Return the classes whose names differ from another's only by the side.

    >>> find_laterality_classes(["liver", "Kidney left", "Kidney right"])
    ['Kidney left', 'Kidney right']
    """
    groups = defaultdict[str, list[str]](list)
    for name in classes:
        groups[_SIDE.sub("*", name.casefold())].append(name)
    return [name for same in groups.values() if len(same) > 1 for name in same]


def build_augmentation(chosen: Augment, cohort: Cohort) -> Any:  # noqa: ANN401 - a graph function, or None
    """Return the function that augments one volume's voxels by a seed; None where nothing varies.

    Args:
        chosen: The augmentation settings.
        cohort: Its spacing in mm scales movements; 1 mm where volumes keep their native spacing.
    """
    if replace(chosen, mixup_alpha=0.0) == Augment():
        return None
    from voxlift.data_pipelines.augment.build import build_augment

    masks = int("channel" in cohort.preprocess.mask)
    return build_augment(chosen, spacing=cohort.preprocess.spacing or (1.0, 1.0, 1.0), masks=masks)


def build_mixing(chosen: Augment) -> Any:  # noqa: ANN401 - a graph function, or None
    """Return the function that blends pairs of a batch; None where mixup is off."""
    if not chosen.mixup_alpha:
        return None
    from voxlift.data_pipelines.augment.mixup import build_mixup

    return build_mixup(chosen)

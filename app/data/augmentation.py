"""From the settings of the augmentation to a checked value, and to the functions that vary examples."""

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
    """The augmentation's settings as a checked value.

    Raises:
        SettingsError: a field is unknown or out of range.
    """
    fields: dict[str, Any] = {key: value for key, value in augment.items() if key != "name"}
    try:
        chosen = Augment(**fields)
        chosen.check()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"augment: {error}") from error
    return chosen


def warn_of_mirrors(augment: Augment, classes: Sequence[str]) -> None:
    """Log that volumes will be mirrored, and the key that stops it; the louder where classes are sides."""
    if not changes_handedness(augment):
        return
    sides = find_laterality_classes(classes)
    if sides:
        log.warning(
            "The classes %s are sides, and the augmentation mirrors volumes, which makes one of the other: "
            "take augment.keep_handedness=true, or they cannot be told apart.",
            list_some(sides),
        )
        return
    log.warning(
        "The augmentation mirrors volumes, which swaps left and right: where the label is a side or a "
        "handedness it teaches errors; augment.keep_handedness=true switches all mirroring off."
    )


def find_laterality_classes(classes: Sequence[str]) -> list[str]:
    """The classes whose names differ from another's by the side alone.

    >>> find_laterality_classes(["liver", "Kidney left", "Kidney right"])
    ['Kidney left', 'Kidney right']
    """
    groups = defaultdict[str, list[str]](list)
    for name in classes:
        groups[_SIDE.sub("*", name.casefold())].append(name)
    return [name for same in groups.values() if len(same) > 1 for name in same]


def build_augmentation(chosen: Augment, cohort: Cohort) -> Any:  # noqa: ANN401 - a graph function, or None
    """The function of one volume's voxels and seed that the settings describe; None where nothing varies."""
    if replace(chosen, mixup_alpha=0.0) == Augment():
        return None
    from voxlift.data_pipelines.augment.build import build_augment

    return build_augment(chosen, spacing=cohort.preprocess.spacing or (1.0, 1.0, 1.0))


def build_mixing(chosen: Augment) -> Any:  # noqa: ANN401 - a graph function, or None
    """The function that blends pairs of a batch; None where mixup is off."""
    if not chosen.mixup_alpha:
        return None
    from voxlift.data_pipelines.augment.mixup import build_mixup

    return build_mixup(chosen)

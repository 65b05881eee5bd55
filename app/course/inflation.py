"""Train in 2D, inflate, fine-tune in 3D: what `model.pretrain` adds to a training."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from voxlift.app.files import read_json
from voxlift.app.networks.building import Networks, build_networks, lift_networks, plan_volume
from voxlift.app.networks.pretrained import load_trained, trained_source
from voxlift.app.runs.configuration import save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.reuse import find_beside
from voxlift.app.settings import ModelSettings, TrainSettings
from voxlift.app.strategy.spreading import build_spread
from voxlift.app.subjects.cohort import Cohort

if TYPE_CHECKING:
    from voxlift.models.lifting import LiftPlan
log = logging.getLogger("voxlift")


SLICES = "slice2d"  # the sub-run's folder in the run folder, and its model's name


@dataclass(frozen=True)
class Inflation:
    """The slice model to train first, and the plan that lifts it afterwards."""

    settings: TrainSettings
    slices: Networks
    plan: LiftPlan

    def take_weights(self, run: RunFolder) -> None:
        """Give the slice model the weights of a run that trained it to its end."""
        weights = load_trained(run.path).get_weights()
        self.slices.trained.set_weights(weights)
        self.slices.own.set_weights(weights)

    def inflate(self) -> Networks:
        """The 3D network with the weights that the 2D one holds now."""
        log.info("Inflating the trained slice network, init=%s", self.plan.settings["init"])
        return build_spread(self.settings, lambda: lift_networks(self.plan))


def trains_slices_first(model: ModelSettings) -> bool:
    """Whether a 2D network must be trained before the 3D one; a trained one may have been named already."""
    return model.kind == "volume" and model.pretrain and trained_source(model.baseline) is None


def plan_inflation(settings: TrainSettings, cohort: Cohort) -> Inflation:
    """The slice model and its lift, both decided before anything is trained.

    Raises:
        SettingsError, LiftError: the settings name something that cannot be built or lifted.
    """
    first = slice_settings(settings)
    slices = build_spread(first, lambda: build_networks(first.model, cohort))
    log.info("Model %s, trained first: %s parameters", SLICES, f"{slices.trained.count_params():,}")
    return Inflation(first, slices, plan_volume(settings.model, cohort, slices.own))


def slice_settings(settings: TrainSettings) -> TrainSettings:
    """The settings of the slice model that is trained first: the same in all that is not the model's kind.

    What only a lift asks for is left at its default, as `model=slice2d` leaves it.
    """
    model = replace(
        settings.model,
        name=SLICES,
        kind="slice",
        init=ModelSettings.init,
        depth_policy=ModelSettings.depth_policy,
        depth_kernel=ModelSettings.depth_kernel,
        axis="depth",
        slices="all",
        aggregate="mean",
        slab=1,
        pretrain=False,
        rate_factor=1.0,
        freeze_epochs=0,  # an untrained network has nothing to keep
    )
    return replace(settings, model=model)


def slice_folder(run: RunFolder) -> RunFolder:
    """The sub-run's folder, made on disk."""
    folder = RunFolder(run.path / SLICES)
    folder.path.mkdir(exist_ok=True)
    return folder


def borrow_slices(first: RunFolder, wanted: TrainSettings) -> bool:
    """Copy the same slice model into the sub-run where the run's comparison has trained it already.

    Args:
        first: the sub-run's folder; nothing is borrowed where its own training has begun.
        wanted: its settings.

    Returns:
        Whether the folder now holds a finished run.
    """
    is_open = wanted.strategy != "hosts" and not any(first.path.iterdir())  # other hosts may see no such run
    found = find_beside(first.path.parent, wanted) if is_open else None
    if found is None:
        return False
    log.info("The slice network of %s is taken: the same training", found.path)
    partial = RunFolder(first.path.with_name(f".{SLICES}.partial"))
    shutil.rmtree(partial.path, ignore_errors=True)
    shutil.copytree(found.path, partial.path, ignore=shutil.ignore_patterns("checkpoints"))
    save_settings(wanted, partial)
    partial.path.replace(first.path)  # in one step: a killed copy is not taken for a run
    return True


def cost_of_slices(run: RunFolder) -> dict[str, float]:
    """The seconds that the slice model's training took; nothing where none was trained first."""
    first = RunFolder(run.path / SLICES)
    if not first.is_finished:
        return {}
    return {"pretrain_seconds": read_json(first.metrics)["cost"]["train_seconds"]}

"""What a training fits, in order: one model; or a slice model, then the network that is made from it."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from voxlift.app.config import ModelSettings, SettingsError, TrainSettings
from voxlift.app.data.columns import fit_joined
from voxlift.app.data.sources import build_preprocess
from voxlift.app.runs.configuration import find_in_comparison, save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime.setup import rounding_tolerance, unchanged_randomness
from voxlift.app.tasks.base import task_of
from voxlift.app.training.baseline import check_name, has_trained_weights, load_trained, trained_source
from voxlift.app.training.networks import (
    InputSpec,
    Networks,
    build_networks,
    join_networks,
    lift_networks,
    plan_volume,
    pool_networks,
    pools_features,
)
from voxlift.app.training.strategy.distribute import build_distributed, prepare_devices, single_process

if TYPE_CHECKING:
    from voxlift.data_pipelines.tables.manifest import Manifest
    from voxlift.models.lifting import LiftPlan, LiftProof


log = logging.getLogger("voxlift")

SLICE_MODEL = "slice2d"  # the name of the slice model that is trained first, and of its folder in the run


@dataclass(frozen=True)
class Stage:
    """One fit of a training.

    Attributes:
        settings: Of this fit; those of the slice model where one is trained first.
        spec: The volumes and classes that the networks are built for.
        networks: Untrained; None for a model without a network, and where `build` gives them.
        build: Makes them from the network of the stage before, with the weights that it has by then.
        is_last: Whether this stage gives the model of the run.
    """

    settings: TrainSettings
    spec: InputSpec
    networks: Networks | None = None
    build: Callable[[], Networks] | None = None
    is_last: bool = True

    def take_networks(self) -> Networks:
        """Return the networks to train; at each call new ones where they come from the stage before."""
        if self.build is None:
            assert self.networks is not None  # noqa: S101 - for the type checker: models without a network never ask
            return self.networks
        return build_distributed(self.settings, self.build)

    def open_folder(self, run: RunFolder) -> RunFolder:
        """Return the folder of this stage, made on disk: the run's own for the last stage."""
        if self.is_last:
            return run
        folder = run.slice_model
        folder.path.mkdir(exist_ok=True)
        return folder

    def adopt_finished_run(self, folder: RunFolder) -> bool:
        """Give the networks the weights of a finished slice model, and return whether there is one.

        It is this stage's own, or another of the comparison to which the run belongs.

        Args:
            folder: Of this stage.
        """
        if self.is_last or not (folder.is_finished or copy_from_comparison(folder, self.settings)):
            return False
        weights = load_trained(folder.path).get_weights()
        networks = self.take_networks()
        networks.trained.set_weights(weights)
        networks.own.set_weights(weights)
        return True


def build_stages(
    settings: TrainSettings, spec: InputSpec, *, run: RunFolder | None = None
) -> tuple[Stage, ...]:
    """Build the networks of a training, and plan what is made of a slice model that is trained first.

    Args:
        settings: Of the training.
        spec: The volumes and classes to build for.
        run: The folder of a training to resume, which holds the network of `model.builder`.

    Raises:
        SettingsError, LiftError: The settings name something that cannot be built or lifted.
    """
    if not settings.model.has_network:
        return (Stage(settings, spec),)
    if not trains_slices_first(settings.model):
        return (_build_stage(settings, spec, run, is_last=True),)
    first = _build_stage(slice_settings(settings), spec.images_alone, run, is_last=False)
    if settings.model.builder is not None and run is None:
        log.info("%s", _describe_builder(settings.model))
    network = first.take_networks().own
    if settings.model.kind == "slice":
        return first, Stage(settings, spec, build=partial(pool_networks, settings.model, spec, network))
    plan = plan_volume(settings.model, spec, network)
    if run is None:
        check_lift(plan, settings)
    return first, Stage(settings, spec, build=partial(_inflate, plan, spec))


def _inflate(plan: LiftPlan, spec: InputSpec) -> Networks:
    log.info("Inflating the trained slice network, init=%s", plan.settings["init"])
    return join_networks(lift_networks(plan), spec)


def build_stages_early(
    settings: TrainSettings, manifest: Manifest, splits: Sequence[str]
) -> tuple[Stage, ...]:
    """Build the networks before any image is read, so that wrong settings are refused at once.

    Returns:
        The stages; none where the shape of the prepared volumes is not known beforehand.

    Raises:
        SettingsError, LiftError: As `build_stages`.
    """
    spec = expected_spec(settings, manifest, splits)
    if spec is None:
        check_name(settings.model)
        return ()
    prepare_devices(settings)
    return build_stages(settings, spec)


def expected_spec(settings: TrainSettings, manifest: Manifest, splits: Sequence[str]) -> InputSpec | None:
    """Return what networks will take if each image has one channel; None where files decide the shape."""
    sides = settings.preprocess.shape
    if sides is None or settings.data.time_axis == "channels" or not manifest.records:
        return None
    depth, height, width = sides
    spacing = None if settings.preprocess.spacing == "native" else settings.preprocess.spacing
    uses_mask = "channel" in build_preprocess(settings.preprocess, settings.data).mask
    channels = len(manifest.records[0].images) + uses_mask
    task = task_of(settings)
    trained = [one for one, split in zip(manifest.records, splits, strict=True) if split == "train"]
    joined = fit_joined(settings, manifest.records, splits)
    return InputSpec(
        (depth, height, width, channels),
        manifest.classes,
        spacing,
        settings.preprocess,
        task=task,
        head=task.plan_head(manifest.classes, task.labels(trained)),
        columns=0 if joined is None else joined.features.shape[1],
    )


def trains_slices_first(model: ModelSettings) -> bool:
    """Return whether a 2D network is trained before the model is made from it; no trained one was named then.

    Frozen features need no more training where the network has the weights of `model.weights`.
    """
    is_made_from_slices = model.kind == "volume" or (pools_features(model) and not model.has_given_weights)
    return model.pretrain and is_made_from_slices and trained_source(model.baseline) is None


def slice_settings(settings: TrainSettings) -> TrainSettings:
    """Return the settings of the slice model that is trained first: equal in all but the kind of model.

    What only a lift uses has its default, as `model=slice2d` leaves it. The slices are those of the model. No
    columns of the table are joined.
    """
    slices = settings.model if settings.model.kind == "slice" else ModelSettings()
    model = replace(
        settings.model,
        name=SLICE_MODEL,
        kind="slice",
        init=ModelSettings.init,
        depth_policy=ModelSettings.depth_policy,
        depth_kernel=ModelSettings.depth_kernel,
        axis=slices.axis,
        slices=slices.slices,
        aggregate="mean",
        slab=slices.slab,
        frozen=False,
        pretrain=False,
        rate_factor=1.0,
        columns=[],
        join_columns=False,
        # An untrained network has nothing to keep; of a function of the user only this key says that it is
        # trained.
        freeze_epochs=settings.model.freeze_epochs if _may_be_trained(settings.model) else 0,
    )
    return replace(settings, model=model)


def _may_be_trained(model: ModelSettings) -> bool:
    """Return whether the 2D network may have trained weights before it is trained on slices."""
    return model.has_given_weights or model.builder is not None


def _describe_builder(model: ModelSettings) -> str:
    """Return what the slice stage does with weights that a function of the user's has loaded."""
    if model.freeze_epochs:
        return (
            f"model.freeze_epochs={model.freeze_epochs}: in the first epochs of both stages only the head "
            "of the network of model.builder is trained"
        )
    return (
        "All weights of the network of model.builder are trained on slices first, those that the function "
        "has loaded as well; model.freeze_epochs=N trains only the head in the first N epochs of both stages"
    )


def copy_from_comparison(folder: RunFolder, wanted: TrainSettings) -> bool:
    """Copy the same slice model into the folder where the run's comparison has trained it already.

    Args:
        folder: Of the slice stage; nothing is copied where its own training has begun.
        wanted: Its settings.

    Returns:
        Whether the folder now holds a finished run.
    """
    # Other hosts may not see the same file system.
    is_open = wanted.strategy != "hosts" and not any(folder.path.iterdir())
    found = find_in_comparison(folder.path.parent, wanted) if is_open else None
    if found is None:
        return False
    log.info("The slice network of %s is reused: the same training", found.path)
    partial_copy = RunFolder(folder.path.with_name(f".{SLICE_MODEL}.partial"))
    shutil.rmtree(partial_copy.path, ignore_errors=True)
    shutil.copytree(found.path, partial_copy.path, ignore=shutil.ignore_patterns("checkpoints"))
    save_settings(wanted, partial_copy)
    partial_copy.path.replace(folder.path)  # in one step: an interrupted copy is not taken for a run
    return True


def _build_stage(settings: TrainSettings, spec: InputSpec, run: RunFolder | None, *, is_last: bool) -> Stage:
    untrained = run.untrained if run is not None and settings.model.builder is not None else None
    build = partial(build_networks, settings.model, spec, untrained=untrained)
    networks = build_distributed(settings, build)
    if run is None:  # a resumed training has passed it
        check_lift(networks.plan, settings)
    networks = replace(networks, plan=None)  # it keeps the 2D network
    if settings.model.builder is not None:
        _seed_draws(networks.volume, settings.seed)
    order = "" if is_last else ", trained first"
    log.info("Model %s%s: %s parameters", settings.model.name, order, f"{networks.trained.count_params():,}")
    return Stage(settings, spec, networks, is_last=is_last)


def _seed_draws(network: Any, seed: int) -> None:  # noqa: ANN401 - untyped Keras
    """Set the states of dropout by the seed: a file of a network does not hold them."""
    states = [one for one in network.variables if one.name == "seed_generator_state"]
    for index, state in enumerate(states):
        state.assign(np.array([seed, index]))


QUICK_VOXELS = 2**16  # up to which a check of a deep network takes seconds


def check_lift(plan: LiftPlan | None, settings: TrainSettings) -> None:
    """Pass when the lifted network gives on repeated slices what the 2D network gives on a slice.

    Networks and random draws stay unchanged. Random 3D weights promise nothing, so there is no check.

    Args:
        plan: Of the lift; None for a network that is not lifted.
        settings: Of the training.

    Raises:
        SettingsError: The networks differ in a layer that the plan calls exact.
    """
    if plan is None or not settings.preflight.lift or plan.settings["init"] == "random":
        return
    from voxlift.models.lifting import verify_lift

    # A network that is trained on slices first has no trained weights yet.
    is_random = settings.model.pretrain or not has_trained_weights(settings.model)
    tolerance = rounding_tolerance(plan.model_2d)
    with unchanged_randomness(), single_process() if settings.strategy == "hosts" else nullcontext():
        proof = verify_lift(shorten_depth(plan), random_weights=is_random, tolerance=tolerance)
    if proof.is_refuted:
        raise SettingsError(_describe_refuted(proof))
    log.info("%s", describe_proof(proof))


def shorten_depth(plan: LiftPlan) -> LiftPlan:
    """Return the plan for as few slices as it needs where the whole volume would take long to compute."""
    from voxlift.models.lifting import LiftError

    volume = next(spec.shape[1:4] for spec in plan.graph.inputs if spec.is_volume)
    if math.prod(side or 0 for side in volume) <= QUICK_VOXELS:
        return plan
    shape = plan.settings["input_shape"]
    try:
        return plan.replan(depth=None, input_shape=None if shape is None else (None, *shape[1:]))
    except LiftError:
        return plan  # a weight for every position needs the whole volume


def describe_proof(proof: LiftProof) -> str:
    """Return one line about a lift that can be trained."""
    line = (
        f"Lift of {proof.network} on repeated slices: {proof.verdict}, difference {proof.difference:.1e} "
        f"({proof.seconds:.1f} s)"
    )
    if proof.verdict == "no signal":
        return f"{line}; two different slices give nearly equal outputs, so that this shows little"
    if proof.is_proved or not proof.inexact:
        return line
    layer, reason = next(iter(proof.inexact.items()))
    more = f"; and {len(proof.inexact) - 1} more layers" if len(proof.inexact) > 1 else ""
    return f"{line}; {layer}: {reason}{more}"


def _describe_refuted(proof: LiftProof) -> str:
    difference = max(proof.promised_difference, proof.scheme_difference, proof.difference)
    where = f" The first layer that differs is {proof.worst_layer}." if proof.worst_layer else ""
    return (
        f"{proof.network}: expected the lifted network to agree with the 2D one on repeated slices to "
        f"{proof.tolerance:g}; it differs by {difference:.1e}.{where} With preflight.lift=false it is "
        "trained without this check."
    )

"""Train in 2D, inflate, fine-tune in 3D: what `model.pretrain` adds to a training."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from voxlift.app.config import ModelSettings, TrainSettings
from voxlift.app.data.cohort import Cohort, gather_cohort
from voxlift.app.files import read_json, read_rows, refuse_unwritable, write_json
from voxlift.app.inference.evaluate import evaluate_run
from voxlift.app.inference.scores import scoring_cost
from voxlift.app.progress import say
from voxlift.app.runs.configuration import save_settings
from voxlift.app.runs.folder import RunFolder, create_run, refuse_used_folder
from voxlift.app.runs.networks import save_trained
from voxlift.app.runs.reuse import find_beside
from voxlift.app.runs.subjects import describe_run, reopen_subjects
from voxlift.app.runtime.failures import told_in_sentences, training_need, way_on
from voxlift.app.runtime.logs import logging_to_file
from voxlift.app.runtime.precision import Precision
from voxlift.app.runtime.setup import prepare_runtime
from voxlift.app.training.finalize import end_run
from voxlift.app.training.networks import Networks, build_networks, lift_networks, plan_volume
from voxlift.app.training.pretrained import check_name, load_trained, refuse_seen_subjects, trained_source
from voxlift.app.training.resume import begin_again, is_complete, saved_precision
from voxlift.app.training.strategy.distribute import build_spread, do_once, prepare_devices
from voxlift.app.training.strategy.hosts.agreement import agree_on_precision, agree_on_subjects
from voxlift.app.training.strategy.hosts.rendezvous import announce_run, in_turn, is_follower
from voxlift.app.training.table_model import train_on_table

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


Parts = Networks | Inflation


def build_parts(settings: TrainSettings, cohort: Cohort) -> Parts:
    """What will be trained: networks, or slices first and what they are inflated to.

    Raises:
        SettingsError, LiftError: the settings name something that cannot be built or lifted.
    """
    if trains_slices_first(settings.model):
        return plan_inflation(settings, cohort)
    networks = build_spread(settings, lambda: build_networks(settings.model, cohort))
    log.info("Model %s: %s parameters", settings.model.name, f"{networks.trained.count_params():,}")
    return networks


def trainings_of(parts: Parts, settings: TrainSettings) -> list[tuple[TrainSettings, Callable[[], Networks]]]:
    """The trainings of the parts in their order: settings, and what gives the networks for a look ahead.

    What a slice model is inflated to is a throw-away there: it has the weights of an untrained network.
    """
    if isinstance(parts, Inflation):
        return [(parts.settings, lambda: parts.slices), (settings, parts.inflate)]
    return [(settings, lambda: parts)]


def train_parts(
    run: RunFolder,
    settings: TrainSettings,
    *,
    cohort: Cohort,
    parts: Parts,
    precision: Precision,
) -> None:
    """Train what is not trained yet, into the run's folder."""
    with told_in_sentences(training_need(settings.trainer), way_on(run.path)):
        _describe(run, settings, cohort=cohort, precision=precision)
        if isinstance(parts, Inflation):
            parts = _train_slices(run, parts, cohort=cohort, precision=precision)
        _train_into(run, settings, cohort=cohort, networks=parts, is_last=True)


def _train_slices(run: RunFolder, inflation: Inflation, *, cohort: Cohort, precision: Precision) -> Networks:
    """Train the slice model unless that is done; the network that it is inflated to."""
    import keras

    first = slice_folder(run)
    if first.is_finished or borrow_slices(first, inflation.settings):
        inflation.take_weights(first)
    else:
        _describe(first, inflation.settings, cohort=cohort, precision=precision)
        _train_into(first, inflation.settings, cohort=cohort, networks=inflation.slices)
    keras.utils.set_random_seed(inflation.settings.seed)  # the same draws, whatever came before
    return inflation.inflate()


def _describe(run: RunFolder, settings: TrainSettings, *, cohort: Cohort, precision: Precision) -> None:
    """Write down what is trained, on whom and on what, where that has not been done."""
    log.info("Precision %s: %s", precision.policy, precision.reason)
    if run.splits.exists() or is_follower(settings):
        return
    describe_run(run, settings, cohort=cohort, precision=precision)


def _train_into(
    run: RunFolder, settings: TrainSettings, *, cohort: Cohort, networks: Networks, is_last: bool = False
) -> None:
    from voxlift.app.training.network import train_network

    cost = train_network(run, settings, cohort=cohort, networks=networks)

    def finish() -> None:
        _finish(run, settings, cohort=cohort, networks=networks, cost=cost)

    do_once(finish, settings, name=f"{settings.model.name} is scored", is_last=is_last)


def _finish(
    run: RunFolder,
    settings: TrainSettings,
    *,
    cohort: Cohort,
    networks: Networks,
    cost: dict[str, float],
) -> None:
    """Save, score and report a network that is trained."""
    from voxlift.models.folding import fold_normalisation

    save_trained(networks.volume, run.model)
    scorer = fold_normalisation(networks.volume)
    metrics = evaluate_run(scorer, cohort, batch_size=settings.trainer.batch_size, run=run)
    scoring = scoring_cost(networks.volume, scorer, cohort, batch_size=settings.trainer.batch_size)
    metrics["cost"] = {**cost, **scoring, **cost_of_slices(run)}
    end_run(run, settings, metrics, cohort=cohort, network=networks.volume)


def train(settings: TrainSettings) -> int:
    """Train, score and report as the settings say.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError, ManifestError, VolumeError, LiftError: the input is at fault; no folder is left.
    """
    refuse_used_folder(settings.run_dir)
    if settings.run_dir is None:
        refuse_unwritable(Path(settings.runs_folder) / "run", asked=f"runs_folder={settings.runs_folder}")
    if settings.model.kind == "table":
        return train_on_table(settings)
    check_name(settings.model)
    with logging_to_file() as attach:
        with in_turn(settings):
            cohort = gather_cohort(settings)
        agree_on_subjects(settings, cohort)
        settings.data.classes = list(cohort.classes)  # saved, so that later commands index the same way
        precision = _prepare_process(settings, settings.precision)
        refuse_seen_subjects(settings.model, cohort)
        prepare_devices(settings)
        parts = build_parts(settings, cohort)
        from voxlift.app.training.preflight.check import look_ahead

        found = look_ahead(trainings_of(parts, settings), cohort)
        name = f"{settings.data.name}-{settings.model.name}-seed{settings.seed}"
        run = create_run(settings.run_dir, runs_folder=settings.runs_folder, name=name)
        announce_run(settings, run.path)
        attach(run.log)
        if found:
            write_json(run.preflight, {"trainings": [finding.as_json() for finding in found]})
        train_parts(run, settings, cohort=cohort, parts=parts, precision=precision)
    return 0


def resume(run: RunFolder, settings: TrainSettings) -> int:
    """Go on with a training that was killed, to the end that it would have had; or for more epochs.

    Args:
        run: its folder.
        settings: its own, see `reopen_settings`.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError, VolumeError, UserError: what stands in the way.
    """
    if is_complete(run, settings):
        say("This run is finished; a higher trainer.epochs would train it further.")
        say(f"Results in {run.path}")
        return 0
    if settings.model.kind == "table":
        return train_on_table(settings, run)
    with logging_to_file() as attach:
        attach(run.log)
        done = len(read_rows(run.history)) if run.history.exists() else 0
        log.info("Going on with %s, after %d of %d epochs", run.path, done, settings.trainer.epochs)
        begin_again(run, settings)
        announce_run(settings, run.path)
        with in_turn(settings):
            cohort = reopen_subjects(run, settings)
        agree_on_subjects(settings, cohort)
        precision = _prepare_process(settings, saved_precision(run, settings))
        prepare_devices(settings)
        parts = build_parts(settings, cohort)
        train_parts(run, settings, cohort=cohort, parts=parts, precision=precision)
    return 0


def _prepare_process(settings: TrainSettings, precision: str) -> Precision:
    """Set up this process to compute in a precision (`auto` or a policy), the same on all hosts."""
    chosen = prepare_runtime(
        precision=precision,
        device=settings.device,
        deterministic=settings.deterministic,
        seed=settings.seed,
    )
    agree_on_precision(settings, chosen.policy)
    return chosen

"""One training from its settings to a finished run folder, or on from where it was killed."""

from __future__ import annotations

import logging
from pathlib import Path

from voxlift.app.course.covariates import train_on_table
from voxlift.app.course.parts import build_parts, train_parts, trainings_of
from voxlift.app.course.resuming import begin_again, is_complete, saved_precision
from voxlift.app.files import read_rows, write_json
from voxlift.app.networks.pretrained import check_name, refuse_seen_subjects
from voxlift.app.places import refuse_unwritable
from voxlift.app.process.logs import logging_to_file
from voxlift.app.process.precision import Precision
from voxlift.app.process.runtime import prepare_runtime
from voxlift.app.progress import say
from voxlift.app.runs.cohort import reopen_subjects
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.opening import create_run, refuse_used_folder
from voxlift.app.settings import TrainSettings
from voxlift.app.strategy.hosts.agreement import agree_on_precision, agree_on_subjects
from voxlift.app.strategy.hosts.meeting import announce_run, in_turn
from voxlift.app.strategy.spreading import prepare_devices
from voxlift.app.subjects.cohort import gather_cohort

log = logging.getLogger("voxlift")


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
        from voxlift.app.preflight.look import (
            look_ahead,  # it brings Keras in, for which the process is set up now
        )

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

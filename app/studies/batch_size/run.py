"""Run the study of the batch size: measure steps, train every point, search the largest batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from voxlift.app.comparison.check import check_trainings
from voxlift.app.comparison.compose import compose_training
from voxlift.app.comparison.trial import Trial
from voxlift.app.config import TrainSettings
from voxlift.app.config.commands import StudySettings
from voxlift.app.config.overrides import refuse_unread_columns
from voxlift.app.progress import print_line
from voxlift.app.studies.batch_size.memory import search_largest_batch
from voxlift.app.studies.batch_size.points import (
    AccumulatedBatch,
    Answer,
    BatchFindings,
    build_points,
    count_microbatches,
)
from voxlift.app.studies.batch_size.report import report_batch_size
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.measurement_process import measure
from voxlift.app.studies.settings import refuse_joined
from voxlift.app.studies.trainings import (
    plan_trainings,
    read_study_overrides,
    run_trainings,
    select_finished,
)


def study_batch_size(settings: StudySettings, folder: StudyFolder) -> None:
    """Measure steps, memory and gradient noise; train every point; write table, figures and page.

    Raises:
        SettingsError: An override is refused, or the training of the reference cannot start.
    """
    refuse_joined([settings.model])
    refuse_unread_columns(settings.model)
    study, reference = settings.study, settings.trainer.batch_size
    shared = read_study_overrides(refused={"seed": "use study.seeds=[...]."})
    sizes = sorted({*study.batch_sizes, reference})
    trainings = {size: _compose(settings, shared, size) for size in sizes}
    check_trainings({settings.model.name: trainings[reference]})
    steps = _measure_steps(trainings, settings, folder)
    accumulated = _measure_accumulation(settings, max(steps), shared, folder)
    points = build_points(
        settings,
        list(steps),
        steps_per_epoch={size: int(one["steps_per_epoch"]) for size, one in steps.items()},
    )
    overrides = {point.label: point.overrides for point in points}
    trials = plan_trainings(overrides, study.seeds, shared=shared, folder=folder)
    outcomes = run_trainings(trials, folder, runs_folder=settings.runs_folder, cluster=settings.cluster)
    print_line("Searching the largest batch that fits into memory")
    memory = search_largest_batch(
        trainings[reference],
        steps,
        most=max(int(study.largest), *steps),
        memory_gb=study.memory_gb,
        seconds=study.fit_seconds,
        folder=folder,
    )
    noise = _measure_noise(trainings[reference], select_finished(outcomes), settings, folder)
    report_batch_size(settings, folder, BatchFindings(points, outcomes, steps, accumulated, memory, noise))


def _measure_steps(
    trainings: Mapping[int, TrainSettings], settings: StudySettings, folder: StudyFolder
) -> dict[int, Answer]:
    """Measure real steps of every batch size, each in a process of its own, which gives each its own peak.

    Sizes above the number of training volumes are left out: all of them would take the same steps.
    """
    print_line("Measuring steps")
    request = {"kind": "steps", "steps": settings.study.timed_steps}
    found: dict[int, Answer] = {}
    for size, training in trainings.items():
        one = measure(f"steps-{size}", training, request, folder=folder)
        if size > one["train_volumes"] and size != settings.trainer.batch_size:
            print_line(f"  batch of {size}: left out, there are {one['train_volumes']} training volumes")
            continue
        found[size] = one
        print_line(f"  batch of {size}: {one['volumes_per_second']:.1f} volumes/s")
    return found


def _measure_accumulation(
    settings: StudySettings, size: int, shared: Sequence[str], folder: StudyFolder
) -> AccumulatedBatch | None:
    """Measure real steps of one batch size whose gradients are accumulated from microbatches."""
    count = count_microbatches(size, settings.study.accumulate)
    if count == 1 or settings.trainer.accumulate > 1:
        return None
    training = _compose(settings, [*shared, f"trainer.accumulate={count}"], size // count)
    request = {"kind": "steps", "steps": settings.study.timed_steps}
    answer = measure(f"steps-{size}-in-{count}", training, request, folder=folder)
    accumulated = AccumulatedBatch(size, count, answer)
    print_line(f"  {accumulated.name}: {answer['volumes_per_second']:.1f} volumes/s")
    return accumulated


def _measure_noise(
    training: TrainSettings, trials: Sequence[Trial], settings: StudySettings, folder: StudyFolder
) -> Answer:
    """Measure the gradient noise scale of the reference, before and after its training."""
    label, seed = f"batch{settings.trainer.batch_size}", settings.study.seeds[0]
    runs = [trial.run for trial in trials if trial.model == label and trial.seed == seed]
    if not runs:
        return {}
    print_line("Measuring the gradient noise scale")
    request = {"kind": "noise", "batches": settings.study.noise_batches, "run": str(runs[0].path)}
    return measure("noise", training, request, folder=folder)


def _compose(settings: StudySettings, shared: Sequence[str], size: int) -> TrainSettings:
    """Return the settings of a training with a batch size, for measurements."""
    study = settings.study
    own = [f"trainer.batch_size={size}", f"trainer.epochs={study.epochs}", f"seed={study.seeds[0]}"]
    return compose_training([*shared, *own])

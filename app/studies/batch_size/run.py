"""The study of the batch size, from measurements over trainings to the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from voxlift.app.comparison.compose import compose_training
from voxlift.app.comparison.trial import Trial
from voxlift.app.config import TrainSettings
from voxlift.app.config.commands import StudySettings
from voxlift.app.progress import say
from voxlift.app.studies.batch_size.memory import MemoryFound, find_largest
from voxlift.app.studies.batch_size.points import Answer, BatchFindings, Portioned, cut_batch, lay_out_points
from voxlift.app.studies.batch_size.report import report_batch_size
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.measuring import measure
from voxlift.app.studies.trainings import finished_trials, plan_trainings, run_trainings, study_overrides


def study_batch_size(settings: StudySettings, folder: StudyFolder) -> None:
    """Measure steps, memory and noise; train every point; write table, figures and page."""
    shared = study_overrides(refused={"seed": "say study.seeds=[...]."})
    steps = _measure_steps(settings, shared, folder)
    portioned = _measure_portions(settings, max(steps), shared, folder)
    points = lay_out_points(
        settings,
        list(steps),
        steps_per_epoch={size: int(one["steps_per_epoch"]) for size, one in steps.items()},
    )
    overrides = {point.label: point.overrides for point in points}
    trials = plan_trainings(overrides, settings.study.seeds, shared=shared, folder=folder)
    outcomes = run_trainings(trials, folder, runs_folder=settings.runs_folder)
    memory = _find_largest(settings, steps, shared, folder)
    noise = _measure_noise(settings, finished_trials(outcomes), shared, folder)
    report_batch_size(settings, folder, BatchFindings(points, outcomes, steps, portioned, memory, noise))


def _measure_steps(settings: StudySettings, shared: Sequence[str], folder: StudyFolder) -> dict[int, Answer]:
    """Real steps of every batch size, in a process each: so each peak is its own.

    Sizes beyond the training volumes are left out: their steps would be those of all volumes at once.
    """
    say("Measuring steps")
    reference = settings.trainer.batch_size
    found: dict[int, Answer] = {}
    for size in sorted({*settings.study.batch_sizes, reference}):
        request = {"kind": "steps", "steps": settings.study.timed_steps}
        one = measure(f"steps-{size}", _training(settings, shared, size), request, folder=folder)
        if size > one["train_volumes"] and size != reference:
            say(f"  batch of {size}: left out, there are {one['train_volumes']} training volumes")
            continue
        found[size] = one
        say(f"  batch of {size}: {one['volumes_per_second']:.1f} volumes/s")
    return found


def _measure_portions(
    settings: StudySettings, size: int, shared: Sequence[str], folder: StudyFolder
) -> Portioned | None:
    """Real steps of one batch size whose gradients are accumulated from smaller batches."""
    portions = cut_batch(size, settings.study.accumulate)
    if portions == 1 or settings.trainer.accumulate > 1:
        return None
    training = _training(settings, shared, size // portions, accumulate=portions)
    request = {"kind": "steps", "steps": settings.study.timed_steps}
    found = Portioned(
        size, portions, measure(f"steps-{size}-in-{portions}", training, request, folder=folder)
    )
    say(f"  {found.name}: {found.answer['volumes_per_second']:.1f} volumes/s")
    return found


def _find_largest(
    settings: StudySettings, steps: Mapping[int, Answer], shared: Sequence[str], folder: StudyFolder
) -> MemoryFound:
    say("Searching the largest batch that fits")
    study = settings.study
    return find_largest(
        _training(settings, shared, settings.trainer.batch_size),
        steps,
        most=max(int(study.largest), *steps),
        memory_gb=study.memory_gb,
        seconds=study.fit_seconds,
        folder=folder,
    )


def _measure_noise(
    settings: StudySettings, trials: Sequence[Trial], shared: Sequence[str], folder: StudyFolder
) -> Answer:
    """The noise scale with the reference's batches, before training and with its first seed's weights."""
    size, first = settings.trainer.batch_size, settings.study.seeds[0]
    runs = [trial.run for trial in trials if trial.model == f"batch{size}" and trial.seed == first]
    if not runs:
        return {}
    say("Measuring the gradient noise scale")
    request = {"kind": "noise", "batches": settings.study.noise_batches, "run": str(runs[0].path)}
    return measure("noise", _training(settings, shared, size), request, folder=folder)


def _training(
    settings: StudySettings, shared: Sequence[str], size: int, *, accumulate: int | None = None
) -> TrainSettings:
    study = settings.study
    own = [f"trainer.batch_size={size}", f"trainer.epochs={study.epochs}", f"seed={study.seeds[0]}"]
    portions = [] if accumulate is None else [f"trainer.accumulate={accumulate}"]
    return compose_training([*shared, *own, *portions])

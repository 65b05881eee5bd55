"""Run the study of the learning curve: two models on nested fractions of the training subjects."""

from __future__ import annotations

from voxlift.app.comparison.check import check_trainings
from voxlift.app.comparison.compose import build_model_overrides, compose_training
from voxlift.app.config.commands import StudySettings
from voxlift.app.config.overrides import remove_keys
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.learning_curve.points import CurveFindings, build_points
from voxlift.app.studies.learning_curve.report import report_learning_curve
from voxlift.app.studies.settings import refuse_without_network
from voxlift.app.studies.trainings import (
    list_site_folds,
    plan_trainings,
    read_study_overrides,
    run_trainings,
)

REFUSED = {
    "model": "use study.models=[...].",
    "seed": "use study.seeds=[...].",
    "splits.train_fraction": "use study.fractions=[...].",
}


def study_learning_curve(settings: StudySettings, folder: StudyFolder) -> None:
    """Train both models on every fraction with every seed; write table, figures and page.

    With `splits.leave_out` each of these trainings is repeated with each site left out.

    Raises:
        SettingsError: An override is refused, or a training cannot start.
    """
    study = settings.study
    shared = [
        *remove_keys(read_study_overrides(refused=REFUSED), {"experiment"}),
        f"trainer.epochs={study.epochs}",
    ]
    first = f"seed={study.seeds[0]}"
    trainings = {
        name: compose_training([*shared, *build_model_overrides(name), first]) for name in study.models
    }
    refuse_without_network(training.model for training in trainings.values())
    check_trainings(trainings)
    folds = list_site_folds(trainings[study.models[0]])
    points = build_points(trainings, study.fractions, equal=study.equal, folds=folds)
    overrides = {point.label: point.overrides for point in points}
    own = remove_keys(shared, {"trainer.epochs", "trainer.patience", "optimizer.warmup_epochs"})
    trials = plan_trainings(overrides, study.seeds, shared=own, folder=folder, folds=folds)
    outcomes = run_trainings(trials, folder, runs_folder=settings.runs_folder, cluster=settings.cluster)
    base = trainings[study.models[0]]
    report_learning_curve(settings, folder, CurveFindings(points, outcomes, base))

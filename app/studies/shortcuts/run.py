"""Run the study of shortcuts: train the model with every seed, then fit and score the contestants."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from voxlift.app.comparison.compose import compose_training
from voxlift.app.comparison.trial import Trial
from voxlift.app.config import SettingsError
from voxlift.app.config.commands import StudySettings
from voxlift.app.config.overrides import remove_keys
from voxlift.app.data.cohort import Cohort
from voxlift.app.evaluation.table_one import Value
from voxlift.app.progress import progress_bar
from voxlift.app.runs.cohort import reopen_cohort
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.results import read_scores
from voxlift.app.runs.subjects import find_usual_columns, read_subjects
from voxlift.app.runtime.setup import import_quietly, import_user_modules
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.shortcuts.contestants import (
    FITTED,
    RESCORED,
    Contestant,
    Facts,
    SeedRun,
    fit_contestant,
    fit_shuffled_labels,
    fit_site,
    rescore_contestant,
)
from voxlift.app.studies.shortcuts.features import describe_cohort
from voxlift.app.studies.shortcuts.report import ShortcutFindings, report_shortcuts
from voxlift.app.studies.trainings import (
    describe_failures,
    list_site_folds,
    plan_trainings,
    read_study_overrides,
    run_trainings,
    select_finished,
)

REFUSED = {"seed": "use study.seeds=[...]."}
log = logging.getLogger("voxlift")


def study_shortcuts(settings: StudySettings, folder: StudyFolder) -> None:
    """Train the model with every seed, score all contestants, and write table, figure and page.

    With `splits.leave_out` it is trained with each site left out, too.

    Raises:
        SettingsError: An override is refused, a training cannot start, or there are no test subjects.
    """
    study = settings.study
    shared = [
        *remove_keys(read_study_overrides(refused=REFUSED), {"trainer.epochs"}),
        f"trainer.epochs={study.epochs}",
    ]
    name = settings.model.name
    folds = list_site_folds(settings)
    trials = plan_trainings({name: []}, study.seeds, shared=shared, folder=folder, folds=folds)
    outcomes = run_trainings(trials, folder, runs_folder=settings.runs_folder, cluster=settings.cluster)
    if settings.model.has_network:
        import_quietly()
        import_user_modules(settings.custom)
    runs = [open_trial(trial) for trial in select_finished(outcomes)]
    facts = gather_facts([one.cohort for one in runs])
    column, sites = find_sites(runs, study.site_column)
    contestants = score_contestants(settings, folder, facts=facts, runs=runs, sites=sites)
    found = ShortcutFindings(
        model=name,
        runs=runs,
        contestants=contestants,
        site_column=column,
        sites=sites,
        failures=describe_failures(outcomes),
        base=compose_training([*shared, f"seed={study.seeds[0]}"]),
        trials=select_finished(outcomes),
    )
    report_shortcuts(settings, folder, found)


def open_trial(trial: Trial) -> SeedRun:
    """Return a finished training with its subjects and test scores.

    Raises:
        SettingsError: It has no test subjects.
    """
    settings = load_settings(trial.run)
    cohort = reopen_cohort(trial.run, settings)
    if "test" not in cohort.present:
        raise SettingsError(
            "study=shortcuts: expected test subjects; use splits.test=0.2, or splits.folds=5."
        )
    return SeedRun(trial.seed, trial.run, settings, cohort, read_scores(trial.run, split="test"))


def gather_facts(cohorts: Sequence[Cohort]) -> Facts:
    """Return the facts of every file and prepared volume, each read once."""
    items = {record.item for cohort in cohorts for record in cohort.records}
    with progress_bar("Describing files and volumes", len(items)) as advance:
        return Facts(*describe_cohort(cohorts, advance=advance))


def find_sites(runs: Sequence[SeedRun], wanted: str) -> tuple[str, dict[str, str]]:
    """Return the column of sites or scanners, and the known site of each record by its item.

    Args:
        runs: The finished trainings.
        wanted: `study.site_column`.

    Raises:
        SettingsError: There is no such column.
    """
    every = [(one, read_subjects(one.run, one.settings)) for one in runs]
    columns = every[0][1]
    usual = find_usual_columns(columns.names, ["site"])
    name = wanted if wanted not in ("auto", "none") else "".join(usual[:1] if wanted == "auto" else [])
    if not name:
        return "", {}
    sites: dict[str, str] = {}
    for one, columns in every:
        items = [record.item for record in one.cohort.records]
        values = columns.read(name, items, setting="study.site_column")
        sites |= {item: format_site(value) for item, value in zip(items, values, strict=True)}
    return name, {item: site for item, site in sites.items() if site}


def format_site(value: Value) -> str:
    """Return the name of a site that may be a number; empty where it is missing."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:g}"
    return value


def score_contestants(
    settings: StudySettings,
    folder: StudyFolder,
    *,
    facts: Facts,
    runs: Sequence[SeedRun],
    sites: Mapping[str, str],
) -> list[Contestant]:
    """Return the chosen contestants, scored on the test subjects of every seed."""
    study, found = settings.study, []
    level = log.level
    log.setLevel(logging.WARNING)  # a line for each strength tried would hide the study's own
    try:
        with progress_bar("Contestants", len(study.contestants)) as advance:
            for name in study.contestants:
                if name in FITTED:
                    found.append(fit_contestant(name, facts, runs))
                elif name in RESCORED:
                    found.append(rescore_contestant(name, runs, folder.path))
                elif name == "site":
                    reason = "the table has no column of sites or scanners; name one with study.site_column"
                    found.append(fit_site(facts, runs, sites, reason=reason))
                else:
                    found.append(fit_shuffled_labels(facts, runs, permutations=study.permutations))
                advance()
    finally:
        log.setLevel(level)
    return found

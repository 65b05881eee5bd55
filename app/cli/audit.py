"""`voxlift-audit`: read a whole data set and report all that is wrong with it at once."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from voxlift.app.cli.command import run_command
from voxlift.app.config import AuditSettings, TrainSettings, find_audit_problems
from voxlift.app.config.overrides import to_settings
from voxlift.app.errors import refuse_problems
from voxlift.app.progress import print_line
from voxlift.app.runtime.cluster import find_cluster_problems, format_job_script
from voxlift.app.runtime.exit_status import DONE, FOUND

if TYPE_CHECKING:
    from voxlift.app.report.findings import DatasetAudit
    from voxlift.app.training.preflight.budgets import BudgetCost

MODELS = ("slice2d", "volume3d")  # whose time and memory by grid are measured


def main() -> None:
    """Run the console script."""
    run_command("audit", read=read_settings, job=audit, is_supervised=True)


def read_settings(cfg: DictConfig) -> AuditSettings:
    """Return the checked settings of a composed configuration.

    Raises:
        SettingsError: All problems at once.
    """
    settings = to_settings(cfg, AuditSettings)
    refuse_problems([*find_audit_problems(settings), *find_cluster_problems(settings.cluster)])
    return settings


def audit(settings: AuditSettings) -> int:
    """Audit the data set, print the findings, and write `audit.json`, `audit.csv` and `audit.html`.

    Returns:
        The exit status: 1 where a finding would spoil training, else 0.

    Raises:
        SettingsError, ManifestError: The folder holds other files, or the table cannot be read at all.
    """
    if settings.cluster.dry_run:
        print_line(format_job_script(settings.cluster))
        return DONE
    from voxlift.app.report.dataset_audit import audit_dataset, audit_folder, write_audit, write_measures
    from voxlift.app.report.terminal import print_audit
    from voxlift.app.runtime.shards import open_mapper
    from voxlift.app.training.preflight.budgets import describe_costs

    folder = audit_folder(settings)
    with open_mapper(settings.cluster, unit="files", workers=settings.workers) as mapper:
        found = audit_dataset(settings, mapper)
        costs = _measure_grids(found)
        found = replace(found, costs=tuple(asdict(one) for one in costs))
        print_audit(found)
        for line in describe_costs(costs):
            print_line(f"  {line}")
        write_audit(found, folder)
        if settings.measure:
            print_line(f"Measures for model=covariates in {write_measures(found, settings, folder, mapper)}")
    print_line(f"Results in {folder}")
    return FOUND if found.audit.spoils else DONE


def _measure_grids(found: DatasetAudit) -> list[BudgetCost]:
    """Return memory and time of the two usual models on the grids that were suggested."""
    if not found.grids or found.audit.spoils:
        return []
    from hydra import compose

    from voxlift.app.training.preflight.budgets import measure_budgets

    trainings = {
        name: to_settings(compose("train", overrides=[f"model={name}"]), TrainSettings) for name in MODELS
    }
    records = found.manifest.records
    grids = {budget: own.shape for budget, own in found.grids.items()}
    volumes = sum(record.split in {None, "train"} for record in records)
    return measure_budgets(trainings, grids, volumes=volumes, channels=len(records[0].images))


if __name__ == "__main__":
    main()

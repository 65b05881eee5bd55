"""`voxlift-audit`: read a whole data set and report all that is wrong with it at once."""

from __future__ import annotations

from omegaconf import DictConfig

from voxlift.app.cli.command import run_command
from voxlift.app.config import AuditSettings, find_audit_problems
from voxlift.app.config.overrides import to_settings
from voxlift.app.errors import refuse_problems
from voxlift.app.progress import print_line
from voxlift.app.runtime.exit_status import DONE, FOUND


def main() -> None:
    """Run the console script."""
    run_command("audit", read=read_settings, job=audit, is_supervised=True)


def read_settings(cfg: DictConfig) -> AuditSettings:
    """Return the checked settings of a composed configuration.

    Raises:
        SettingsError: All problems at once.
    """
    settings = to_settings(cfg, AuditSettings)
    refuse_problems(find_audit_problems(settings))
    return settings


def audit(settings: AuditSettings) -> int:
    """Audit the data set, print the findings, and write `audit.json`, `audit.csv` and `audit.html`.

    Returns:
        The exit status: 1 where a finding would spoil training, else 0.

    Raises:
        SettingsError, ManifestError: The folder holds other files, or the table cannot be read at all.
    """
    from voxlift.app.report.dataset_audit import audit_dataset, audit_folder, write_audit, write_measures
    from voxlift.app.report.terminal import print_audit

    folder = audit_folder(settings)
    found = audit_dataset(settings)
    print_audit(found)
    write_audit(found, folder)
    if settings.measure:
        print_line(f"Measures for model=covariates in {write_measures(found, settings, folder)}")
    print_line(f"Results in {folder}")
    return FOUND if found.audit.spoils else DONE


if __name__ == "__main__":
    main()

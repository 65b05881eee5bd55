"""`voxlift-audit`: reads a whole data set and says everything that is wrong with it, at once."""

from __future__ import annotations

from voxlift.app.cli.command import open_command, reader
from voxlift.app.config import AuditSettings, audit_problems
from voxlift.app.progress import say
from voxlift.app.runtime.exit_status import DONE, FOUND


def main() -> None:
    """The console script."""
    open_command("audit", read=reader(AuditSettings, audit_problems), job=audit, is_supervised=True)


def audit(settings: AuditSettings) -> int:
    """Audit the data set, print the findings, and write `audit.json`, `audit.csv` and `audit.html`.

    Returns:
        The exit status: 1 where a finding would spoil training, else 0.

    Raises:
        SettingsError, ManifestError: the folder holds other things, or the table cannot be read at all.
    """
    from voxlift.app.report.data_audit import audit_data, audit_folder, write_audit
    from voxlift.app.report.findings import print_audit

    folder = audit_folder(settings)
    found = audit_data(settings)
    print_audit(found)
    write_audit(found, folder)
    say(f"Results in {folder}")
    return FOUND if found.audit.spoils else DONE


if __name__ == "__main__":
    main()

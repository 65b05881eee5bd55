"""A data set and what its audit found: the value that the page and the terminal's table show."""

from __future__ import annotations

from dataclasses import dataclass

from voxlift.data_pipelines.audit import Audit
from voxlift.data_pipelines.manifest import Manifest, Record


@dataclass(frozen=True, eq=False)
class AuditedData:
    """A data set and what its audit found.

    Attributes:
        name: What the data set is called, for headings and folders.
        manifest: The rows that were audited.
        audit: Facts per file, and all findings, those about the table included.
        thumbnails: How many files are to be shown on the page.
    """

    name: str
    manifest: Manifest
    audit: Audit
    thumbnails: int

    @property
    def owners(self) -> list[Record]:
        """The record of each file, in the order of the facts."""
        return [record for record in self.manifest.records for _ in record.images]


def suggested_overrides(audit: Audit) -> list[str]:
    """The suggestions as settings of a training, quoted for a shell; none where no file could be read."""
    suggested = {"spacing": audit.suggested_spacing, "shape": audit.suggested_shape}
    kind = [f"preprocess={audit.suggested_preprocess}"] if audit.suggested_preprocess else []
    return kind + [
        f"'preprocess.{key}=[{','.join(f'{value:g}' for value in values)}]'"
        for key, values in suggested.items()
        if values is not None
    ]

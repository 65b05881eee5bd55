"""The data set before training: every file read, every problem named at once."""

from voxlift.data_pipelines.audit.facts import Facts, hash_voxels, read_facts
from voxlift.data_pipelines.audit.findings import Finding
from voxlift.data_pipelines.audit.run import Audit, audit_manifest, check_readable, facts_rows

__all__ = [
    "Audit",
    "Facts",
    "Finding",
    "audit_manifest",
    "check_readable",
    "facts_rows",
    "hash_voxels",
    "read_facts",
]

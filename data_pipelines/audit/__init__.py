"""Audit a data set before training: read every file and report every problem together."""

from voxlift.data_pipelines.audit.dataset import Audit, audit_manifest, facts_rows
from voxlift.data_pipelines.audit.facts import Facts, read_facts
from voxlift.data_pipelines.audit.findings import Finding

__all__ = ["Audit", "Facts", "Finding", "audit_manifest", "facts_rows", "read_facts"]

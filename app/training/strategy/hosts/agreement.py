"""What all hosts must have in common before they train together: settings, subjects, precision."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from voxlift.app.config import HostsSettings, SettingsError, TrainSettings
from voxlift.app.config.overrides import flatten
from voxlift.app.training.strategy.hosts.rendezvous import own_index, publish, wait_for

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort


# What hosts may have of their own: places on their disks, and what only host 0 writes.
OWN_KEYS = ("hosts", "run_dir", "runs_folder", "cache", "logger", "debug")
OWN_DATA = ("folder", "root", "table", "npz")


def agree_on_settings(given: str | None) -> TrainSettings:
    """The settings of this process, which are those of host 0 in all that concerns the training.

    Args:
        given: as YAML; None takes those of host 0.

    Raises:
        SettingsError: naming the keys that differ.
    """
    if own_index() == 0:
        publish("settings", given)
    first = _read(str(wait_for("settings")))
    own = first if given is None else _read(given)
    differing = differing_keys(own, first)
    if differing:
        raise SettingsError(f"Expected the same settings on all hosts, but {', '.join(differing)}.")
    return replace(own, hosts=HostsSettings())  # which host this is has no place in a run's configuration


def differing_keys(own: TrainSettings, first: TrainSettings) -> list[str]:
    """The keys that must not differ between this host and host 0, and do, with both values."""
    ours, theirs = (flatten(asdict(settings)) for settings in (own, first))
    names = [*ours, *(key for key in theirs if key not in ours)]
    return [
        f"{key} is {ours.get(key)} here and {theirs.get(key)} on host 0"
        for key in names
        if ours.get(key) != theirs.get(key) and not _may_differ(key)
    ]


def agree_on_subjects(settings: TrainSettings, cohort: Cohort) -> None:
    """Pass when this host has found the subjects, labels, splits and shape that host 0 has.

    Raises:
        SettingsError: it has found others.
    """
    rows = [
        [record.subject, cohort.classes[record.label], split]
        for record, split in zip(cohort.records, cohort.splits, strict=True)
    ]
    facts = [rows, cohort.shape, cohort.dtype, cohort.classes]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    found = f"{len(rows)} volumes of shape {'x'.join(map(str, cohort.shape))} ({digest})"
    _agree("subjects", found, settings, expected="Expected the same subjects, labels and files on all hosts")


def agree_on_precision(settings: TrainSettings, policy: str) -> None:
    """Pass when this host computes in the precision that host 0 computes in.

    Raises:
        SettingsError: `precision=auto` chose another one on this host's device.
    """
    _agree(
        "precision", policy, settings, expected="Expected one precision on all hosts: say precision=float32"
    )


def _agree(name: str, value: str, settings: TrainSettings, *, expected: str) -> None:
    if settings.strategy != "hosts":
        return
    if own_index() == 0:
        publish(name, value)
    first = wait_for(name)
    if first != value:
        raise SettingsError(f"{expected}; host 0 has {first}, host {own_index()} has {value}.")


def _read(text: str) -> TrainSettings:
    schema = OmegaConf.structured(TrainSettings)
    settings: TrainSettings = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.create(text)))  # type: ignore[assignment]
    return settings


def _may_differ(key: str) -> bool:
    group, _, rest = key.partition(".")
    return group in OWN_KEYS or (group == "data" and rest in OWN_DATA)

"""The choices that `--help` names: a command's own groups; Hydra would list every folder under `conf`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf


def register_choices() -> None:
    """Let configurations say `${own_choices:${hydra.runtime.choices}}`."""
    OmegaConf.register_new_resolver("own_choices", list_choices, replace=True)


def list_choices(chosen: Mapping[str, str | None]) -> str:
    """The options of every group that was chosen from, under a heading; empty where a command has no group.

    Args:
        chosen: Groups with their options, Hydra's own among them, which are left out.
    """
    loader = GlobalHydra.instance().config_loader()
    groups = sorted(group for group in map(str, chosen) if not group.startswith("hydra/"))
    lines = [f"{group}: {', '.join(_options(loader.get_group_options(group)))}" for group in groups]
    return "\n".join(["== Choices (group=option) ==", *lines, "", ""]) if lines else ""


def _options(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.endswith("_schema"))

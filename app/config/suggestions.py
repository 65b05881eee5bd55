"""What the user may have meant: the nearest of the names that exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

SCHEMA = "_schema.yaml"


def suggest(name: str, known: Iterable[str]) -> str:
    """` Did you mean ...?` with the known name that is nearest; nothing where none is near.

    >>> suggest("epoch", ["epochs", "seed"])
    ' Did you mean epochs?'
    """
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]}?" if matches else ""


def suggest_key(key: str, command: str, arguments: Sequence[str] = ()) -> str:
    """What an unknown key may have been meant for: another option of its group, or the nearest known key.

    Args:
        key: As it was written.
        command: Its keys are known by the schema registered under its name.
        arguments: Of the command line: they say which option of a group was chosen.
    """
    group = key.partition(".")[0]
    options = _option_keys(group) if command == group else {}
    owners = [option for option, keys in options.items() if key in keys]
    if owners:
        return f" It is a key of {' and '.join(f'{group}={option}' for option in owners)}."
    chosen = [text.partition("=")[2] for text in arguments if text.startswith(f"{group}=")]
    wanted = [options[name] for name in chosen[-1:] if name in options] or list(options.values())
    siblings = [known for keys in wanted for known in keys]
    known = known_keys(f"{command}{SCHEMA}")
    return suggest(key, siblings) or _suggest_group(key, known) or suggest(key, known)


def _suggest_group(key: str, known: Sequence[str]) -> str:
    """The keys of groups that a key written without its group may mean.

    >>> _suggest_group("epochs", ["seed", "trainer.epochs"])
    ' Did you mean trainer.epochs?'
    """
    if "." in key:
        return ""
    leaves = [name.rpartition(".")[2] for name in known]
    near = difflib.get_close_matches(key, leaves, n=1, cutoff=0.75)
    homes = [name for name, leaf in zip(known, leaves, strict=True) if leaf in near]
    return f" Did you mean {' or '.join(homes[:3])}?" if homes else ""


def known_keys(schema: str, group: str = "") -> list[str]:
    """Every key of a registered schema, dotted, its group before it; empty where there is no such schema."""
    store = ConfigStore.instance().repo
    found = (store.get(group, {}) if group else store).get(schema)
    return list(_flatten(found.node, f"{group}." if group else "")) if found else []


def _option_keys(group: str) -> Mapping[str, list[str]]:
    """The keys of each option of a group, where the options have schemas of their own."""
    names = ConfigStore.instance().repo.get(group, {})
    return {name.removesuffix(SCHEMA): known_keys(name, group) for name in names if name.endswith(SCHEMA)}


def _flatten(node: DictConfig, prefix: str) -> Iterator[str]:
    for key in map(str, node):
        name = f"{prefix}{key}"
        yield name
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node._get_node(key)):  # noqa: SLF001 - no public way to look without resolving
            yield from _flatten(node[key], f"{name}.")


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

"""Look up the keys and options that exist, for `--help` and to suggest one for a misspelt key."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from voxlift.data_pipelines.errors import closest_name

SCHEMA = "_schema.yaml"
HELP_WIDTH = 100  # columns
SAME_ELSEWHERE = {"output": "run_dir", "run_dir": "output"}  # where results go, by command


def list_known_keys(schema: str, group: str = "") -> list[str]:
    """Return every dotted key of a registered schema; empty where there is no such schema.

    Args:
        schema: Its name, which ends in `SCHEMA`.
        group: Of the configuration that the schema belongs to; its keys then begin with it.
    """
    store = ConfigStore.instance().repo
    found = (store.get(group, {}) if group else store).get(schema)
    return list(_walk(found.node, f"{group}." if group else "")) if found else []


def _walk(node: DictConfig, prefix: str) -> Iterator[str]:
    for key in map(str, node):
        name = f"{prefix}{key}"
        yield name
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node._get_node(key)):  # noqa: SLF001 - no public way to look without resolving
            yield from _walk(node[key], f"{name}.")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean ...?` with the most similar known name, or an empty text.

    >>> suggest("epoch", ["epochs", "seed"])
    ' Did you mean epochs?'
    """
    match = closest_name(name, known)
    return f" Did you mean {match}?" if match else ""


def suggest_key(key: str, command: str, arguments: Sequence[str] = ()) -> str:
    """Return what an unknown key may have been meant for: another option of its group, or a similar key.

    Args:
        key: As the user wrote it.
        command: Name of the command, whose schema holds the known keys.
        arguments: The command line, which names the chosen option of a group.
    """
    group = key.partition(".")[0]
    options = _option_keys(group) if command == group else {}
    owners = [option for option, keys in options.items() if key in keys]
    if owners:
        return f" It is a key of {' and '.join(f'{group}={option}' for option in owners)}."
    chosen = [text.partition("=")[2] for text in arguments if text.startswith(f"{group}=")]
    wanted = [options[name] for name in chosen[-1:] if name in options] or list(options.values())
    siblings = [known for keys in wanted for known in keys]
    known = list_known_keys(f"{command}{SCHEMA}")
    if "." in key:
        return suggest(key, siblings) or suggest(key, [one for one in known if "." in one])
    return _suggest_group(key, known)


def _suggest_group(key: str, known: Sequence[str]) -> str:
    """Return the full keys that a key written without its group may mean.

    >>> _suggest_group("epochs", ["seed", "trainer.epochs"])
    ' Did you mean trainer.epochs?'
    >>> _suggest_group("output", ["seed", "run_dir"])
    ' Did you mean run_dir?'
    """
    if SAME_ELSEWHERE.get(key) in known:
        return f" Did you mean {SAME_ELSEWHERE[key]}?"
    match = closest_name(key, [name.rpartition(".")[2] for name in known])
    full = [name for name in known if name.rpartition(".")[2] == match]
    return f" Did you mean {' or '.join(full[:3])}?" if full else ""


def _option_keys(group: str) -> Mapping[str, list[str]]:
    """Return the keys of each option of a group, where the options have schemas of their own."""
    names = ConfigStore.instance().repo.get(group, {})
    return {
        name.removesuffix(SCHEMA): list_known_keys(name, group) for name in names if name.endswith(SCHEMA)
    }


def register_choices() -> None:
    """Register the resolver of `${own_choices:${hydra.runtime.choices}}`, which the help texts use."""
    OmegaConf.register_new_resolver("own_choices", list_choices, replace=True)


def list_choices(chosen: Mapping[str, str | None]) -> str:
    """Return the options of every group of a command under a heading; empty for a command without groups.

    Args:
        chosen: Groups with their chosen options. Hydra's own groups are left out.
    """
    loader = GlobalHydra.instance().config_loader()
    lines = []
    for group in sorted(group for group in map(str, chosen) if not group.startswith("hydra/")):
        names = sorted(name for name in loader.get_group_options(group) if not name.endswith("_schema"))
        lines += textwrap.wrap(f"{group}: {', '.join(names)}", HELP_WIDTH, subsequent_indent="  ")
    return "\n".join(["== Choices (group=option) ==", *lines, "", ""]) if lines else ""

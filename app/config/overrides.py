r"""Read, write and compare settings in the form that the command line gives them; text stays as it was typed.

Hydra reads `true`, `1.10` and `null` as values; OmegaConf takes `${AD}` for an interpolation and `???` for a
missing value; a class may have any of these names. Text that OmegaConf would take for something else gets a
backslash before it (`\${AD}`, `\???`), which is removed when settings are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, TypeVar

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_omega_conf_dumper

from voxlift.app.config.commands import TrainSettings
from voxlift.app.config.schema import NOT_DECIDED, DataSettings, ModelSettings, PreprocessSettings
from voxlift.app.errors import SettingsError
from voxlift.app.tasks.base import TASK_NAMES, task_of
from voxlift.data_pipelines.augment import Augment

Settings = TypeVar("Settings")

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
HYDRA_WORDS = ("true", "false", "null", "inf", "nan")  # no text, unless quoted
READ_BY: dict[str, Callable[[ModelSettings], bool]] = {  # which models read a key
    "model.columns": lambda model: model.reads_columns,
    "data.embeddings": lambda model: model.kind == "embedding",
}
# They change no result.
NEUTRAL_KEYS = (
    "run_dir",
    "runs_folder",
    "debug",
    "cache",
    "logger",
    "evaluation",
    "report",
    "preprocess.budget",  # its decision is saved as plain settings
)
# conf/preprocess/default.yaml, and ct.yaml
DEFAULT_PREPROCESS = PreprocessSettings(
    name="default",
    spacing=[2.0, 2.0, 2.0],
    shape=[32, 32, 32],
    window_hu=[-1000.0, 1000.0],
    foreground_threshold=-500.0,
)
CLASS_KEYS = ("data.classes", "explain_class")  # nothing but text, whatever it looks like
COLUMN_KEYS = (  # text, or an interpolation
    "data.image_column",
    "data.image_columns",
    "data.label_column",
    "data.label_columns",
    "data.subject_column",
    "data.split_column",
    "data.mask_column",
    "model.columns",
    "image_columns",  # of voxlift-predict
    "subject_column",
    "mask_column",
)
LIST_KEYS = ("data.classes", "data.image_columns", "data.label_columns", "model.columns", "image_columns")
_INTERPOLATION = re.compile(r"(\\*)\$\{")
_MISSING = re.compile(r"\\*\?\?\?")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_YAML_LINE_ENDS = ("\x85", "\u2028", "\u2029")  # written as they are, YAML reads them as line ends


def to_settings(cfg: DictConfig, schema: type[Settings]) -> Settings:
    """Return a composed configuration as a value of its schema, unchecked.

    Raises:
        TypeError: The configuration was composed from another schema, which is an error of ours.
    """
    settings = restore_settings(OmegaConf.to_object(cfg))
    if not isinstance(settings, schema):
        raise TypeError(
            f"expected a configuration with the schema of {schema.__name__}, got {type(settings).__name__}"
        )
    return resolve_auto(_name_preprocess(settings))


def _name_preprocess(settings: Settings) -> Settings:
    """Return settings with `auto` or `ct` where no preprocessing was chosen."""
    data, preprocess = getattr(settings, "data", None), getattr(settings, "preprocess", None)
    if not isinstance(preprocess, PreprocessSettings) or preprocess.name != "default":
        return settings
    kept = {key: getattr(preprocess, key) for key in NOT_DECIDED}
    is_untouched = preprocess == replace(DEFAULT_PREPROCESS, **kept)
    if isinstance(data, DataSettings) and data.name == "manifest" and is_untouched:
        chosen = PreprocessSettings(name="auto", **kept)
    else:
        chosen = replace(preprocess, name="ct")
    return replace(settings, preprocess=chosen)  # type: ignore[type-var]


def resolve_auto(settings: Settings) -> Settings:
    """Return settings with the task's own loss and monitor in place of `auto`, as they are saved."""
    if not isinstance(settings, TrainSettings) or settings.task.name not in TASK_NAMES:
        return settings
    task, trainer = task_of(settings), settings.trainer
    chosen = replace(
        trainer, loss=task.choose_loss(trainer.loss), monitor=task.choose_monitor(trainer.monitor)
    )
    return replace(settings, trainer=chosen)


def list_given_overrides() -> list[str]:
    """Return the overrides that the user set on the command line."""
    # To read them resolves interpolations, and so unprotects names that look like one.
    return [quote_argument(str(override)) for override in HydraConfig.get().overrides.task]


def list_given_keys() -> list[str]:
    """Return the keys that the user set on the command line."""
    return [key_of(override) for override in list_given_overrides()]


def refuse_option_lists() -> None:
    """Pass unless several options of a group were given as a list, which Hydra would merge into one.

    Experiments are made to be merged.

    Raises:
        SettingsError: With the forms for several trainings.
    """
    options_of = GlobalHydra.instance().config_loader().get_group_options
    for override in list_given_overrides():
        key, _, value = override.partition("=")
        if value.startswith("[") and key != "experiment" and "." not in key and options_of(key):
            options = value.strip("[]")
            several = f"voxlift-compare 'models={value}' or " if key == "model" else ""
            raise SettingsError(
                f"{override}: expected one option. For several trainings use {several}-m {key}={options}."
            )


def refuse_unread_columns(model: ModelSettings) -> None:
    """Pass unless the user set `model.columns` for a model that reads no columns.

    An experiment may set it for the models of a comparison that read it.

    Raises:
        SettingsError: With the model that reads it.
    """
    if "model.columns" not in list_given_keys() or not model.columns or model.reads_columns:
        return
    preset = {"slice": "slice2d_columns", "volume": "volume3d_columns"}.get(model.kind)
    joined = f"model={preset} (or add model.join_columns=true), or " if preset else ""
    raise SettingsError(
        f"{format_override('model.columns', model.columns)}: model={model.name} reads no columns. "
        f"Use {joined}model=covariates for the table alone."
    )


def key_of(override: str) -> str:
    """Return the dotted key that an override sets, adds or removes.

    >>> key_of("++model.filters=[8,16]"), key_of("~logger")
    ('model.filters', 'logger')
    """
    return override.lstrip("+~").partition("=")[0]


def select_shared_overrides(who: str, *, refused: Mapping[str, str], own: Collection[str]) -> list[str]:
    """Return the user's overrides that every training gets; of a repeated key the last, as in Hydra.

    Args:
        who: Sets the refused keys itself, for the message: "a comparison".
        refused: Keys that the user cannot set, each with what to do instead.
        own: First parts of the keys of the command itself, which no training has.

    Raises:
        SettingsError: The user set a refused key.
    """
    given, keys = list_given_overrides(), list_given_keys()
    clash = [f"{key}: {who} sets it itself; {refused[key]}" for key in keys if key in refused]
    if clash:
        raise SettingsError("\n".join(clash))
    # An override that removes (~) or adds (+) a key does not replace one that sets it.
    last = {override.partition("=")[0]: place for place, override in enumerate(given)}
    return [given[place] for place in sorted(last.values()) if keys[place].partition(".")[0] not in own]


def remove_keys(overrides: Sequence[str], keys: Collection[str]) -> list[str]:
    """Return the overrides of other keys: Hydra refuses a group that is chosen twice."""
    return [one for one in overrides if key_of(one) not in keys]


def format_override(key: str, value: object) -> str:
    """Return a setting in Hydra's grammar.

    >>> format_override("model.depth_policy", {"kernel": 1, "stride": "height"})
    'model.depth_policy={kernel:1,stride:height}'
    """
    return f"{key}={format_value(value)}"


def format_value(value: object) -> str:
    """Return a value in Hydra's grammar, quoted where it needs to be."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{format_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(format_value(item) for item in value) + "]"
    if isinstance(value, str):
        is_plain = PLAIN.fullmatch(value) and value.lower() not in HYDRA_WORDS
        return value if is_plain else quote_override(protect(value))
    return repr(value)


def quote_override(value: str) -> str:
    """Return a text, such as a path, quoted for Hydra's grammar."""
    return quote_text(value)


def get_value(settings: TrainSettings, key: str) -> Any:  # noqa: ANN401 - whatever a setting holds
    """Return the value of a dotted key; of a group its name; None where there is no such key."""
    node: Any = asdict(settings)
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node.get("name") if isinstance(node, Mapping) and "name" in node else node


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one with dotted keys; an empty mapping stays as it is.

    >>> flatten({"trainer": {"epochs": 3}, "augment": {}, "seed": 0})
    {'trainer.epochs': 3, 'augment': {}, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        is_group = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if is_group else {f"{prefix}{key}": value}
    return flat


def list_changes(saved: TrainSettings, wanted: TrainSettings, *, but: Collection[str] = ()) -> list[str]:
    """Return the differences between the settings of two trainings, as `key: wanted instead of saved`.

    A run fills in the classes that the user left open; these are no difference. Nor are keys of `READ_BY` to
    models that do not read them.

    Args:
        saved: Settings of an existing run or study.
        wanted: The settings that are asked for.
        but: Dotted keys that may differ, besides those that change no result.
    """
    had, wants = list_result_settings(saved, but=but), list_result_settings(wanted, but=but)
    if not wanted.data.classes:
        wants["data.classes"] = had.get("data.classes")
    for key, reads in READ_BY.items():
        if not reads(saved.model) and not reads(wanted.model):
            wants[key] = had.get(key)
    return [
        f"{key}: {wants.get(key)} instead of {had.get(key)}"
        for key in dict.fromkeys([*wants, *had])
        if wants.get(key) != had.get(key)
    ]


def list_result_settings(settings: TrainSettings, *, but: Collection[str] = ()) -> dict[str, Any]:
    """Return every setting that may change a result, by its dotted key.

    The augmentation has no schema of its own: a key that it leaves out gets the augmentation's default. So
    settings that were saved before a key existed equal today's with its default.

    Args:
        settings: Of a training or a study.
        but: Further dotted keys to leave out, with all below them.
    """
    defaults = {
        key: list(value) if isinstance(value, tuple) else value for key, value in asdict(Augment()).items()
    }
    values = asdict(resolve_auto(settings))
    values["augment"] = defaults | values["augment"]
    left_out = {*NEUTRAL_KEYS, *but}
    return {key: value for key, value in flatten(values).items() if not _is_below(key, left_out)}


def _is_below(key: str, groups: Collection[str]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def protect(text: str) -> str:
    r"""Return a text in the form that OmegaConf takes for this text and nothing else.

    >>> print(protect("${AD}"), protect("???"), protect("AD"))
    \${AD} \??? AD
    """
    if _MISSING.fullmatch(text):
        return f"\\{text}"
    return _INTERPOLATION.sub(lambda found: f"{found[1] * 2}\\${{", text)


def restore(text: str) -> str:
    """Return the text of a value that OmegaConf has resolved, without the backslash before `???`."""
    return text[1:] if text.startswith("\\") and _MISSING.fullmatch(text) else text


def restore_settings(settings: Settings) -> Settings:
    """Return settings that OmegaConf has resolved with every text restored."""
    result: Settings = _map_texts(settings, restore)
    return result


def dump_settings(settings: object) -> str:
    """Return settings as YAML which OmegaConf reads back as they are.

    Args:
        settings: A dataclass, or a mapping.
    """
    protected = _map_texts(settings, protect)
    config = OmegaConf.structured(protected) if is_dataclass(settings) else OmegaConf.create(protected)
    text: str = OmegaConf.to_yaml(config)
    if not any(mark in text for mark in _YAML_LINE_ENDS):
        return text
    content = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    dumped: str = yaml.dump(content, Dumper=get_omega_conf_dumper(), allow_unicode=False, sort_keys=False)
    return dumped


def quote_text(text: str) -> str:
    """Return a text quoted for Hydra's grammar; OmegaConf still resolves interpolations in it."""
    return str(QuotedString(text, Quote.double).with_quotes())


def quote_argument(argument: str) -> str:
    """Return an argument of the command line, quoted where Hydra would change the name of a class or column.

    Sweeps, and arguments of other keys, stay as they are.

    >>> print(quote_argument("data.classes=[true, a[1], 'x, y']"))
    data.classes=["true","a[1]","x, y"]
    >>> print(quote_argument("data.label_column=1.10"), quote_argument("data.classes=[AD,0]"))
    data.label_column="1.10" data.classes=[AD,0]
    >>> print(quote_argument("image_columns=[{id}/{id}_T1w.nii.gz]"))
    image_columns=["{id}/{id}_T1w.nii.gz"]

    Args:
        argument: In Hydra's grammar, or with names that are not.
    """
    prefixed, separator, value = argument.partition("=")
    key, value = prefixed.lstrip("+"), value.strip()
    if not separator or key not in (*CLASS_KEYS, *COLUMN_KEYS) or value in ("", "null"):
        return argument
    if key in LIST_KEYS:
        items = _split_list(value)
    else:
        items = [value] if "," not in value or _QUOTED.fullmatch(value) else []
    texts = [_parse(item) if _QUOTED.fullmatch(item) else item for item in items]
    forms = [
        _protect_name(text, key, is_quoted=bool(_QUOTED.fullmatch(item)))
        for text, item in zip(texts, items, strict=True)
    ]
    parsed = _parse(value)
    if not items or (forms == texts and _is_read_as(texts, parsed if key in LIST_KEYS else [parsed])):
        return argument
    quoted = ",".join(map(quote_text, forms))
    return f"{prefixed}=[{quoted}]" if key in LIST_KEYS else f"{prefixed}={quoted}"


def _protect_name(text: str, key: str, *, is_quoted: bool) -> str:
    """Return a name protected; in quotes it may be so already, as on the command line of a child."""
    if key in COLUMN_KEYS and "${" in text:
        return text
    if not is_quoted or text == "???":
        return protect(text)
    return _INTERPOLATION.sub(lambda found: found[0] if len(found[1]) % 2 else f"{found[1]}\\${{", text)


def _parse(value: str) -> Any:  # noqa: ANN401 - whatever Hydra makes of it
    """Return what Hydra reads; None where it cannot."""
    try:
        return OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return None


def _is_read_as(texts: list[str], parsed: object) -> bool:
    """Return whether OmegaConf makes these texts of what Hydra has read, or Hydra has read other texts."""
    if not isinstance(parsed, list):
        return False
    return all(isinstance(value, str) for value in parsed) or list(map(str, parsed)) == texts


def _split_list(value: str) -> list[str]:
    """Return the items of `[a,b]`; none where the value is something else, or an item is empty.

    A comma in quotes or in brackets is part of its item, if all brackets are closed.
    """
    if len(value) < 2 or not (value[0] == "[" and value[-1] == "]"):
        return []
    pieces = list(_pieces(value[1:-1]))
    depths = [0]
    for piece in pieces:
        depths.append(depths[-1] + (piece in "([{") - (piece in ")]}"))
    if min(depths) < 0 and _is_sweep(pieces):
        return []
    is_balanced = min(depths) == depths[-1] == 0
    items = [""]
    for piece, depth in zip(pieces, depths, strict=False):
        if piece == "," and (depth == 0 or not is_balanced):
            items.append("")
        else:
            items[-1] += piece
    stripped = [item.strip() for item in items]
    return stripped if all(stripped) else []


def _pieces(text: str) -> Iterator[str]:
    """Yield quoted items as one, and all other characters."""
    at, begins_item = 0, True
    while at < len(text):
        quoted = _QUOTED.match(text, at) if begins_item else None
        is_item = quoted is not None and text[quoted.end() :].lstrip()[:1] in ("", ",", "]")
        piece = quoted[0] if quoted is not None and is_item else text[at]
        yield piece
        at += len(piece)
        begins_item = piece == "," or (begins_item and piece.isspace())


def _is_sweep(pieces: list[str]) -> bool:
    """Return whether a list is followed by another one, as in `[a,b],[c,d]`."""
    return "],[" in "".join(piece for piece in pieces if not piece.isspace())


def _map_texts(node: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - whatever settings hold
    """Return a copy of dataclasses, lists and mappings with every text changed."""
    if isinstance(node, str):
        return change(node)
    if isinstance(node, Mapping):
        return {key: _map_texts(value, change) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_map_texts(value, change) for value in node)
    if is_dataclass(node) and not isinstance(node, type):
        return replace(
            node, **{one.name: _map_texts(getattr(node, one.name), change) for one in fields(node)}
        )
    return node

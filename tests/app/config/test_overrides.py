"""The names of classes and columns stay as typed: on the command line, in OmegaConf, and in a saved file."""

from dataclasses import dataclass, field

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from commands import compose_command
from voxlift.app.config import DataSettings, TrainSettings
from voxlift.app.config.overrides import (
    dump_settings,
    format_override,
    quote_argument,
    restore_settings,
    to_settings,
)
from voxlift.app.runs.configuration import load_settings, save_settings
from voxlift.app.runs.folder import RunFolder

NAMES = [
    *("true", "False", "yes", "null", "None", "~", "nan", "inf"),
    *("1", "007", "1.10", "1e3", "1_000", "0x1f", "+1", "-1", "12:30", "2024-01-01"),
    *("???", "\\???", "??", "${AD}", "\\${AD}", "a${b}${c}", "${", "$x", "${oc.env:HOME}", "$${a}", "\\"),
    *("@x", "*", "%", "!tag", "&a", "<<", "=", "a=b", "a: b", "- a", "#1", "|", ">"),
    *("a.b", "a/b", "a\\b", "don't", 'say "hi"', "(left)", "[/x]", "{y}", "a[1]", "f(x)", "two words"),
    *("\u00e9", "\u65e5\u672c", "a\x0bb", "a\x85b", "a\u2028b", ":x:", "_z", "%s{0}", "<b>&amp;"),
]


@dataclass
class Names:
    classes: list[str] = field(default_factory=list)
    explain_class: str | None = None


def read(argument):
    """Return what Hydra and OmegaConf make of an argument, as the value of a text or a list of texts."""
    parsed = OverridesParser.create().parse_override(quote_argument(argument))
    key = parsed.key_or_group.rpartition(".")[2]
    config = OmegaConf.merge(OmegaConf.structured(Names), {key: parsed.value()})
    return getattr(restore_settings(OmegaConf.to_object(config)), key)


def on_command_line(*arguments):
    return to_settings(compose_command("train", *map(quote_argument, arguments)), TrainSettings)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "\\"])
def test_a_class_on_the_command_line_is_what_was_typed(name):
    assert read(f"data.classes=[{name},other]") == [name, "other"]
    assert read(f"explain_class={name}") == (None if name == "null" else name)
    once = quote_argument(f"data.classes=[{name},other]")
    assert quote_argument(once) == once  # a child process gets the arguments of its parent


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ('"${AD}"', "${AD}"),
        ('"\\${AD}"', "${AD}"),  # as OmegaConf's documentation escapes it
        ("'???'", "???"),
        ('"\\???"', "???"),
        ('"a\\\\"', "a\\"),
        ("'null'", "null"),
    ],
)
def test_a_name_in_quotes_is_text(item, name):
    assert read(f"data.classes=[{item},other]") == [name, "other"]
    assert read(f"explain_class={item}") == name


def test_a_command_reads_all_names_of_classes_as_typed():
    classes = [name for name in NAMES if name != "\\"]
    argument = f"data.classes=[{','.join(classes)}]"
    assert on_command_line("data=manifest", "data.table=t.csv", argument).data.classes == classes


def test_names_in_quotes_may_hold_commas_and_brackets():
    argument = 'data.classes=["a, b", \'c]\', "say \\"hi\\"", f(1,2), null]'
    assert read(argument) == ["a, b", "c]", 'say "hi"', "f(1,2)", "null"]


def test_all_names_survive_the_saved_configuration(tmp_path):
    columns = {"image_columns": NAMES, "label_column": "???", "subject_column": "${who}"}
    run = RunFolder(tmp_path)
    saved = on_command_line("data=manifest", "data.table=t.csv")
    saved.data = DataSettings(name="manifest", table="${x}.csv", classes=NAMES, **columns)
    save_settings(saved, run)
    assert saved.data.classes == NAMES  # saving changes nothing
    assert load_settings(run) == saved


def test_settings_without_such_names_are_written_as_before():
    settings = on_command_line("data=phantom", "data.task=nodule")
    assert dump_settings(settings) == OmegaConf.to_yaml(OmegaConf.structured(settings))


def test_overrides_for_other_processes_carry_all_names():
    override = format_override("data.classes", NAMES)
    settings = to_settings(compose_command("train", "data=manifest", "data.table=t", override), TrainSettings)
    assert settings.data.classes == NAMES


@pytest.mark.parametrize(
    "argument",
    [
        *("seed=1", "data.classes=[]", "data.classes=[AD,CN]", "data.classes=[AD, CN]", "data.classes=[0,1]"),
        *("data.classes=a,b", "data.classes=[a,b],[c,d]", "data.classes=[a,,b]", "explain_class=null"),
        *("~data.classes", "data.classes", "data.subject_column=null", 'data.classes=["true","1.10"]'),
        *("data.subject_column=${data.image_column}", "data.image_column=image"),
    ],
)
def test_arguments_that_hydra_reads_as_typed_stay_as_they_are(argument):
    assert quote_argument(argument) == argument


def test_columns_on_the_command_line_are_what_was_typed():
    columns = {
        "image_column": "{id}/x_*.nii.gz",
        "label_column": "1.10",
        "subject_column": "Subject (ID)",
        "split_column": "???",
    }
    arguments = [f"data.{key}={value}" for key, value in columns.items()]
    settings = on_command_line("data=manifest", "data.table=t.csv", *arguments)
    assert {key: getattr(settings.data, key) for key in columns} == columns


def test_only_the_added_backslash_is_removed():
    assert restore_settings(["\\???", "\\\\???", "\\a", "???"]) == ["???", "\\???", "\\a", "???"]

"""Write the pages of the site that follow from the code: keys, run folder, exit statuses.

`mkdocs build` runs this file. A key without a description ends the build.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import mkdocs_gen_files

from voxlift.app.config.commands import COMMANDS
from voxlift.app.config.studies import STUDIES
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime import exit_status
from voxlift.data_pipelines.augment.settings import Augment

PREFIX = "voxlift-"
TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "Any": "",
    "None": "null",
}
OPEN = {"augment": Augment}  # groups whose schema is not a dataclass of the configuration


def attribute_texts(schema: type) -> dict[str, str]:
    """Return the text of each attribute of a class, from `Attributes:` or `Args:` of its docstrings."""
    texts: dict[str, str] = {}
    for parent in reversed(schema.__mro__):
        doc = inspect.cleandoc(parent.__doc__ or "")
        section = re.search(r"^(?:Attributes|Args):\n((?:[ ]+.*\n?|\n)*)", doc, re.MULTILINE)
        for entry in re.split(r"\n(?=    \S)", section[1].rstrip()) if section else ():
            name, _, text = entry.strip().partition(":")
            texts[name.strip()] = " ".join(text.split())
    return texts


def list_keys(schema: type, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield name, type, default and description of each key, those of groups in their places."""
    texts = attribute_texts(schema)
    for field in fields(schema):
        name = f"{prefix}{field.name}"
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        group = OPEN.get(name, type(default))
        if is_dataclass(group):
            yield from list_keys(group, f"{name}.")
        elif field.name not in texts:
            raise KeyError(f"{schema.__name__}.{field.name} has no description in its docstring")
        elif field.name != "study":
            yield name, show_type(str(field.type)), show_default(default), texts[field.name]


def show_type(kind: str) -> str:
    """Return a type in words.

    >>> show_type("str | None"), show_type("list[float]")
    ('text or null', 'list')
    """
    parts = [part.strip() for part in kind.split(" | ")]
    return " or ".join(TYPES.get(part, part.partition("[")[0]) for part in parts)


def show_default(value: Any) -> str:  # noqa: ANN401 - whatever a schema holds
    """Return a default as it is written on the command line."""
    if value in ("???", MISSING):
        return "by the option"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace("'", "") if not isinstance(value, str) else value or '""'


def write_table(file: Any, keys: Iterator[tuple[str, str, str, str]]) -> None:  # noqa: ANN401 - of the plugin
    """Write keys as one Markdown table."""
    file.write("| key | type | default | meaning |\n|---|---|---|---|\n")
    for name, kind, default, text in keys:
        cells = (f"`{name}`", kind, f"`{default}`", text)
        file.write("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    file.write("\n")


def write_keys() -> None:
    """Write one page for the keys of all commands; those of a training stand there once."""
    shared = {name for name, *_ in list_keys(COMMANDS["train"])}
    with mkdocs_gen_files.open("reference/keys.md", "w") as file:
        file.write(
            "# Keys of every command\n\nSet any key as `key=value`. `--cfg job` prints all of them.\n\n"
        )
        for command, schema in COMMANDS.items():
            file.write(f"## {PREFIX}{command}\n\n{first_line(schema)}\n\n")
            rows = list(list_keys(schema))
            own = [row for row in rows if command in {"train", "lift", "predict"} or row[0] not in shared]
            if len(own) < len(rows):
                file.write(f"Keys of the same name mean the same as those of `{PREFIX}train`.\n\n")
            write_table(file, iter(own))
        for name, schema in STUDIES.items():
            file.write(f"## {PREFIX}study study={name}\n\n{first_line(schema)}\n\n")
            write_table(file, list_keys(schema, "study."))


def first_line(schema: type) -> str:
    """Return the first line of a docstring."""
    return inspect.cleandoc(schema.__doc__ or "").partition("\n")[0]


def write_run_folder() -> None:
    """Write what each file of a run folder holds, as `RunFolder` documents it."""
    with mkdocs_gen_files.open("reference/run-folder.md", "w") as file:
        file.write(
            "# The files of a run folder\n\nAll commands read them; none overwrites a finished run.\n\n"
        )
        for name, value in vars(RunFolder).items():
            doc = inspect.getdoc(value) if isinstance(value, property) else None
            if doc and doc.startswith("`") and not name.startswith("_"):
                file.write(f"- {doc.partition(chr(10))[0]}\n")


def write_exit_statuses() -> None:
    """Write the exit statuses with the comments of their module."""
    source = inspect.getsource(exit_status).splitlines()
    with mkdocs_gen_files.open("reference/exit-statuses.md", "w") as file:
        file.write("# Exit statuses\n\n| status | meaning |\n|---|---|\n")
        for node in ast.parse("\n".join(source)).body:
            if isinstance(node, ast.Assign):
                text = (
                    source[node.lineno - 1].partition("#")[2].strip() or ast.unparse(node.targets[0]).lower()
                )
                file.write(f"| {ast.unparse(node.value)} | {text.replace('_', ' ')} |\n")


write_keys()
write_run_folder()
write_exit_statuses()

"""The rules of the code base: who may import whom, which names are used, what ships."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("app", "data_pipelines", "models")
FORBIDDEN = {
    "data_pipelines": {"app", "models", "hydra", "omegaconf", "keras"},
    "models": {"app", "data_pipelines", "hydra", "omegaconf", "tensorflow", "jax", "torch"},
}


def imported_by(path):
    """First names of all imports of a file, wherever they stand in it; of our own, the floor's."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name.removeprefix("voxlift.").partition(".")[0] for name in found}


@pytest.mark.parametrize("floor", FORBIDDEN)
def test_no_package_imports_what_it_may_not(floor):
    broken = {
        str(path.relative_to(ROOT)): sorted(imported_by(path) & FORBIDDEN[floor])
        for path in (ROOT / floor).rglob("*.py")
    }
    assert {path: names for path, names in broken.items() if names} == {}


def packages_imported_by(path):
    """The packages of app that a module imports, wherever in the file, except for types only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guards = [
        node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    ]
    for_types = {id(node) for guard in guards for node in ast.walk(guard)}
    return {
        node.module.split(".")[2]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("voxlift.app.")
        and id(node) not in for_types
    }


def test_the_packages_of_app_import_one_another_one_way_only():
    imports = {}
    for path in (ROOT / "app").rglob("*.py"):
        package = path.relative_to(ROOT / "app").with_suffix("").parts[0]
        imports.setdefault(package, set()).update(packages_imported_by(path) - {package})
    TopologicalSorter(imports).prepare()  # raises CycleError with the packages of a cycle
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    order = re.findall(r"`(\w+)`", re.search(r"`evaluation` <[^.]*", text)[0])
    assert {path.name for path in (ROOT / "app").iterdir() if (path / "__init__.py").exists()} == set(order)
    for rank, package in enumerate(order):
        assert imports[package] & set(order[rank + 1 :]) == set(), package


# Words of an older vocabulary; the field has terms of its own for what they meant.
OLD_NAMES = """
    door told tell say spoken hear course parts ending way_out way_on meeting member reaching spread
    hand_over glance look_ahead straight whole stored_form elsewhere answers followed segments
    varying feeding place near prints portions settle kinds growth
"""
OLD_PHRASES = (
    "goes on where it was stopped",
    "which side it waits for",
    "by heart",
    "the same numbers again",
    "if memory ends all the same",
    "a step is that of one process",
    "what can befall",
    "whatever has no rule is listed",
    "the engine broke down",
    "wants mending",
    "mend the path",
    "the disk can only be read",
    "nothing speaks for",
    "do not lean on",
    "swallows what is no number",
    "validation without an error",
)


def names_in(path):
    """The names of a module, its classes and its functions, as words with underscores."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = [path.stem, *(node.name for node in nodes if isinstance(node, definitions))]
    return {re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_") for name in names}


def test_no_module_class_or_function_has_a_name_of_the_older_vocabulary():
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*.py")
        for name in names_in(path) & set(OLD_NAMES.split())
    }
    assert found == set()


def test_no_phrase_of_the_older_vocabulary_is_left():
    suffixes = {".py", ".yaml", ".md", ".j2", ".ipynb"}
    found = []
    for folder in (*FLOORS, "conf", "benchmarks", "notebooks", "."):
        paths = (ROOT / folder).rglob("*") if folder != "." else ROOT.glob("*.md")
        for path in paths:
            if path.suffix in suffixes:
                text = " ".join(path.read_text(encoding="utf-8").lower().split())
                found += [f"{path.relative_to(ROOT)}: {phrase}" for phrase in OLD_PHRASES if phrase in text]
    assert found == []


def test_models_import_tensorflow_only_in_the_backend_module():
    naming = [
        path.name
        for path in (ROOT / "models").rglob("*.py")
        if 'import_module("tensorflow")' in path.read_text(encoding="utf-8")
    ]
    assert naming == ["backend.py"]


def test_only_app_imports_hydra():
    users = {
        floor for floor in FLOORS for path in (ROOT / floor).rglob("*.py") if "hydra" in imported_by(path)
    }
    assert users == {"app"}


def test_the_package_links_to_the_folders_of_the_top_level():
    links = {path.name: path.resolve() for path in (ROOT / "src/voxlift").iterdir() if path.is_symlink()}
    assert links == {floor: ROOT / floor for floor in (*FLOORS, "conf")}


def test_every_module_stands_in_a_package():
    for floor in FLOORS:
        for path in (ROOT / floor).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), path


def test_every_configuration_file_states_what_it_is_for():
    for path in (ROOT / "conf").rglob("*.yaml"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "@package" not in line]
        assert lines[0].startswith("# "), path


def test_the_top_level_is_the_users():
    allowed = {"app", "conf", "data_pipelines", "models", "tests", "notebooks", "benchmarks"}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= allowed


def test_constraints_name_versions_and_nothing_else():
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        name, separator, version = line.partition("==")
        assert separator == "==", line
        assert name.replace("-", "").replace("_", "").replace(".", "").isalnum(), line
        assert version[0].isdigit(), line
        assert "/" not in line, line


def test_every_path_that_contributing_names_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:app|benchmarks|conf|data_pipelines|models|tests)/[\w/.]+)`", text)
    assert len(named) > 40
    assert [
        path for path in named if not (ROOT / path).exists() and "FORMAT" not in path and "NAME" not in path
    ] == []

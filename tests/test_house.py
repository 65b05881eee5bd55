"""The house's own rules: who may import whom, what ships, and that configuration files compose."""

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
def test_no_floor_imports_what_it_may_not(floor):
    broken = {
        str(path.relative_to(ROOT)): sorted(imported_by(path) & FORBIDDEN[floor])
        for path in (ROOT / floor).rglob("*.py")
    }
    assert {path: names for path, names in broken.items() if names} == {}


def rooms_of(path):
    """The rooms of app that a module imports, wherever in the file, but for those that only types need."""
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


def test_the_rooms_of_app_know_one_another_one_way_only():
    arrows = {}
    for path in (ROOT / "app").rglob("*.py"):
        room = path.relative_to(ROOT / "app").with_suffix("").parts[0]
        arrows.setdefault(room, set()).update(rooms_of(path) - {room})
    order = list(TopologicalSorter(arrows).static_order())  # it raises CycleError with the rooms of a circle
    assert order.index("config") < order.index("training") < order.index("comparison")


def test_models_name_tensorflow_only_in_the_backend_room():
    naming = [
        path.name
        for path in (ROOT / "models").rglob("*.py")
        if 'import_module("tensorflow")' in path.read_text(encoding="utf-8")
    ]
    assert naming == ["backend.py"]


def test_hydra_is_known_to_the_app_alone():
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


def test_every_configuration_file_says_what_it_is_for():
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

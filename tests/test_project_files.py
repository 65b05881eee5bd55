"""README, citation, version and configuration files are complete and agree with each other."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONF = sorted((ROOT / "conf").rglob("*.yaml"))
SECTIONS = ("make demo", "voxlift-audit", "voxlift-predict", "## The switch", "plan_lift(", "## Results")


def test_the_readme_is_short_and_its_lines_are():
    lines = README.splitlines()
    assert len(lines) < 120
    assert [line for line in lines if len(line) > 140] == []


def test_the_readme_has_its_sections_in_order():
    places = [README.index(words) for words in (*SECTIONS, "CONTRIBUTING.md", "Limits", "LICENSE")]
    assert places == sorted(places)


def test_every_link_of_the_readme_points_to_a_file():
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_picture_is_there_and_light():
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert pictures
    assert all((ROOT / picture).stat().st_size < 150 * 1024 for picture in pictures)


def test_the_lift_of_the_readme_is_five_lines_that_exist():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    lines = [line for line in code[1].splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 5
    compile(code[1], "README.md", "exec")


def test_the_readme_names_exactly_the_installed_commands():
    assert set(re.findall(r"voxlift-[a-z]+", README)) == set(PROJECT["scripts"])


def test_the_citation_names_licence_authors_and_version():
    from voxlift import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["version"] == __version__


def test_the_version_is_written_in_one_place():
    from voxlift import __version__

    assert PROJECT["dynamic"] == ["version"]
    named = [path for path in ROOT.glob("*.toml") if f'version = "{__version__}"' in path.read_text("utf-8")]
    assert named == []
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_a_configuration_file_begins_with_its_purpose_and_an_example():
    """A command or, for an option of a group, `group=name`."""
    for path in CONF:
        head = [line for line in path.read_text("utf-8").splitlines()[:8] if line.startswith("#")]
        head = [line for line in head if "@package" not in line]
        assert len(head[0]) > 20, path
        group = path.parent.name
        example = "voxlift-" if group in {"conf", "experiment"} else f"{group}={path.stem}"
        assert example in "\n".join(head) or path.name == "hydra_defaults.yaml", path

"""What a visitor meets first: the README and its picture, the citation, one version, the configuration."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONF = sorted((ROOT / "conf").rglob("*.yaml"))
STORY = ("make demo", "voxlift-audit", "voxlift-predict", "## The switch", "plan_lift(", "## Results")


def test_the_readme_is_short_and_its_lines_are():
    lines = README.splitlines()
    assert len(lines) < 200
    assert [line for line in lines if len(line) > 140] == []


def test_the_readme_tells_its_story_in_order():
    places = [README.index(words) for words in (*STORY, "## The house", "## Limits", "## Licence")]
    assert places == sorted(places)


def test_every_link_of_the_readme_leads_to_a_file():
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


def test_every_command_of_the_readme_is_installed_and_every_installed_one_is_told():
    told = set(re.findall(r"voxlift-[a-z]+", README))
    assert told - {"voxlift-study"} <= set(PROJECT["scripts"])
    assert set(PROJECT["scripts"]) <= told


def test_the_citation_names_title_licence_and_authors():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert "version" not in citation  # that stands in one place


def test_the_version_stands_in_one_place():
    from voxlift import __version__

    assert PROJECT["dynamic"] == ["version"]
    named = [path for path in ROOT.glob("*.toml") if f'version = "{__version__}"' in path.read_text("utf-8")]
    assert named == []
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CONF, ids=lambda path: str(path.relative_to(ROOT / "conf")))
def test_a_configuration_file_begins_with_its_purpose_and_the_way_to_use_it(path):
    """A command or, for an option of a group, `group=name`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    head = [line for line in lines[:8] if line.startswith("#") and "@package" not in line]
    assert len(head[0]) > 20
    if path.name == "hydra_habits.yaml":
        return  # shared by all commands
    group = path.parent.name
    usage = "voxlift-" if group in {"conf", "experiment"} else f"{group}={path.stem}"
    assert usage in "\n".join(head), path


@pytest.mark.parametrize("command", [name.removeprefix("voxlift-") for name in PROJECT["scripts"]])
def test_help_holds_examples_that_name_the_command(command, tmp_path):
    shown = subprocess.run(
        [sys.executable, "-m", f"voxlift.app.cli.{command}", "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Examples" in shown
    assert shown.count(f"  voxlift-{command}") >= 3
    assert "Exit status" in shown

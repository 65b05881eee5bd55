"""The documentation: every command that a page shows has keys that exist, and runs where it needs no data."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from commands import compose_command, own_environment
from voxlift.app.cli.study import append_open_key
from voxlift.app.config.overrides import quote_argument

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
TINY = {  # keys that make a command of a page short; later ones win
    "train": ("data.subjects=30", "trainer.epochs=1", "model.filters=[4,6,8]", "preflight.enabled=false"),
    "lift": (),
}
TINY["compare"] = TINY["study"] = TINY["train"]


def commands_of(page, *, runnable=False):
    """Yield the commands of a page as lists of arguments, without comments."""
    for title, block in re.findall(
        r"^```sh(.*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        if runnable and title.strip():
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            start = next((i for i, word in enumerate(words) if word.startswith("voxlift-")), None)
            if start is not None:
                yield words[start:]


def one_job(arguments):
    """Return the arguments of a command as Hydra takes them; of a sweep those of its first job."""
    given = [quote_argument(append_open_key(one)) for one in arguments if one != "-m"]
    if "-m" in arguments:
        given = [re.sub(r"=([^,\[\{']+),.*", r"=\1", one) for one in given]
    return given


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_has_keys_that_exist(page):
    for program, *arguments in commands_of(page):
        compose_command(program.removeprefix("voxlift-"), *one_job(arguments))


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if list(commands_of(page, runnable=True))], ids=lambda page: page.stem
)
def test_the_commands_of_a_page_run(page, tmp_path):
    module = re.search(
        r'^```python title="(.*?)"\n(.*?)^```', page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    if module:
        (tmp_path / module[1]).write_text(module[2], encoding="utf-8")
    for program, *arguments in commands_of(page, runnable=True):
        command = program.removeprefix("voxlift-")
        short = () if any(one.startswith("resume=") for one in arguments) else TINY[command]
        done = subprocess.run(
            [sys.executable, "-P", "-m", f"voxlift.app.cli.{command}", *arguments, *short],
            cwd=tmp_path,
            env=own_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stderr[-2000:])

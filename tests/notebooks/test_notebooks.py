"""The notebooks are small, name no machine, and run from top to bottom."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIMIT_KIB = 600


def test_there_is_a_notebook():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_small_and_name_no_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < LIMIT_KIB * 1024
    assert not re.search(r"/(home|tmp|root|Users|work)/", text)
    assert '"execution":' not in text
    assert not re.search(r"voxlift\.(app|models|data_pipelines|conf)\b", text)  # the public interface alone


@pytest.mark.slow
# The Jupyter machinery warns about its own platform folders and event loops.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom_without_an_error(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    # The kernel is a process of its own: it finds this checkout and keeps its temporary files here.
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    drawn = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    stored = path.read_text(encoding="utf-8").count('"image/png"')
    assert len(drawn) == stored, "the stored pictures are not those that the code draws"

"""The checklist, methods paragraph and model card of a run, and the page over many runs."""

import json
import re
import shutil
from pathlib import Path

import pytest

from commands import call_command
from tiny import train_tiny
from voxlift.app.files import read_rows, write_rows
from voxlift.app.report.checklist import ITEMS, build_checklist
from voxlift.app.runs.configuration import load_settings, write_extension
from voxlift.app.runs.folder import RunFolder
from voxlift.data_pipelines.phantom.write import write_phantom


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs without a network, which are fitted at once."""
    folder = tmp_path_factory.mktemp("runs")
    train_tiny(folder, "first", "model=linear", "data.subjects=24")
    train_tiny(folder, "second", "model=linear", "data.subjects=24", "seed=1")
    return folder


def test_items_are_filled_from_the_files_of_the_run_and_the_rest_is_left(runs, tmp_path, capsys):
    run = runs / "first"
    assert call_command("report", f"run={run}", "checklist=claim", f"output={tmp_path / 'paper'}") == 0
    assert str(tmp_path / "paper" / "checklist.html") in capsys.readouterr().out
    metrics = json.loads((run / "metrics.json").read_text())
    rows = read_rows(run / "splits.csv")
    methods = (tmp_path / "paper" / "methods.md").read_text()
    test = {row["subject"] for row in rows if row["split"] == "test"}
    assert f"{metrics['test']['auc']:.3f}" in methods
    for end in metrics["test"]["intervals"]["auc"]:
        assert f"{end:.3f}" in methods
    assert f"On the {len(test)} test subjects" in methods
    assert f"Of {len(rows)} rows" in methods
    assert f"{metrics['threshold']:.3f}" in methods
    environment = json.loads((run / "environment.json").read_text())
    assert environment["packages"]["numpy"] in methods
    table = (tmp_path / "paper" / "checklist.md").read_text().splitlines()
    items = [line for line in table if line.startswith("| ") and "Section" not in line]
    assert len(items) == len(ITEMS)
    left = [line for line in items if line.endswith("*for the authors* |")]
    assert len(left) >= sum(item.describe is None for item in ITEMS)
    assert all(line.count(" | ") == 3 for line in items)
    card = (tmp_path / "paper" / "model-card.md").read_text()
    assert {"## Model", "## Results", "## Failures"} <= set(card.splitlines())


def test_failures_are_the_wrong_decisions_of_the_test(runs):
    folder = runs / "first"
    run = RunFolder(folder)
    metrics = json.loads(run.metrics.read_text())
    found = build_checklist(run, load_settings(run), metrics)
    text = next(one.text for one in found.answers if one.item.text == "Failures")
    rows = [row for row in read_rows(run.predictions) if row["split"] == "test"]
    positive = load_settings(run).data.classes[1]
    decided = [float(row[f"p_{positive}"]) >= metrics["threshold"] for row in rows]
    wrong = sum(one != (row["label"] == positive) for one, row in zip(decided, rows, strict=True))
    assert text.startswith(f"{wrong} of {len(rows)} ")


def test_the_items_are_the_44_of_the_checklist_in_its_sections():
    assert [item.number for item in ITEMS] == list(range(1, 45))
    sections = {number: item.section for number, item in enumerate(ITEMS, start=1)}
    first = {7: "Data", 14: "Reference standard", 19: "Data partitions", 21: "Testing data", 22: "Model"}
    first |= {25: "Training", 28: "Evaluation", 34: "Evaluation", 35: "Results: data", 40: "Discussion"}
    assert {number: sections[number] for number in first} == first


def test_external_data_and_a_planned_sample_size_fill_their_items(runs, tmp_path, capsys):
    run, table = RunFolder(runs / "first"), tmp_path / "other.csv"
    source = write_phantom(tmp_path / "other", task="nodule", subjects=20, seed=7)
    rows = read_rows(source)
    named = [row | {"participant_id": f"new-{row['participant_id']}"} for row in rows]
    write_rows(table, [row | {"file": str(source.parent / row["file"])} for row in named])
    other = tmp_path / "external"
    assert call_command("evaluate", f"run={run.path}", f"data.table={table}", f"output={other}") == 0
    plan = tmp_path / "plan"
    plan.mkdir()
    saved = {"rows": [{"n_per_class": 321}], "recommendation": "It takes 321.", "fixed": {"level": "0.05"}}
    (plan / "results.json").write_text(json.dumps(saved))
    asked = (f"run={run.path}", f"output={tmp_path / 'paper'}")
    assert call_command("report", *asked, f"external={other}", f"sample_size={plan}") == 0
    items = {
        int(line.split(" | ")[1]): line.split(" | ")[3]
        for line in (tmp_path / "paper" / "checklist.md").read_text().splitlines()
        if line.startswith("| ") and "Section" not in line
    }
    metrics = json.loads((other / "metrics.json").read_text())
    assert f"{metrics['external']['auc']:.3f}" in items[33]
    assert "20 external subjects" in items[33]
    assert "321" in items[21]
    assert f"{metrics['external']['auc']:.3f}" in (tmp_path / "paper" / "methods.md").read_text()
    assert call_command("report", f"run={runs / 'second'}", f"external={other}") == 2  # of another run
    assert str(run.path) in capsys.readouterr().err
    assert call_command("report", *asked, f"sample_size={other}") == 2
    assert call_command("report", *asked, f"external={plan}") == 2


def test_every_page_has_the_checklist(runs):
    text = (runs / "first" / "report.html").read_text()
    assert 'id="checklist"' in text
    assert "for the authors" in text


def test_all_runs_are_listed_with_what_differs_and_the_best_first(runs, tmp_path):
    assert call_command("report", f"runs={runs}", "sort=auc", f"output={tmp_path}") == 0
    rows = read_rows(tmp_path / "runs.csv")
    assert {Path(row["run"]).name for row in rows} == {"first", "second"}
    values = [float(row["value"]) for row in rows]
    assert values == sorted(values, reverse=True)
    for row in rows:
        saved = json.loads((Path(row["run"]) / "metrics.json").read_text())["test"]
        assert float(row["value"]) == saved["auc"]
        assert [float(row["low"]), float(row["high"])] == saved["intervals"]["auc"]
    assert {row["seed"] for row in rows} == {"0", "1"}
    assert "trainer.epochs" not in rows[0]
    links = re.findall(r'href="([^"]+/report.html)"', (tmp_path / "runs.html").read_text())
    assert len(links) == 2
    assert all((tmp_path / link).exists() for link in links)


def test_a_run_that_was_resumed_for_more_epochs_is_marked_beside_the_others(runs, tmp_path):
    settings = load_settings(RunFolder(runs / "second"))
    resumed, before = RunFolder(tmp_path / "resumed"), tmp_path / "before"
    shutil.copytree(runs / "second", resumed.path)
    shutil.copytree(runs / "first", before)
    write_extension(resumed, settings, planned=settings.trainer.epochs - 1, trained=1)
    assert call_command("report", f"runs={tmp_path}") == 0
    mark = f"{settings.trainer.epochs - 1} to {settings.trainer.epochs} epochs"
    marked = {Path(row["run"]).name: mark in row["resumed"] for row in read_rows(tmp_path / "runs.csv")}
    assert marked == {"resumed": True, "before": False}
    page = (tmp_path / "runs.html").read_text()
    assert page.count(mark) == 1
    cells = [len(re.findall("<t[hd][ >]", row)) for row in re.findall("<tr>.*?</tr>", page, re.DOTALL)]
    assert len(set(cells)) == 1


def test_a_folder_without_runs_and_an_unknown_column_are_refused(runs, tmp_path, capsys):
    assert call_command("report", f"runs={tmp_path}") == 2
    assert call_command("report", f"runs={runs}", "sort=cost", f"output={tmp_path}") == 2
    message = capsys.readouterr().err
    assert "sort=cost" in message
    assert "auc" in message
    assert not list(tmp_path.iterdir())

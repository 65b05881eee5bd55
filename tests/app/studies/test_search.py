"""The search with a script instead of trainings: it prunes, resumes after a kill, and checks the gain."""

import csv
import json
import sys

import pytest

from voxlift.app.comparison import run as comparison_run
from voxlift.app.studies.folder import open_study_folder
from voxlift.app.studies.search import run as search_run
from voxlift.app.studies.search.figures import draw_progress
from voxlift.app.studies.search.report import describe_trials
from voxlift.app.studies.search.run import plan_trial, read_column
from voxlift.app.studies.search.store import GIVEN, ask_trial, count_ended, import_optuna, open_search

pytest.importorskip("optuna")
SCRIPT = """
import pathlib, sys, time
settings = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
run = pathlib.Path(settings["run_dir"].strip('"'))
dropout = float(settings["model.dropout"])
run.mkdir(parents=True)
with (run / "history.csv").open("w") as history:
    history.write("epoch,val_auc\\n")
    for epoch in range(int(settings["trainer.epochs"])):
        history.write(f"{epoch},{0.9 - abs(dropout - 0.3) + 0.001 * epoch}\\n")
        history.flush()
        time.sleep(0.15 if dropout > 0.35 else 0)
(run / "metrics.json").write_text("{}")
"""
STUDY = [
    "study=search",
    "study.space.augment=null",
    "study.space.optimizer.learning_rate=null",
    "study.space.optimizer.weight_decay=null",
    "study.space.trainer.batch_size=null",
    "study.epochs=6",
    "study.trials=8",
    "study.startup_trials=2",
    "study.warmup_epochs=1",
    "run_dir=out",
]


@pytest.fixture
def script(stand_in, monkeypatch, tmp_path):
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    monkeypatch.setattr(comparison_run, "TRAIN", (sys.executable, str(path)))
    monkeypatch.setattr(search_run, "PAUSE_SECONDS", 0.02)
    return stand_in(lambda _: 1.0)


def rows_of(folder):
    with (folder / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_of_the_trials_is_found_and_poor_ones_are_stopped(script, run_study):
    folder = run_study(*STUDY)
    rows, results = rows_of(folder), json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert len(rows) == 8
    assert rows[0]["is_given"] == "True"
    assert float(rows[0]["model.dropout"]) == 0.2
    best = max((row for row in rows if row["state"] == "complete"), key=lambda row: float(row["value"]))
    assert f"model.dropout={best['model.dropout']}" in results["command"]
    assert results["command"].startswith("voxlift-train ")
    assert "logger=none" not in results["command"]
    stopped = [row for row in rows if row["state"] == "pruned"]
    assert all(int(row["epochs"]) < 6 or float(row["value"]) < float(best["value"]) for row in stopped)
    assert script.trained == ["given-seed1", "best-seed1"]
    assert results["command"] in results["recommendation"]


@pytest.mark.usefixtures("script")
def test_a_killed_search_resumes_with_the_interrupted_trial(monkeypatch, run_study):
    watched, calls = search_run.train_watched, []

    def dying(trial, **options):
        calls.append(trial.run.path.name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return watched(trial, **options)

    monkeypatch.setattr("voxlift.app.studies.search.run.train_watched", dying)
    with pytest.raises(KeyboardInterrupt):
        run_study(*STUDY)
    folder = run_study(*STUDY)
    assert calls[3] == calls[4]  # the interrupted trial is done again with the same settings
    rows = rows_of(folder)
    assert sum(row["state"] in {"complete", "pruned"} for row in rows) == 8
    assert len(calls) == 9


@pytest.mark.usefixtures("script")
def test_more_trials_extend_the_same_search(run_study):
    run_study(*STUDY, "study.confirm_seeds=[]")
    folder = run_study(*STUDY, "study.confirm_seeds=[]", "study.trials=10")
    assert len(rows_of(folder)) == 10
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert "confirmation" not in results  # the gain was not checked on other seeds
    assert results["command"] in results["recommendation"]


def test_a_trial_left_running_counts_only_once(tmp_path, composed):
    with composed("study=search") as settings:
        first = open_search(settings.study, tmp_path / "search.db")
        space = {"x": import_optuna().distributions.FloatDistribution(0, 1)}
        asked = ask_trial(first, settings.study, space)
        again = open_search(settings.study, tmp_path / "search.db")
    assert count_ended(again) == 0
    retried = ask_trial(again, settings.study, space)
    assert retried.params == asked.params
    again.tell(retried, 0.5)
    assert count_ended(again) == 1
    assert [trial["number"] for trial in describe_trials(again)] == [0]


def test_a_killed_search_tries_the_settings_of_an_undisturbed_one(tmp_path, composed):
    with composed("study=search", "study.startup_trials=3") as settings:
        study, space = settings.study, {"x": import_optuna().distributions.FloatDistribution(0, 1)}

        def ask(file, *, killed=()):
            search, asked = open_search(study, file), []
            search.enqueue_trial({"x": 0.25}, user_attrs={GIVEN: True})
            for number in range(7):
                trial = ask_trial(search, study, space)
                if number in killed:
                    search = open_search(study, file)
                    trial = ask_trial(search, study, space)
                asked.append(trial.params["x"])
                search.tell(trial, 1 - abs(trial.params["x"] - 0.6))
            return asked, describe_trials(search)

        undisturbed, trials = ask(tmp_path / "a.db")
        assert ask(tmp_path / "b.db", killed=(0, 2, 5)) == (undisturbed, trials)
    assert len(set(undisturbed)) == 7
    assert [trial["is_given"] for trial in trials] == [True, *[False] * 6]


@pytest.mark.slow
def test_a_real_training_is_stopped_at_the_epoch_of_the_pruner(tmp_path, composed):
    shared = [
        "data.subjects=24",
        "preprocess.shape=[8,12,16]",
        "preprocess.spacing=[8,5,4]",
        "model.filters=[4,6,8]",
        "precision=float32",
        "trainer.epochs=500",
        f"data.folder={tmp_path}/data",
        f"cache.folder={tmp_path}/cache",
    ]
    seen = []

    def watch(epoch, value):
        seen.append((epoch, value))
        return epoch >= 2

    with composed("study=search", *shared, f"run_dir={tmp_path}/out") as settings:
        trial = plan_trial({"model.dropout": 0.1}, shared, settings, open_study_folder(settings))
        status = search_run.train_watched(trial, column="val_auc", watch=watch, log=tmp_path / "log.txt")
    assert status is None
    assert [epoch for epoch, _ in seen] == [0, 1, 2]
    assert read_column(trial.run.history, "val_auc")[:3] == [value for _, value in seen]
    assert len(read_column(trial.run.history, "val_auc")) < 500
    assert not trial.run.is_finished


def test_an_incomplete_line_of_a_history_is_not_read(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,val_auc\n0,0.5\n1,0.7")
    assert read_column(path, "val_auc") == [0.5]
    assert read_column(tmp_path / "absent.csv", "val_auc") == []


def test_the_best_so_far_is_drawn_up_to_the_last_trial():
    trials = [
        {"number": number, "value": value, "state": state, "is_given": number == 0}
        for number, (value, state) in enumerate([(0.7, "complete"), (0.9, "complete"), (0.6, "pruned")])
    ]
    (axes,) = draw_progress(trials, metric="auc", is_lower_better=False).axes
    (best,) = [line for line in axes.lines if line.get_label() == "best so far"]
    assert best.get_xydata().tolist() == [[0, 0.7], [1, 0.9], [2, 0.9]]

"""The pages of runs and comparisons: self-contained, well-formed, complete, accessible, reproducible."""

import errno
import itertools
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from voxlift.app.config import DataSettings, TrainSettings
from voxlift.app.evaluation.bootstrap import summarise_models
from voxlift.app.evaluation.calibration import Calibration, Reliability, fit_calibration
from voxlift.app.evaluation.evaluate import evaluate_scores
from voxlift.app.evaluation.numbers import Numbers
from voxlift.app.evaluation.paired import compare_models
from voxlift.app.evaluation.scores import Scores
from voxlift.app.files import write_json, write_rows
from voxlift.app.report import run_page
from voxlift.app.report.cases import Case
from voxlift.app.report.comparison_page import ComparisonSummary, render_comparison_page
from voxlift.app.report.evidence import show_subgroups
from voxlift.app.report.figures import (
    calibration_figure,
    forest_figure,
    joined_bins,
    learning_curve_figure,
    macro_roc_figure,
    precision_recall_figure,
    roc_figure,
    select_classes,
)
from voxlift.app.report.pages import SERIES, assign_colours
from voxlift.app.report.result_views import pool_fits, view_results
from voxlift.app.report.run_page import RunSummary, count_splits, render_run_page, write_run_page
from voxlift.app.report.task_figures import bland_altman_figure, curve_grid, scatter_figure
from voxlift.app.runs.folder import RunFolder

SUBGROUPS = {
    "groups": [{"group": "F", "n": 9, "subjects": 9, "prevalence": 0.5, "too_small": "", "auc": 0.7}],
    "tests": {},
}
VOID = {"meta", "link", "img", "br", "hr"}


def scored(seed, shift, classes=("benign", "malignant"), volumes=72):
    rng = np.random.default_rng(seed)
    labels = np.arange(volumes) % len(classes)
    logits = shift * np.eye(len(classes))[labels] + rng.normal(size=(volumes, len(classes)))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Scores([f"sub-{i:03d}" for i in range(volumes)], labels, p, classes)


def history(shift):
    return [
        {
            "epoch": e,
            "loss": str(0.7 * 0.9**e),
            "val_loss": 0.7 * 0.93**e + 0.05,
            "val_auc": 1 - 0.4 * shift**e,
            "auc": "",
        }
        for e in range(20)
    ]


def case(index, *, maps):
    grid = np.linspace(-1, 1, 32)
    plane = np.exp(-4 * ((grid[:, None] - 0.1 * index) ** 2 + grid**2)) * 100 - 900
    planes = (plane, plane[::2], plane[4:])
    heat = tuple(p / 100 + 9 for p in planes) if maps else ()
    return Case(
        f"sub-{index:03d}", "true class benign", "predicted malignant with probability 0.970", planes, heat
    )


SPLITS = [{"split": "train", "benign": 80, "malignant": 75}, {"split": "test", "benign": 36, "malignant": 36}]
COST = {"parameters": 123456, "flops": 2.5e9, "seconds_per_epoch": 8.1, "seconds_per_volume": 0.0123}


def run_summary(classes=("benign", "malignant"), **changes):
    validation, test = scored(1, 1.4, classes), scored(2, 1.2, classes)
    values = {
        "name": "volume3d on <nodule> & more",
        "metrics": {k: evaluate_scores(s, resamples=200) for k, s in (("val", validation), ("test", test))},
        "scores": {"val": validation, "test": test},
        "history": history(0.85),
        "splits": SPLITS,
        "config": "model:\n  name: volume3d\n  filters: [16, 32, 64]\n",
        "environment": {"python": "3.11", "device": {"name": "CPU", "precision": "float32"}},
        "cost": COST,
        "calibration": fit_calibration(validation).value,
        "errors": [case(i, maps=True) for i in range(3)],
        "correct": [case(i, maps=False) for i in range(3)],
        "audit": ["2 of 227 volumes have another orientation (LAS)"],
        "notes": ["3 rows without a label were left out."],
        "created": "1 May 2026",
    }
    return RunSummary(**(values | changes))


def comparison_summary(classes=("benign", "malignant")):
    models = {
        name: [scored(s, shift, classes) for s in (4, 5)]
        for name, shift in (("slice2d", 0.3), ("volume3d", 1.6), ("inflated", 1.7))
    }
    return ComparisonSummary(
        name="Slices against volumes",
        comparisons=compare_models(models, fit_seeds=[4, 5], resamples=200),
        models=models,
        metrics=summarise_models(models, fit_seeds=[4, 5], resamples=200),
        calibrations={name: [Calibration(1.8), Calibration(2.2)] for name in models},
        trainings=[{"model": name, "seed": "4", "validation AUC": 0.81, "run": "runs/x"} for name in models],
        cases=[{name: case(i, maps=False) for name in models} for i in range(4)],
        costs=dict.fromkeys(models, COST),
        histories={name: history(0.7 + 0.1 * i) for i, name in enumerate(models)},
        splits=SPLITS,
        configs={"slice2d": "model:\n  name: slice2d\n"},
        environment={"python": "3.11"},
        audit=[],
    )


class Structure(HTMLParser):
    """Checks nesting, and collects ids, addresses, text, and the text of each section by its id."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.addresses, self.text = [], [], [], []
        self.sections, self.section = {}, None

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        found = dict(attrs)
        if tag == "section":
            self.section = self.sections.setdefault(found["id"], [])
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [v for k, v in attrs if k in {"src", "href", "xlink:href", "action", "srcset"}]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element at {self.getpos()}"

        if tag == "section":
            self.section = None

    def handle_data(self, data):
        self.text.append(data)
        if self.section is not None:
            self.section.append(data)


def parsed(path):
    page = Structure()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    page.words = joined(page.text)
    page.sections = {name: joined(texts) for name, texts in page.sections.items()}
    return page


def joined(texts):
    return " ".join(" ".join(texts).split())


@pytest.fixture(name="pages", scope="module")
def written_pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return {
        "run": render_run_page(run_summary(), folder / "run.html"),
        "classes": render_run_page(run_summary(("MCA", "PCA", "VB")), folder / "classes.html"),
        "comparison": render_comparison_page(comparison_summary(), folder / "comparison.html"),
        "comparison of classes": render_comparison_page(
            comparison_summary(("MCA", "PCA", "VB")), folder / "comparison-classes.html"
        ),
    }


def test_pages_are_well_formed_and_load_nothing_from_elsewhere(pages):
    for kind, path in pages.items():
        page, text = parsed(path), path.read_text(encoding="utf-8")
        assert len(page.ids) == len(set(page.ids)), kind
        assert [a for a in page.addresses if not a.startswith(("#", "data:"))] == []
        assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
        assert "<script" not in text
        assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)
        assert "#0102" not in text  # every placeholder colour became one of the page


def test_run_page_has_the_verdict_first_and_every_value_in_its_section(pages):
    page = parsed(pages["run"])
    summary = run_summary()
    test = summary.scores["test"]
    expected = {
        "metrics": ["ROC AUC", f"{summary.metrics['test']['auc']:.3f}"],
        "curves": ["ROC AUC", "malignant"],
        "calibration": [f"{summary.calibration.temperature:.3f}"],
        "confusion": ["benign", "malignant", str(np.sum((test.labels == 0) & (test.decisions == 0)))],
        "learning": ["Epoch"],
        "cases": ["sub-000", "benign", "malignant", "0.970"],
        "cost": ["123 k", "2.5 G", "8.1 s", "12.3 ms"],
        "splits": ["train", "80", "75"],
        "audit": [summary.audit[0]],
        "settings": ["filters: [16, 32, 64]"],
        "environment": ["device.precision", "float32"],
    }
    assert list(page.sections) == list(expected)
    for section, values in expected.items():
        for value in values:
            assert value in page.sections[section], section
    start = page.words.index(page.sections["metrics"])
    assert f"{summary.metrics['test']['auc']:.3f}" in page.words[:start]  # the verdict
    assert summary.notes[0] in page.words[:start]


def test_comparison_page_has_the_verdict_first_and_every_value_in_its_section(pages):
    page = parsed(pages["comparison"])
    summary = comparison_summary()
    expected = {
        "differences": ["inflated \N{MINUS SIGN} volume3d", "72", "Holm"],
        "metrics": ["slice2d", f"{summary.metrics['inflated']['auc']:.3f}"],
        "cost": ["12.3 ms"],
        "curves": ["ROC AUC"],
        "calibration": ["2.000"],  # the mean of the temperatures of both seeds
        "confusion": ["slice2d", "volume3d", "inflated"],
        "learning": ["Epoch"],
        "cases": ["sub-003", "0.970"],
        "trainings": ["runs/x", "0.810"],
        "splits": ["train"],
        "audit": [],
        "settings": ["name: slice2d"],
        "environment": ["3.11"],
    }
    assert list(page.sections) == list(expected)
    for section, values in expected.items():
        for value in values:
            assert value in page.sections[section], section
    assert "volume3d" in page.words[: page.words.index(page.sections["differences"])]


def test_maps_of_all_models_are_shown_for_each_volume(tmp_path):
    mapped = replace(comparison_summary(), cases=[{name: case(0, maps=True) for name in ("a", "b")}])
    text = render_comparison_page(mapped, tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.findall(r"<img [^>]*alt=\"Planes of sub-000, Grad-CAM of (\w)\"", text) == ["a", "b"]


def test_headings_step_down_by_one_and_pictures_have_alternative_texts(pages):
    for path in pages.values():
        text = path.read_text(encoding="utf-8")
        levels = [int(level) for level in re.findall(r"<h([1-6])", text)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        assert len(re.findall(r"<img ", text)) == len(re.findall(r'<img [^>]*alt="[^"]+"', text))
        assert all("aria-label=" in tag for tag in re.findall(r'<svg role="img"[^>]*>', text))


def contrast(first, second):
    """The contrast of two colours.  Source: WCAG 2.1, relative luminance."""

    def luminance(colour):
        parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_colours_have_enough_contrast_in_light_dark_and_print(pages):
    text = pages["run"].read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    ]
    assert len(themes) == 3
    for theme in themes:
        for name in ("ink", "muted", "accent"):
            assert contrast(theme[name], theme["paper"]) >= 4.5, name
        for name in (key for key in theme if key.startswith("series")):
            assert contrast(theme[name], theme["paper"]) >= 3, name


def test_names_are_escaped(pages):
    text = pages["run"].read_text(encoding="utf-8")
    assert "<nodule>" not in text
    assert "volume3d on &lt;nodule&gt; &amp; more" in text


def test_several_classes_get_a_row_and_a_curve_each(pages):
    words = parsed(pages["classes"]).words
    for name in ("MCA", "PCA", "VB"):
        assert f"ROC AUC, {name}" in words


def test_every_class_has_its_curve_and_the_rarest_of_very_many_are_counted(tmp_path):
    names = [str(number - 3) for number in range(14)]  # -1 and 1 look alike where only letters count
    counts = [2, 2, *[4] * 12]
    labels = np.repeat(np.arange(14), counts)
    p = np.full((len(labels), 14), 0.5 / 13)
    p[np.arange(len(labels)), labels] = 0.5
    scores = Scores([f"s{i}" for i in range(len(labels))], labels, p, names)
    block = evaluate_scores(scores, resamples=20)
    run = RunSummary(name="many", metrics={"test": block}, scores={"test": scores})
    page = parsed(render_run_page(run, tmp_path / "many.html"))
    assert len(page.ids) == len(set(page.ids))
    assert {"macro-roc-figure_1", "grid-roc-figure_1", "grid-pr-figure_1"} <= set(page.ids)
    # a panel for each of twelve classes
    assert not any(one.startswith("grid-roc-axes_13") for one in page.ids)
    assert select_classes(scores) == (list(range(2, 14)), 2)
    assert all(f"ROC AUC, {name}" in page.sections["metrics"] for name in names)


def test_a_model_has_one_colour_in_every_figure_whichever_others_are_shown():
    colours = assign_colours(["volume3d", "mine", "slice2d", "yours"])
    assert sorted(colours.values()) == [0, 1, 2, 3]
    assert colours["volume3d"] == assign_colours(["linear", "volume3d"])["volume3d"]
    assert len(set(assign_colours(map(str, range(8))).values())) == len(SERIES) == 8
    both, alone, how = scored(4, 1.2), {"name": "x", "title": "x"}, {"colours": colours}
    numbers = Numbers(both.subjects, both.probabilities[:, 1], both.probabilities[:, 0])
    drawn = [
        roc_figure({"yours": (both, 1)}, **alone, **how),
        macro_roc_figure({"yours": both}, [1], **alone, **how),
        precision_recall_figure({"yours": (both, 1)}, **alone, **how),
        calibration_figure({"yours": both}, **alone, **how)[1],
        learning_curve_figure(
            {"none": [], "yours": history(0.8)}, "loss", **alone, colours={**colours, "none": 5}
        ),
        forest_figure({"yours": {"auc": 0.7}}, "auc", **alone, **how),
        curve_grid({"a": {"yours": both}}, kind="pr", **alone, **how),
        scatter_figure(numbers, limits=(0, 1), index=colours["yours"], **alone),
        bland_altman_figure(numbers, span=1, index=colours["yours"], **alone),
        *(svg for _, svg in view_results({"yours": [both]}, "test", colours=colours).curves),
        show_subgroups({"yours": {"sex": SUBGROUPS}}, colours=colours)[1][0][1],
    ]
    assert [set(re.findall(r"--series-\d", svg)) for svg in drawn] == [{"--series-4"}] * len(drawn)


def test_bins_of_few_volumes_and_bins_beside_an_empty_one_are_not_joined():
    centres, counts = np.array([0.05, 0.15, 0.25, 0.35, 0.65, 0.75]), np.array([9, 5, 4, 9, 9, 9])
    bins = Reliability(centres, centres, centres, centres, counts)
    assert joined_bins(bins) == [(0, 1), (4, 5)]


def test_a_class_that_the_split_lacks_has_no_curve():
    labels = np.array([0, 1, 0, 1])
    scores = Scores(list("abcd"), labels, np.full((4, 3), 1 / 3), ("x", "y", "z"))
    assert select_classes(scores) == ([0, 1], 0)


def test_bare_run_leaves_sections_out(tmp_path):
    bare = RunSummary("m", {"test": {"auc": 1.0, "n": 4, "intervals": {"auc": [1.0, 1.0]}}})
    page = parsed(render_run_page(bare, tmp_path / "r.html"))
    assert list(page.sections) == ["metrics"]
    assert "1.000\N{DAGGER}" in page.sections["metrics"]  # an interval of zero width


def test_same_summary_gives_the_same_bytes(tmp_path):
    first, second = (
        render_run_page(run_summary(), tmp_path / name).read_bytes() for name in ("a.html", "b.html")
    )
    assert first == second


def test_pooled_fits_keep_every_row_of_a_subject():
    pooled = pool_fits([scored(1, 1.0), scored(2, 1.0)])
    assert len(pooled) == 144
    assert len(set(pooled.keys)) == 144
    assert len(set(pooled.subjects)) == 72


def test_run_page_decides_at_the_threshold_of_validation(tmp_path, monkeypatch):
    monkeypatch.setattr(run_page, "pick_cases", lambda *_: ([], []))
    run = RunFolder(tmp_path)
    run.config.write_text("seed: 0\n")
    write_json(run.environment, {"python": "3.11"})
    write_rows(run.splits, [{"subject": "a", "split": "test", "label": "sick"}])
    settings = TrainSettings(data=DataSettings(name="manifest", table="t.csv", label_column="state"))
    cohort = SimpleNamespace(classes=("well", "sick"), left_out=())
    p = np.array([0.2, 0.4, 0.9])
    test = Scores(list("abc"), [0, 1, 1], np.stack([1 - p, p], axis=1), cohort.classes)
    for threshold, missed, found in ((0.3, 0, 2), (0.7, 1, 1)):
        metrics = {
            "threshold": threshold,
            "threshold_reason": "because",
            "calibration": {"temperature": 1.25},
            "cost": {},
            "test": evaluate_scores(test, threshold=threshold, resamples=20),
        }
        page = parsed(write_run_page(run, settings, cohort=cohort, scores={"test": test}, metrics=metrics))
        shown = re.findall(r"\b(\d+) \d+ %", page.sections["confusion"])
        assert [int(count) for count in shown] == [1, 0, missed, found]
        assert f"{threshold:.3f}" in page.words
        assert "1.250" in page.sections["calibration"]  # the temperature of metrics.json


def test_splits_are_sorted_and_count_subjects_beside_volumes(tmp_path):
    run = RunFolder(tmp_path)
    rows = [("c", "test", "sick"), ("a", "train", "sick"), ("a", "train", "sick"), ("b", "train", "well")]
    write_rows(run.splits, [dict(zip(("subject", "split", "label"), row, strict=True)) for row in rows])
    assert [tuple(row.values()) for row in count_splits(run, names=("well", "sick"))] == [
        ("train", "well", 1, 1),
        ("train", "sick", 1, 2),
        ("test", "sick", 1, 1),
    ]


def test_a_full_disk_leaves_the_previous_page_and_names_its_path(tmp_path, monkeypatch):
    bare = RunSummary("m", {"test": {"auc": 1.0, "n": 4}})
    path = render_run_page(bare, tmp_path / "report.html")
    before = path.read_bytes()

    def fail(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"report\.html"):
        render_run_page(replace(bare, name="other"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_browser_renders_the_pages_without_a_console_error(pages, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    picture = tmp_path / "page.png"
    for path in pages.values():
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--window-size=1280,6000",
            f"--screenshot={picture}", path.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
        assert picture.stat().st_size > 50_000  # an empty page of this size is far smaller


def test_a_class_may_have_any_name_on_the_pages(tmp_path):
    classes = ("split", "$a_b^{c", "_z", "???", "<b>&amp;", "a b", "a-b")
    splits = [{"split": "train", "class": name, "volumes": 12} for name in classes]
    render_run_page(run_summary(classes, splits=splits), tmp_path / "run.html")
    page = parsed(tmp_path / "run.html")
    assert len(page.ids) == len(set(page.ids))
    assert all(name in page.words for name in classes)
    shown = page.words.replace("\N{WORD JOINER}", "")
    assert shown.count("_z") == shown.count(
        "???"
    )  # in the legends too, which Matplotlib would leave it out of

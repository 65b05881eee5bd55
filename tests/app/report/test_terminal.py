"""Tables in the terminal: legible when narrow, plain in a pipe."""

import io

import numpy as np
from rich.console import Console

from voxlift.app.evaluation.evaluate import evaluate_scores
from voxlift.app.evaluation.paired import compare_models
from voxlift.app.evaluation.scores import Scores
from voxlift.app.progress import build_console
from voxlift.app.report.tables import format_interval
from voxlift.app.report.terminal import print_comparisons, print_metrics


def make_scores(seed, shift):
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 2
    chance = 1 / (1 + np.exp(-rng.normal(shift * (labels - 0.5), 1)))
    names = [f"s{i:02d}" for i in range(60)]
    return Scores(names, labels, np.stack([1 - chance, chance], axis=1), ("no", "yes"))


BLOCK = {"auc": 0.91234, "mcc": -0.25, "ppv": None, "n": 60, "intervals": {"auc": [0.85, 0.961]}}


def printed(blocks, width):
    stream = io.StringIO()
    print_metrics(blocks, console=Console(file=stream, width=width))
    return stream.getvalue()


def test_values_are_beside_their_intervals_and_undefined_ones_are_dashes():
    text = printed({"volume3d": BLOCK}, 80)
    lines = {line.split("  ")[0].strip(): line for line in text.splitlines() if line.strip()}
    assert lines["ROC AUC"].rstrip().endswith("0.912 [0.850, 0.961]")
    assert lines["MCC"].rstrip().endswith("\N{MINUS SIGN}0.250")
    assert lines["PPV"].rstrip().endswith("\N{EN DASH}")
    assert lines["Volumes"].rstrip().endswith("60")


def test_no_digit_is_lost_on_a_narrow_terminal():
    for width in (40, 60, 100):
        text = printed({"slice2d": BLOCK, "volume3d": BLOCK}, width)
        assert max(len(line) for line in text.splitlines()) <= width
        assert text.count("[0.850, 0.961]") == 2
        assert text.count("0.912") == 2


def test_interval_of_zero_width_is_marked_and_explained():
    text = printed({"m": {"auc": 1.0, "intervals": {"auc": [1.0, 1.0]}}}, 100)
    assert "1.000\N{DAGGER} [1.000, 1.000]" in text
    assert text.splitlines()[-1].startswith("\N{DAGGER} ")
    assert "\N{DAGGER}" not in printed({"m": BLOCK}, 100)


def test_block_of_a_real_evaluation_prints_every_headline_metric(capsys):
    print_metrics({"a": evaluate_scores(make_scores(0, 1.0), resamples=50)})
    text = capsys.readouterr().out
    assert "\x1b" not in text  # a pipe gets no colour codes
    for label in ("ROC AUC", "Balanced accuracy", "Brier score", "Calibration error", "Threshold"):
        assert label in text


def test_differences_are_printed_with_the_verdict_last():
    found = compare_models({"weak": make_scores(0, 0.2), "strong": make_scores(1, 4.0)}, resamples=200)
    stream = io.StringIO()
    print_comparisons(found, console=Console(file=stream, width=100))
    text = stream.getvalue()
    assert "strong \N{MINUS SIGN} weak" in text
    heading = text.splitlines()[0].split()
    assert heading[-2:] == ["p", "verdict"]  # one p-value a pair
    assert text.split("strong is better than weak")[1]


def test_an_interval_of_a_difference_is_never_broken_on_a_narrow_terminal():
    found = compare_models({"slices": make_scores(0, 0.5), "volumes": make_scores(1, 2.0)}, resamples=100)
    stream = io.StringIO()
    print_comparisons(found, console=Console(file=stream, width=50))
    difference = found[0].differences["auc"]
    assert format_interval(difference.low, difference.high) in stream.getvalue()


def test_pipe_has_a_fixed_width():
    assert build_console().width == 100


def test_an_interval_is_printed_in_its_brackets_and_nothing_else():
    console = Console(file=io.StringIO(), width=100, markup=False)
    print_metrics({"model": {"auc": 0.5, "intervals": {"auc": [0.25, 0.75]}}}, console=console)
    assert "0.500 [0.250, 0.750]" in console.file.getvalue()

"""A model is preferred on validation only where it differs from the next by more than noise."""

import math
from pathlib import Path

import pytest

from score_sets import correlated_pair, random_scores
from voxlift.app.comparison import results
from voxlift.app.comparison.results import describe_validation, find_validation_noise
from voxlift.app.comparison.trial import Trial
from voxlift.app.evaluation.paired import compare_models
from voxlift.app.runs.folder import RunFolder

MODELS = {"a": {"validation_auc": 0.671}, "b": {"validation_auc": 0.672}, "c": {"validation_auc": 0.5}}


def test_noise_decides_whether_one_is_preferred():
    assert "prefers b" in describe_validation(MODELS)
    assert "prefers b" in describe_validation(MODELS, noise=0.0005)
    assert "prefers none" in describe_validation(MODELS, noise=0.05)
    assert "prefers none" in describe_validation(MODELS, noise=math.inf)


def test_the_noise_is_that_of_the_paired_difference(monkeypatch):
    first, second = correlated_pair(3)
    known = {"a": first, "b": second, "c": first}
    monkeypatch.setattr(results, "find_primary", lambda _: "auc")
    monkeypatch.setattr(results, "read_scores", lambda run, **_: known[run.path.name])
    by_model = {name: [Trial(name, 0, 0, (), RunFolder(Path(name)))] for name in known}
    (compared,) = compare_models({"b": second, "a": first}, resamples=results.VALIDATION_RESAMPLES)
    difference = compared.differences["auc"]
    noise = find_validation_noise(by_model, MODELS)
    assert noise == pytest.approx((difference.high - difference.low) / 2)
    few = random_scores(0, volumes=6)
    known |= dict.fromkeys(known, few)
    assert find_validation_noise(by_model, MODELS) == math.inf

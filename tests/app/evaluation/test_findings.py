from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, log_loss, roc_auc_score

from task_predictions import build_findings
from voxlift.app.evaluation.bootstrap import bootstrap_intervals, draw_subjects, resample_models
from voxlift.app.evaluation.delong import delong_difference
from voxlift.app.evaluation.evaluate import choose_threshold, evaluate_scores
from voxlift.app.evaluation.findings import (
    Findings,
    choose_thresholds,
    count_findings,
    delong_intervals,
    with_thresholds,
)
from voxlift.app.evaluation.metrics import score_metrics
from voxlift.app.evaluation.paired import compare_models
from voxlift.app.evaluation.paired_tests import holm
from voxlift.app.evaluation.scores import ScoresError, select_rows


def known_cells(findings, index):
    rows = ~np.isnan(findings.labels[:, index])
    return findings.labels[rows, index], findings.probabilities[rows, index]


def test_metrics_agree_with_scikit_learn_on_the_known_cells():
    findings = build_findings(0, thresholds=(0.4, 0.6))
    found = score_metrics(findings)
    for index, name in enumerate(findings.names):
        truth, p = known_cells(findings, index)
        assert len(truth) < len(findings)
        decided = p >= findings.thresholds[index]
        assert found[f"auc[{name}]"] == pytest.approx(roc_auc_score(truth, p))
        assert found[f"average_precision[{name}]"] == pytest.approx(average_precision_score(truth, p))
        assert found[f"balanced_accuracy[{name}]"] == pytest.approx(balanced_accuracy_score(truth, decided))
        assert found[f"log_loss[{name}]"] == pytest.approx(log_loss(truth, p))
    for metric in ("auc", "average_precision", "balanced_accuracy", "log_loss", "brier"):
        assert found[metric] == pytest.approx(
            np.mean([found[f"{metric}[{name}]"] for name in findings.names])
        )


def test_each_draw_of_the_mean_equals_scikit_learn_on_the_resampled_rows():
    findings = build_findings(1, count=40)
    (draws,) = resample_models([[findings]], resamples=15, seed=2)
    strata = np.zeros(40, np.int64)
    weights = np.concatenate(list(draw_subjects(strata, resamples=15, seed=2, block=15))).astype(int)
    for index, row in enumerate(weights):
        drawn = select_rows(findings, np.repeat(np.arange(40), row))
        aucs = [roc_auc_score(*known_cells(drawn, k)) for k in range(2)]
        assert draws["auc"][index] == pytest.approx(np.mean(aucs))


def test_unknown_cells_count_for_nothing():
    findings = build_findings(2)
    changed = np.where(np.isnan(findings.labels), 0.123, findings.probabilities)
    other = replace(findings, probabilities=changed)
    assert score_metrics(other) == score_metrics(findings)
    counts = count_findings(findings)["cyst"]
    assert sum(counts.values()) == len(findings)
    assert counts["unknown"] == np.isnan(findings.labels[:, 1]).sum() > 0


def test_a_finding_of_one_outcome_or_without_cells_is_left_out_of_the_mean():
    findings = build_findings(3)
    absent = findings.labels.copy()
    absent[:, 1] = 0
    found = score_metrics(replace(findings, labels=absent))
    assert np.isnan(found["auc[cyst]"])
    assert found["auc"] == found["auc[oedema]"]
    absent[:, 1] = np.nan
    found = score_metrics(replace(findings, labels=absent))
    assert "auc[cyst]" not in found
    assert found["auc"] == found["auc[oedema]"]
    block = evaluate_scores(replace(findings, labels=np.full_like(absent, np.nan)), resamples=20)
    assert block["auc"] is None


def test_thresholds_are_those_of_each_finding_alone():
    validation = build_findings(4)
    thresholds, reasons = choose_thresholds(validation)
    assert thresholds == tuple(choose_threshold(validation.finding(k)) for k in range(2))
    chosen = with_thresholds(validation, thresholds)
    np.testing.assert_array_equal(chosen.decisions, validation.probabilities >= thresholds)
    assert score_metrics(chosen)["balanced_accuracy"] >= score_metrics(validation)["balanced_accuracy"]
    labels = validation.labels.copy()
    labels[:, 1] = np.nan
    thresholds, reasons = choose_thresholds(replace(validation, labels=labels))
    assert thresholds[1] == 0.5
    assert "cyst" in reasons[1]


def test_delong_interval_agrees_with_the_bootstrap():
    findings = build_findings(5, count=400, missing=0.1)
    exact = delong_intervals(findings)
    drawn = bootstrap_intervals(findings, resamples=1000)
    for name in findings.names:
        assert exact[name] == pytest.approx(drawn[f"auc[{name}]"], abs=0.012)
    lone = np.full_like(findings.labels, np.nan)
    lone[:3, 0] = (1, 0, 0)
    assert delong_intervals(replace(findings, labels=lone)) == {}


def test_findings_are_compared_one_by_one_with_holm_and_by_their_mean():
    weak, strong = build_findings(6, strength=0.2), build_findings(7, strength=2.5)
    shuffled = select_rows(strong, np.random.default_rng(0).permutation(len(strong)))
    (found,) = compare_models({"weak": weak, "strong": shuffled}, resamples=400)
    assert found.differences["auc"].low > 0.05
    assert (found.mcnemar, found.delong, found.wilcoxon) == (None, None, None)
    expected = [delong_difference(weak.finding(k), strong.finding(k)) for k in range(2)]
    adjusted = holm([one.p_value for one in expected])
    for name, one, p_value in zip(weak.names, expected, adjusted, strict=True):
        assert found.findings[name].delong == one
        assert found.findings[name].adjusted["delong"] == pytest.approx(p_value)
        assert found.differences[f"auc[{name}]"].difference == pytest.approx(one.difference)
    assert found.smallest_class == count_findings(weak)["cyst"]["present"]


def test_unusable_findings_are_refused_by_subject():
    with pytest.raises(ScoresError, match="b"):
        Findings(["a", "b"], [[0], [2]], [[0.1], [0.2]], ("x",))
    with pytest.raises(ScoresError, match="a"):
        Findings(["a", "b"], [[0], [np.nan]], [[np.nan], [0.2]], ("x",))
    with pytest.raises(ScoresError, match="2 subjects x 1"):
        Findings(["a", "b"], [[0], [1]], [[0.1]], ("x",))
    pair = [Findings(["a", "b"], [[0], [1]], [[0.1], [0.2]], (name,)) for name in ("x", "y")]
    with pytest.raises(ScoresError, match="x and y"):
        compare_models(dict(zip("pq", pair, strict=True)))

"""A class that geometry or file format predicts is found, and one that they do not predict is not."""

from pathlib import Path

import numpy as np
import pytest

from voxlift.data_pipelines.audit.confounding import check_confounding, exact_association, separation
from voxlift.data_pipelines.audit.facts import Facts
from voxlift.data_pipelines.audit.findings import Case

CLASSES = ("cat", "dog")


def cases_with(name, values):
    """Return 24 cases, of whose facts one has the first value for one class and the second for the other."""
    plain = {"shape": (11, 7, 5), "spacing": (3.0, 2.0, 1.5), "axcodes": "RAS", "dtype": "int16"}
    return [
        Case(Facts(Path(f"{i}.nii"), **plain | {name: values[i % 2]}), f"s{i}", i % 2, None)
        for i in range(24)
    ]


@pytest.mark.parametrize(
    ("name", "values"),
    [("spacing", [(4.0, 2.0, 1.5), (3.0, 2.0, 1.5)]), ("shape", [(12, 7, 5), (11, 7, 5)])],
)
def test_a_class_that_geometry_predicts_is_found_once(name, values):
    (finding,) = check_confounding(cases_with(name, values), CLASSES)
    assert (finding.kind, finding.severity, finding.spoils) == ("confounded", "error", True)
    assert f"{name} along depth" in finding.message


def test_a_class_that_the_stored_axes_predict_is_found_and_spoils_nothing():
    findings = list(check_confounding(cases_with("axcodes", ["RAS", "LAS"]), CLASSES))
    assert {(finding.kind, finding.spoils) for finding in findings} == {("confounded", False)}
    assert any("axcodes RAS (0% of it against 100%" in finding.message for finding in findings)


def test_equal_files_predict_no_class():
    assert list(check_confounding(cases_with("axcodes", ["RAS", "RAS"]), CLASSES)) == []


def test_separation_and_association_agree_with_counting():
    labels = np.array([0, 0, 1, 1])
    assert separation(np.array([1.0, 2.0, 3.0, 4.0]), labels, 1) == (1.0, pytest.approx(1 / 3))
    assert separation(np.array([1.0, 3.0, 2.0, 4.0]), labels, 0)[0] == 0.75
    assert separation(np.ones(4), labels, 0) == (0.5, 1.0)
    assert separation(np.arange(4.0), np.zeros(4), 0) == (0.5, 1.0)
    assert exact_association(np.array([True, True, False, False]), labels, 0) == pytest.approx(1 / 3)
    assert exact_association(np.ones(4, bool), labels, 0) == 1.0

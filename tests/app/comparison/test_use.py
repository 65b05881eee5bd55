"""Use, prediction sets and sites of the models of a comparison."""

import pytest

from score_sets import random_scores
from voxlift.app.comparison.use import describe_model_sites, gather_sites, measure_sets
from voxlift.app.evaluation.conformal import measure_coverage


def site_block(auc, *, told, sites=("a", "b")):
    one = {"auc": auc, "interval": [auc - 0.1, auc + 0.1], "can_be_told": told}
    return {"sites": {"column": "site", "split": "val", "sites": list(sites), "score": one}}


def test_a_site_is_told_where_most_trainings_tell_it():
    several = gather_sites([site_block(0.7, told=True), site_block(0.6, told=True, sites=("b", "c"))])
    assert several["sites"] == ["a", "b", "c"]
    assert several["score"] == {"auc": pytest.approx(0.65), "interval": None, "told": 2, "trainings": 2}
    by_chance = gather_sites([site_block(0.62, told=True)] + 3 * [site_block(0.5, told=False)])
    warning, (headings, rows) = describe_model_sites({"one": several, "other": by_chance})
    assert "one" in warning
    assert "other" not in warning
    assert "told in" in headings
    assert [row[-1][0] for row in rows] == ["2 of 2 trainings", "1 of 4 trainings"]
    assert gather_sites([site_block(0.5, told=False), {}]) == {}
    assert describe_model_sites({"one": {}})[0] == ""


def test_the_sets_of_trainings_are_those_of_their_own_limits():
    fits = [random_scores(seed, 40) for seed in (1, 2)]
    limits = [dict.fromkeys(fits[0].classes, limit) for limit in (0.6, 0.8)]
    saved = [
        {"prediction_sets": {"coverage": 0.9, "subjects": 20, "limits": own, "counts": {}}} for own in limits
    ]
    found = measure_sets(fits, saved, "test")
    assert found["test"] == measure_coverage(fits, limits)
    assert found["trainings"] == 2
    assert measure_sets(fits, [saved[0], {}], "test") == {}

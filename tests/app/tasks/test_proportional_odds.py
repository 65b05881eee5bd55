"""The proportional odds model is that of scikit-learn for two grades, and finds planted ones for more."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime, check_grad
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from voxlift.app.tasks.base import LinearOptions
from voxlift.app.tasks.proportional_odds import (
    PenalisedLoss,
    fit_proportional_odds,
    grade_probabilities,
)
from voxlift.models.heads import append_cuts
from voxlift.models.linear import build_linear

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(300, 4))
SIGNAL = FEATURES @ [1.5, -1.0, 0.5, 0.0]
GRADES = np.digitize(SIGNAL + RNG.logistic(size=300), (-1.0, 0.0, 2.0))


def test_two_grades_are_the_logistic_regression_of_scikit_learn():
    labels = (GRADES > 1).astype(np.int64)
    for strength, balance in ((1e-3, False), (1.0, True), (1e3, False)):
        found, constant = fit_proportional_odds(
            FEATURES, labels, LinearOptions(strength, balance=balance), grades=2
        )
        weight = "balanced" if balance else None
        known = LogisticRegression(C=strength, class_weight=weight, tol=1e-8, max_iter=10_000)
        known.fit(FEATURES, labels)
        np.testing.assert_allclose(found[:, 0], known.coef_[0], atol=1e-3)
        np.testing.assert_allclose(constant, known.intercept_, atol=1e-3)


def test_gradient_and_hessian_are_those_of_the_loss():
    weights = RNG.dirichlet(np.ones(len(GRADES)))
    loss = PenalisedLoss(FEATURES, GRADES, weights, penalty=0.1)
    at, direction = RNG.normal(size=7), RNG.normal(size=7)
    assert check_grad(loss.value, loss.gradient, at) < 1e-5
    slope = approx_fprime(at, lambda x: float(loss.gradient(x) @ direction), 1e-6)
    np.testing.assert_allclose(loss.hessian_product(at, direction), slope, atol=1e-4)
    value, cuts = FEATURES @ at[:4], loss.find_cuts(at)
    above = expit(value[:, None] - np.array([-np.inf, *cuts, np.inf]))
    p = (above[:, :-1] - above[:, 1:])[np.arange(300), GRADES]
    assert loss.value(at) == pytest.approx(-weights @ np.log(p) + 0.05 * at[:4] @ at[:4])


def test_planted_coefficients_and_cuts_are_found():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(20_000, 2))
    labels = np.digitize(features @ [1.0, -0.5] + rng.logistic(size=20_000), (-1.0, 0.5))
    found, constants = fit_proportional_odds(features, labels, LinearOptions(1e6), grades=3)
    np.testing.assert_allclose(found[:, 0], [1.0, -0.5], atol=0.06)
    np.testing.assert_allclose(constants, [1.0, -0.5], atol=0.06)


def test_separated_grades_end_and_the_network_of_the_model_gives_its_probabilities():
    labels = np.digitize(SIGNAL, (-1.0, 0.0, 2.0))
    found, constants = fit_proportional_odds(
        FEATURES, labels, LinearOptions(1e3, max_iterations=10_000), grades=4
    )
    p = grade_probabilities(FEATURES @ found + constants)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert (p > -1e-12).all()
    assert (p.argmax(axis=1) == labels).mean() > 0.95
    weights = found.reshape(2, 2, 1, 1, 1)
    value = build_linear(weights, np.zeros(1), mean=np.zeros((2, 2, 1, 1)))
    outputs = append_cuts(value, (-constants).tolist()).predict(FEATURES.reshape(-1, 2, 2, 1, 1), verbose=0)
    np.testing.assert_allclose(np.exp(outputs), p, atol=1e-5)

"""Predictions of findings, grades and numbers for tests, with planted strength of the model."""

import numpy as np
from scipy.special import expit, softmax

from voxlift.app.evaluation.findings import Findings
from voxlift.app.evaluation.grades import Grades
from voxlift.app.evaluation.numbers import Numbers


def name_subjects(count, volumes=1):
    """Return s000, s001, ... with each name `volumes` times in turn."""
    return [f"s{index // volumes:03d}" for index in range(count)]


def build_findings(seed, *, strength=1.0, count=80, missing=0.2, volumes=1, **options):
    """Two findings, `oedema` (frequent) and `cyst` (rarer), with a share of cells unknown."""
    truth_rng, rng = np.random.default_rng(1000), np.random.default_rng(seed)
    labels = (truth_rng.random((count, 2)) < (0.5, 0.3)).astype(float)
    labels[truth_rng.random((count, 2)) < missing] = np.nan
    centred = np.nan_to_num(labels, nan=0.5) - 0.5
    p = expit(2 * strength * centred + rng.normal(size=(count, 2)))
    return Findings(name_subjects(count, volumes), labels, p, ("oedema", "cyst"), **options)


def build_grades(seed, *, strength=1.0, count=90, volumes=1):
    """Four grades, `none` to `severe`, whose probability falls with the distance from the true one."""
    labels = np.arange(count) % 4
    rng = np.random.default_rng(seed)
    position = labels + rng.normal(size=count) / strength
    logits = -((position[:, None] - np.arange(4)) ** 2)
    return Grades(
        name_subjects(count, volumes), labels, softmax(logits, axis=1), ("none", "mild", "moderate", "severe")
    )


def build_numbers(seed, *, noise=5.0, count=80, volumes=1, **options):
    """Ages around 60 years, predicted with a slope below 1 and with noise."""
    age = np.random.default_rng(1000).normal(60, 10, count)
    predicted = 60 + 0.7 * (age - 60) + np.random.default_rng(seed).normal(0, noise, count)
    return Numbers(name_subjects(count, volumes), age, predicted, **options)

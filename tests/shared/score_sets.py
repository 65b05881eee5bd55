"""Scores for tests: of two classes `no` and `yes` unless named otherwise, and pairs of models."""

import numpy as np
from scipy.special import softmax

from voxlift.app.evaluation.scores import Scores


def build_scores(labels, p_yes, subjects=None, threshold=0.5):
    """One volume per subject (s000, s001, ...) unless subjects are named."""
    p_yes = np.asarray(p_yes, dtype=float)
    names = subjects if subjects is not None else [f"s{index:03d}" for index in range(len(labels))]
    return Scores(names, labels, np.stack([1 - p_yes, p_yes], axis=1), ("no", "yes"), threshold=threshold)


def random_scores(seed, volumes=60, separation=1.0):
    """Balanced labels, and logits of unit variance that lie `separation` apart between the classes."""
    labels = np.arange(volumes) % 2
    logits = np.random.default_rng(seed).normal(separation * (labels - 0.5), 1)
    return build_scores(labels, 1 / (1 + np.exp(-logits)))


def correlated_pair(seed, volumes=60, separations=(1.0, 1.0), *, shared=0.7):
    """Two models on the same subjects whose errors correlate, with the separation of the classes of each."""
    rng = np.random.default_rng(seed)
    labels = np.arange(volumes) % 2
    common = rng.normal(size=volumes)
    models = []
    for separation in separations:
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=volumes)
        models.append(build_scores(labels, 1 / (1 + np.exp(-(separation * (labels - 0.5) + noise)))))
    return tuple(models)


def three_class_pair(seed, volumes=90):
    """A weak and a strong model of three classes on the same subjects."""
    rng = np.random.default_rng(seed)
    labels = np.arange(volumes) % 3
    models = []
    for strength in (0.2, 2.5):
        p = softmax(rng.normal(size=(volumes, 3)) + strength * np.eye(3)[labels], axis=1)
        models.append(Scores([f"s{i}" for i in range(volumes)], labels, p, "xyz"))
    return tuple(models)

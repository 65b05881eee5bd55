"""Whether a linear model predicts the site of a volume from the network's score or features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.evaluation.bootstrap import draw_subjects, percentile_interval
from voxlift.app.evaluation.metrics import divide, rank_scores, weighted_roc_auc
from voxlift.app.evaluation.scores import Floats, Integers

FOLDS = 5
RESAMPLES = 1000


def select_sites(sites: Sequence[str], subjects: Sequence[str], *, least: int) -> NDArray[np.bool_]:
    """Return which volumes [N] are of sites with enough subjects; none where fewer than two sites have.

    Args:
        sites: N names.
        subjects: N names.
        least: Fewest subjects of a site.
    """
    names = np.array(sites, dtype=object)
    counts = {
        site: len({s for s, own in zip(subjects, sites, strict=True) if own == site}) for site in set(sites)
    }
    kept = [site for site, count in counts.items() if count >= least]
    return np.isin(names, kept) if len(kept) > 1 else np.zeros(len(names), bool)


def predict_sites(
    features: Floats, sites: Sequence[str], subjects: Sequence[str], labels: Integers, *, seed: int = 0
) -> dict[str, Any]:
    """Return how well a linear model predicts the site, cross-validated by subject: ROC AUC with interval.

    Sites with more cases have other scores for a good reason. So the AUC, of each site against the rest, is
    taken among volumes of the same label only, then averaged over labels and sites, weighted by the pairs.
    The interval resamples subjects; the linear models are not fitted again.

    Args:
        features: [N, F].
        sites: N names; at least two, of `FOLDS` subjects each.
        subjects: N names.
        labels: [N] class indices; zeros where there are no classes.
        seed: Of the folds and resamples.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names, codes = np.unique(np.array(sites, dtype=object).astype(str), return_inverse=True)
    logits = np.zeros((len(codes), len(names)))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(features, codes, np.array(subjects)):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(features[train], codes[train])
        probabilities = model.predict_proba(features[test])
        logits[np.ix_(test, model.classes_)] = np.log(np.maximum(probabilities, 1e-12))
    unique, rows = np.unique(np.array(subjects).astype(str), return_inverse=True)
    strata = np.array([codes[rows == index][0] for index in range(len(unique))], np.int64)
    drawn = np.concatenate([*draw_subjects(strata, resamples=RESAMPLES, seed=seed, block=RESAMPLES)])
    value = _auc_within_labels(logits, codes, labels, np.ones((1, len(codes))))
    low, high = percentile_interval(_auc_within_labels(logits, codes, labels, drawn[:, rows]))
    return {
        "auc": float(value[0]) if math.isfinite(value[0]) else None,
        "interval": [low, high] if math.isfinite(low) else None,
        "can_be_told": bool(low > 0.5),
    }


def _auc_within_labels(logits: Floats, codes: Integers, labels: Integers, weights: Floats) -> Floats:
    """Return the AUC [B] of each site against the rest among volumes of one label, averaged by pairs."""
    total, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for label in np.unique(labels):
        own = labels == label
        for site in range(logits.shape[1]):
            is_site = codes[own] == site
            if not is_site.any() or is_site.all():
                continue
            drawn = weights[:, own]
            count = (drawn @ is_site.astype(float)) * (drawn @ (~is_site).astype(float))
            auc = weighted_roc_auc(rank_scores(logits[own, site]), is_site, drawn)
            total += np.where(count > 0, np.nan_to_num(auc) * count, 0.0)
            pairs += count
    return divide(total, pairs)

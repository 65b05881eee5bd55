"""Does the comparison call equal models equal? The same network trained with two seeds, on 200 data sets."""

import numpy as np
import pytest
from scipy import stats

from voxlift.app.evaluation.paired import compare_models
from voxlift.app.evaluation.scores import Scores

SHAPE = (6, 8, 7, 1)  # depth, height, width, channels
TRAINING, TEST = 60, 80


def draw_plain(rng, count):
    """Noise with a weak bright region in class 1: what any network can learn, and none perfectly."""
    labels = np.arange(count) % 2
    volumes = rng.normal(size=(count, *SHAPE))
    volumes[:, 1:5, 2:6, 2:5] += 0.12 * (2 * labels - 1)[:, None, None, None, None]
    return volumes.astype(np.float32), labels


def draw_depth(rng, count):
    """Slices of random brightness that follow each other alike (class 1) or in turns (class 0).

    A slice alone is bright or dark by chance in both classes.
    """
    labels = np.arange(count) % 2
    volumes = 0.5 * rng.normal(size=(count, *SHAPE))
    sign = rng.choice([-1.0, 1.0], size=count)[:, None] * np.ones(SHAPE[0])
    sign[labels == 0] *= (-1.0) ** np.arange(SHAPE[0])
    return (volumes + sign[:, :, None, None, None]).astype(np.float32), labels


class Trainer:
    """One network, compiled once; each training starts from weights drawn with its seed."""

    def __init__(self, kind):
        import keras

        from voxlift.models.baselines import build_baseline
        from voxlift.models.lifting import plan_lift
        from voxlift.models.slice_model import wrap_slices

        def build():
            plane = build_baseline("cnn", input_shape=SHAPE[1:], classes=2, filters=(4, 6, 8), dropout=0.0)
            if kind == "slice":
                return wrap_slices(plane, input_shape=SHAPE)
            return plan_lift(plane, depth=SHAPE[0], depth_policy="preserve", init="random").build()

        self.keras, self.build, self.network = keras, build, build()
        self.network.compile(
            keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        self.network.optimizer.build(self.network.trainable_variables)

    def score(self, train, test, *, seed, steps):
        """The test scores after a training of so many steps, 20 volumes each."""
        self.keras.utils.set_random_seed(seed)
        self.network.set_weights(self.build().get_weights())
        for variable in self.network.optimizer.variables:
            if variable.path.rpartition("/")[2] != "learning_rate":
                variable.assign(np.zeros(variable.shape))
        rng = np.random.default_rng(seed)
        for _ in range(steps):
            rows = rng.choice(len(train[1]), 20, replace=False)
            self.network.train_on_batch(train[0][rows], train[1][rows])
        logits = np.asarray(self.network.predict_on_batch(test[0]), np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        names = [f"s{row:03d}" for row in range(len(test[1]))]
        return Scores(names, test[1], powers / powers.sum(axis=1, keepdims=True), ("no", "yes"))


def p_values(first, second, **options):
    (found,) = compare_models({"a": first, "b": second}, resamples=1000, **options)
    return {
        "bootstrap": found.differences["auc"].p_value,
        "delong": found.delong.p_value,
        "mcnemar": found.mcnemar.mid_p,
    }


@pytest.mark.slow
def test_the_same_network_with_two_seeds_differs_significantly_in_about_five_percent_of_200_data_sets():
    trainer = Trainer("volume")
    found, aucs = [], []
    for number in range(200):
        rng = np.random.default_rng([7, number])
        train, test = draw_plain(rng, TRAINING), draw_plain(rng, TEST)
        first, second = (trainer.score(train, test, seed=2 * number + k, steps=40) for k in (0, 1))
        found.append(p_values(first, second))
        aucs.append([compare_auc(first), compare_auc(second)])
    rejected = {name: sum(one[name] < 0.05 for one in found) for name in found[0]}
    print(f"mean AUC {np.mean(aucs):.3f}; rejected at 5 % in 200 data sets: {rejected}")  # noqa: T201 - for pytest -s
    low, high = stats.binom.ppf([0.0005, 0.9995], 200, 0.05)
    assert 0.6 < np.mean(aucs) < 0.95
    for name, count in rejected.items():
        assert low <= count <= high, (name, count)


def compare_auc(scores):
    from voxlift.app.evaluation.metrics import score_metrics

    return score_metrics(scores)["auc"]


@pytest.mark.slow
def test_a_difference_that_lies_in_depth_is_found_in_nearly_every_data_set():
    slices, volumes = Trainer("slice"), Trainer("volume")
    found = []
    for number in range(20):
        rng = np.random.default_rng([8, number])
        train, test = draw_depth(rng, TRAINING), draw_depth(rng, TEST)
        first = slices.score(train, test, seed=number, steps=60)
        second = volumes.score(train, test, seed=number, steps=60)
        found.append(p_values(first, second))
    detected = {name: sum(one[name] < 0.05 for one in found) for name in found[0]}
    print(f"planted difference found at 5 % in 20 data sets: {detected}")  # noqa: T201 - for pytest -s
    assert min(detected.values()) >= 18

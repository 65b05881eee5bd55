"""Columns of the table become numbers as the training subjects say, and the same ones from a saved file."""

import json
import math

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PowerTransformer

from voxlift.app.data.columns import NumberColumn, WordColumn, fit_encoder, read_encoder

NAN = float("nan")
NAMES = ("volume", "sex", "age", "site")
TRAIN = np.arange(40)


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    found = np.empty((60, 4), object)
    found[:, 0] = list(rng.lognormal(size=60) * 10)
    found[:, 1] = [*"FM"] * 30
    found[:, 2] = list(rng.normal(50, 10, size=60))
    found[:, 3] = [*"abc"] * 20
    found[::7, 0], found[::9, 1] = NAN, NAN
    found[50, 2], found[51, 3] = NAN, "new"  # gaps and words that no training subject has
    return found


def test_features_are_those_of_scikit_learn(cells):
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), PowerTransformer())
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="(missing)"),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    )
    reference = ColumnTransformer([("numbers", numbers, [0, 2]), ("words", words, [1, 3])])
    expected = reference.fit(cells[TRAIN]).transform(cells).astype(np.float64)
    encoder = fit_encoder(cells[TRAIN], NAMES)
    np.testing.assert_allclose(encoder.encode(cells), expected, atol=1e-12)
    assert encoder.features == (
        *("volume", "age", "volume missing"),
        *("sex=(missing)", "sex=F", "sex=M", "site=a", "site=b", "site=c"),
    )


def test_a_saved_encoder_gives_the_same_features_of_text(cells):
    encoder = fit_encoder(cells[TRAIN], NAMES)
    read = read_encoder(json.loads(json.dumps(encoder.as_json())))
    assert read == encoder
    texts = np.array([["" if cell is NAN else str(cell) for cell in row] for row in cells], object)
    np.testing.assert_array_equal(read.encode(texts), encoder.encode(cells))
    np.testing.assert_array_equal(
        read.encode_gaps(2), read.encode(np.array([["", "n/a", "NaN", ""]] * 2, object))
    )


def test_training_subjects_alone_say_what_a_column_is():
    train = np.array([["1"], ["2"], ["4"]], object)
    encoder = fit_encoder(train, ("score",))
    assert isinstance(encoder.columns[0], NumberColumn)
    gap = encoder.encode(np.array([["high"]], object))
    np.testing.assert_array_equal(gap, encoder.encode(np.array([["2"]], object)))  # the median
    words = fit_encoder(np.array([["1"], ["high"]], object), ("score",))
    assert words.columns == (WordColumn("score", ("1", "high")),)
    assert fit_encoder(np.full((3, 1), 5.0, object), ("same",)).encode(train).shape == (3, 1)
    assert np.isfinite(fit_encoder(np.full((3, 1), NAN, object), ("empty",)).encode(train)).all()


def test_a_limit_counts_as_its_number_in_a_column_of_numbers_alone():
    cells = np.array([["50.0", "1+"], ["61.5", "2+"], ["89+", "3"], [math.nan, "1+"]], object)
    encoder = fit_encoder(cells, ("age", "grade"))
    assert encoder.features == ("age", "age missing", "grade=1+", "grade=2+", "grade=3")
    as_number = np.array([["89", "3"]], object)
    np.testing.assert_allclose(encoder.encode(cells[2:3]), encoder.encode(as_number))


def test_the_cells_that_turn_a_column_of_numbers_into_words_are_named(caplog):
    cells = np.array([["50"], ["61"], ["sixty"], [""], ["72"]], object)
    assert isinstance(fit_encoder(cells, ("age",)).columns[0], WordColumn)
    assert "age" in caplog.text
    assert "'sixty'" in caplog.text
    assert "'61'" not in caplog.text


def test_what_training_has_not_seen_is_named(cells):
    encoder = fit_encoder(cells[TRAIN], NAMES)
    assert encoder.find_unusual(["", "", "50", "a"]) == []
    phrases = encoder.find_unusual(["1e6", "X", "", "(missing)"])
    assert [phrase.split()[0] for phrase in phrases] == ["volume", "sex", "age", "site"]

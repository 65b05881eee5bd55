"""The suggestion for a misspelt key comes from the same command and the chosen option, or names its owner."""

import pytest

from voxlift.app.config import register_schemas
from voxlift.app.config.keys import list_known_keys, suggest_key


@pytest.fixture(autouse=True)
def schemas():
    register_schemas()


def test_the_suggestion_for_a_misspelt_key_names_the_meant_one():
    search = ["study=search"]
    for key, command, arguments, meant in [
        ("trainer.epoch", "train", [], "trainer.epochs?"),
        ("outptu", "predict", [], "output?"),
        ("epochs", "train", [], "trainer.epochs?"),
        ("epoch", "train", [], "trainer.epochs?"),
        ("study.trails", "study", search, "study.trials?"),
        ("study.batch_size", "study", [], "study.batch_sizes?"),
        ("study.epoch", "study", ["study=complexity", *search], "study.epochs?"),
        ("study.trials", "study", ["study=complexity"], "study=search."),
        ("study.seeds", "study", search, "study=shortcuts."),
        ("modle.init", "study", search, "model.init?"),
    ]:
        assert suggest_key(key, command, arguments).endswith(f" {meant}"), key
    assert suggest_key("zzzzzzzz", "train") == suggest_key("data.zzzzzz", "train") == ""


def test_no_key_of_another_command_is_suggested():
    assert "models" in list_known_keys("compare_schema.yaml")
    assert "models" not in list_known_keys("train_schema.yaml")
    assert list_known_keys("unknown_schema.yaml") == []

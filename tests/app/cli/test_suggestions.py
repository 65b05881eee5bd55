"""What is suggested for a misspelt key: one of the same command, of the chosen option, or who has it."""

import pytest

from voxlift.app.config import register_schemas
from voxlift.app.config.commands import register_study_schemas
from voxlift.app.config.suggestions import known_keys, suggest_key


@pytest.fixture(autouse=True)
def schemas():
    register_schemas()
    register_study_schemas()


@pytest.mark.parametrize(
    ("key", "command", "arguments", "meant"),
    [
        ("trainer.epoch", "train", [], " Did you mean trainer.epochs?"),
        ("outptu", "predict", [], " Did you mean output?"),
        ("epochs", "train", [], " Did you mean trainer.epochs?"),
        ("epoch", "train", [], " Did you mean trainer.epochs?"),
        ("study.trails", "study", ["study=search"], " Did you mean study.trials?"),
        ("study.batch_size", "study", [], " Did you mean study.batch_sizes?"),
        ("study.epoch", "study", ["study=complexity", "study=search"], " Did you mean study.epochs?"),
        ("study.trials", "study", ["study=complexity"], " It is a key of study=search."),
        (
            "study.seeds",
            "study",
            ["study=search"],
            " It is a key of study=batch_size and study=architecture.",
        ),
        ("modle.init", "study", ["study=search"], " Did you mean model.init?"),
        ("zzzzzzzz", "train", [], ""),
    ],
)
def test_a_key_that_is_near_is_suggested(key, command, arguments, meant):
    assert suggest_key(key, command, arguments) == meant


def test_no_key_of_another_command_is_suggested():
    assert "models" in known_keys("compare_schema.yaml")
    assert "models" not in known_keys("train_schema.yaml")
    assert known_keys("unheard_schema.yaml") == []

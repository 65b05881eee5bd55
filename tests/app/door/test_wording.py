"""Values of the wrong kind are told in the user's words, with the key and what it expects."""

import pytest
from hydra.errors import HydraException

from app.door.wording import explain
from commands import compose_command


@pytest.mark.parametrize(
    ("command", "override", "told"),
    [
        ("train", "trainer.epochs=abc", "trainer.epochs: expected a whole number; received abc."),
        (
            "train",
            "optimizer.learning_rate=fast",
            "optimizer.learning_rate: expected a number; received fast.",
        ),
        ("train", "debug=maybe", "debug: expected true or false; received maybe."),
        ("train", "trainer.epochs=null", "trainer.epochs: expected a value; received null."),
        ("train", "model.filters=[a,b]", "model.filters: expected a whole number; received [a,b]."),
        ("train", "trainer=5", "trainer: expected a group of keys, each set by itself; received 5."),
        (
            "train",
            "optimizer.options=3",
            "optimizer.options: expected a group of keys, each set by itself; received 3.",
        ),
        ("compare", "seeds=1", "seeds: expected a list; received 1. Write 'seeds=[1]'."),
    ],
)
def test_a_value_of_another_kind_is_told_with_what_is_expected(command, override, told):
    with pytest.raises(HydraException) as found:
        compose_command(command, override)
    assert explain(found.value, command=command) == told

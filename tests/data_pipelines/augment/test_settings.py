import dataclasses
import subprocess
import sys

import pytest

from voxlift.data_pipelines.augment import PRESETS, Augment, changes_handedness, light, strong


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_passes_its_own_check_and_is_made_of_plain_values(name):
    settings = PRESETS[name]()
    settings.check()
    for value in dataclasses.asdict(settings).values():
        items = value if isinstance(value, tuple) else (value,)
        assert all(type(item) in (bool, int, float) for item in items)


def test_defaults_and_the_preset_none_vary_nothing():
    assert PRESETS["none"]() == Augment()
    assert not any(
        any(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(Augment()).items()
        if name.endswith("_prob")
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"noise_prob": 1.5}, r"noise_prob: .*0\.\.1.* 1\.5"),
        ({"flip_prob": (0.0, 0.0)}, r"flip_prob: .* 3 .*\(0\.0, 0\.0\)"),
        ({"flip_prob": 0.5}, r"flip_prob: .* 3 .*0\.5"),
        ({"scale": (1.2, 0.8)}, r"scale: .*\(1\.2, 0\.8\)"),
        ({"scale": (0.0, 1.0)}, r"scale: .*0\.2\.\.5"),
        ({"gamma": (1.0, float("nan"))}, "gamma: "),
        ({"shift_voxels": (1, 2.5, 0)}, r"shift_voxels: .* 3 .*2\.5"),
        ({"keep_handedness": 1}, r"keep_handedness: .* 1$"),
        ({"noise_prob": True}, r"noise_prob: .*True"),
        ({"cutout_boxes": 0}, r"cutout_boxes: .*1\.\.64.* 0$"),
        ({"elastic_mm": 20.0, "elastic_node_mm": 40.0}, r"elastic_mm: .*16\.13.*elastic_node_mm"),
    ],
)
def test_an_invalid_value_is_named_with_its_field_and_range(changed, message):
    with pytest.raises(ValueError, match=message):
        Augment(**changed).check()


def test_lists_and_integers_of_a_configuration_file_are_the_same_settings():
    listed = Augment(flip_prob=[0, 0, 1], shift_voxels=[1, 2, 3], noise_prob=1, cutout_boxes=2)
    plain = Augment(flip_prob=(0.0, 0.0, 1.0), shift_voxels=(1, 2, 3), noise_prob=1.0, cutout_boxes=2)
    assert listed == plain
    assert hash(listed) == hash(plain)
    assert [type(value) for value in (*listed.flip_prob, *listed.shift_voxels)] == [float] * 3 + [int] * 3


def test_all_problems_come_in_one_message_ten_at_most():
    wrong = {name: 2.0 for name in Augment.__dataclass_fields__ if name.endswith("_prob")} | {"fill": 0.0}
    with pytest.raises(ValueError, match=r"flip_prob: .*; lowres_prob: .*; and 5 more$") as caught:
        Augment(**wrong).check()
    assert str(caught.value).count("expected") == 10


def test_handedness_is_warned_about_exactly_where_something_mirrors():
    assert not changes_handedness(light())
    assert changes_handedness(strong())
    assert not changes_handedness(dataclasses.replace(strong(), keep_handedness=True))
    assert changes_handedness(Augment(flip_prob=(0.1, 0.0, 0.0)))
    assert changes_handedness(Augment(permute_prob=0.5))
    assert not changes_handedness(Augment(turn_prob=(1.0, 1.0, 1.0)))


def test_the_settings_do_not_import_tensorflow():
    code = "import sys, voxlift.data_pipelines.augment; print('tensorflow' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )

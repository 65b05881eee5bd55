"""Every transform is deterministic by seed, replayable, keeps shape and type, and is off by default."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from voxlift.data_pipelines.augment import Augment, light, strong
from voxlift.data_pipelines.augment.build import apply_augment, build_augment, draw_augment
from voxlift.data_pipelines.augment.transform import count_seeds, draw_uniform, scale_to_index

SPACING = (3.0, 1.5, 0.8)
SHAPE = (5, 7, 11, 2)
VOXELS = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
TRANSFORMS = {
    "flip": {"flip_prob": (0.5, 0.5, 0.5)},
    "turn": {"turn_prob": (0.5, 0.5, 0.5)},
    "affine": {
        "affine_prob": 1.0,
        "rotation_degrees": (20.0, 20.0, 20.0),
        "scale": (0.8, 1.2),
        "shear": (0.1, 0.1, 0.1),
        "translation_mm": (3.0, 3.0, 3.0),
    },
    "crop": {"crop_prob": 1.0, "crop_fraction": (0.5, 0.9)},
    "elastic": {"elastic_prob": 1.0, "elastic_mm": 2.0, "elastic_node_mm": 8.0},
    "shift": {"shift_prob": 1.0, "shift_voxels": (2, 3, 4)},
    "bias": {"bias_prob": 1.0, "bias_strength": 0.5},
    "blur": {"blur_prob": 1.0, "blur_sigma_mm": (0.5, 3.0)},
    "lowres": {"lowres_prob": 1.0, "lowres_factor": (1.5, 4.0)},
    "noise": {"noise_prob": 1.0, "noise_sd": (0.1, 0.3)},
    "gamma": {"gamma_prob": 1.0, "gamma": (0.5, 2.0)},
    "contrast": {"contrast_prob": 1.0, "contrast": (0.5, 2.0)},
    "brightness": {"brightness_prob": 1.0, "brightness": 0.5},
    "cutout": {"cutout_prob": 1.0, "cutout_fraction": (0.2, 0.6)},
}
EVERYTHING = Augment(**{name: value for fields in TRANSFORMS.values() for name, value in fields.items()})
SETTINGS = [pytest.param(Augment(**fields), id=name) for name, fields in TRANSFORMS.items()]
SETTINGS += [pytest.param(EVERYTHING, id="everything"), pytest.param(strong(), id="strong")]


def vary(settings, seed, voxels=VOXELS):
    return build_augment(settings, spacing=SPACING)(tf.constant(voxels), tf.constant(seed)).numpy()


@pytest.mark.parametrize("settings", SETTINGS)
def test_one_seed_gives_one_result_eagerly_in_a_graph_and_in_a_parallel_map(settings):
    augment = build_augment(settings, spacing=SPACING)
    numbers = tf.data.Dataset.range(6).map(lambda index: tf.stack([4, tf.cast(index, tf.int32)]))
    mapped = numbers.map(lambda seed: augment(tf.constant(VOXELS), seed), num_parallel_calls=3)
    results = list(mapped.as_numpy_iterator())
    np.testing.assert_array_equal(results, list(mapped.as_numpy_iterator()))
    assert len({result.tobytes() for result in results}) > 1, "every element was varied alike"
    # The rewriters of a function and of a data set round some operations otherwise than eager execution does.
    graph = tf.function(augment)(tf.constant(VOXELS), tf.constant([4, 5]))
    np.testing.assert_allclose(graph, results[5], atol=2e-5)
    np.testing.assert_allclose(vary(settings, [4, 5]), results[5], atol=2e-5)


def test_the_number_of_workers_does_not_matter():
    augment = build_augment(EVERYTHING, spacing=SPACING)
    volumes = tf.data.Dataset.from_tensors(tf.constant(VOXELS)).repeat(6)
    seeded = tf.data.Dataset.zip(volumes, count_seeds(1))
    one, three = (list(seeded.map(augment, num_parallel_calls=n).as_numpy_iterator()) for n in (1, 3))
    np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize("settings", SETTINGS)
def test_drawn_parameters_replay_the_result_exactly(settings):
    drawn = draw_augment(settings, SHAPE, spacing=SPACING, seed=[3, 1])
    np.testing.assert_array_equal(apply_augment(VOXELS, drawn, settings), vary(settings, [3, 1]))


@pytest.mark.parametrize("settings", SETTINGS)
def test_static_shape_type_and_finiteness_are_kept_for_volumes_and_slices(settings):
    for shape in (SHAPE, SHAPE[1:], *([(1, 1, 11, 1)] if settings == EVERYTHING else [])):
        dataset = tf.data.Dataset.from_tensors(tf.ones(shape)).map(
            lambda voxels: build_augment(settings, spacing=SPACING)(voxels, tf.constant([1, 2]))
        )
        assert dataset.element_spec == tf.TensorSpec(shape, tf.float32)
        assert np.isfinite(next(dataset.as_numpy_iterator())).all()


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e-4, 1e4])
def test_any_intensity_scale_is_safe(scale):
    voxels = (VOXELS - VOXELS.mean()) * np.float32(scale)
    varied = vary(EVERYTHING, [1, 2], voxels)
    assert np.isfinite(varied).all()
    assert np.abs(varied).max() <= 6 * np.abs(voxels).max()


def test_intensity_transforms_commute_with_a_change_of_unit():
    intensity = ("bias", "blur", "lowres", "noise", "gamma", "contrast", "brightness")
    settings = Augment(**{name: value for each in intensity for name, value in TRANSFORMS[each].items()})
    changed = vary(settings, [1, 2], VOXELS * 3 - 2)
    np.testing.assert_allclose(changed, vary(settings, [1, 2]) * 3 - 2, atol=1e-3)


def test_ranges_of_zero_change_nothing_even_at_probability_one():
    zero = Augment(
        **{
            f.name: 1.0
            for f in dataclasses.fields(Augment)
            if f.name.endswith("_prob") and not isinstance(f.default, tuple)
        }
        | {"permute_prob": 0.0}
    )
    np.testing.assert_array_equal(vary(zero, [1, 2]), VOXELS)
    np.testing.assert_array_equal(vary(Augment(), [1, 2]), VOXELS)


def test_probability_zero_never_acts_and_one_always():
    wide = {f"{name}_prob": 0.0 for name in TRANSFORMS if name not in ("flip", "turn")}
    never = dataclasses.replace(EVERYTHING, flip_prob=(0.0,) * 3, turn_prob=(0.0,) * 3, **wide)
    np.testing.assert_array_equal(vary(never, [1, 2]), VOXELS)
    draw = tf.function(
        lambda seed: draw_augment(
            dataclasses.replace(EVERYTHING, blur_prob=0.3), SHAPE, spacing=SPACING, seed=seed
        )
    )
    drawn = [draw(tf.constant([0, seed])) for seed in range(100)]
    assert 0.15 < np.mean([float(one["blur_sigma_mm"]) > 0 for one in drawn]) < 0.45
    assert all(float(one["noise_sd"]) > 0 for one in drawn)


def test_switching_a_transform_leaves_the_draws_of_the_others():
    alone = draw_augment(Augment(**TRANSFORMS["blur"]), SHAPE, spacing=SPACING, seed=[3, 1])["blur_sigma_mm"]
    among = draw_augment(EVERYTHING, SHAPE, spacing=SPACING, seed=[3, 1])["blur_sigma_mm"]
    assert float(alone) == float(among)


def test_epochs_and_elements_differ_and_a_resumed_run_continues():
    seeds = [tuple(seed) for seed in count_seeds(5).take(100).as_numpy_iterator()]
    assert len(set(seeds)) == 100
    assert [tuple(seed) for seed in count_seeds(5, start=40).take(60).as_numpy_iterator()] == seeds[40:]
    assert [tuple(seed) for seed in count_seeds((0, 5)).take(100).as_numpy_iterator()] == seeds
    assert not set(seeds) & {tuple(seed) for seed in count_seeds(6).take(100).as_numpy_iterator()}
    volumes = tf.data.Dataset.from_tensors(tf.constant(VOXELS)).repeat(4)
    pipeline = tf.data.Dataset.zip(volumes, count_seeds(5)).map(
        build_augment(light(), spacing=SPACING), num_parallel_calls=2
    )
    assert len({volume.tobytes() for volume in pipeline.as_numpy_iterator()}) == 4


def test_drawn_indices_stay_below_their_count():
    assert int(scale_to_index(tf.constant(np.nextafter(np.float32(1), np.float32(0))), 3)) == 2
    assert all(0.0 <= float(number) < 1.0 for number in draw_uniform(tf.constant([1, 2]), 5))


def test_invalid_input_is_refused():
    augment = build_augment(light(), spacing=SPACING)
    with pytest.raises(ValueError, match=r"float32.*float16"):
        augment(tf.zeros((5, 7, 11, 1), tf.float16), tf.constant([1, 2]))
    with pytest.raises(ValueError, match=r"\(2, 5, 7, 11, 1\)"):
        augment(tf.zeros((2, 5, 7, 11, 1)), tf.constant([1, 2]))
    with pytest.raises(ValueError, match=r"\(None, 7, 11, 1\)"):
        tf.function(
            augment, input_signature=[tf.TensorSpec((None, 7, 11, 1)), tf.TensorSpec((2,), tf.int32)]
        )(tf.zeros((5, 7, 11, 1)), tf.constant([1, 2]))
    for spacing in ((1.0, 1.0), (1.0, 0.0, 1.0), (1.0, float("nan"), 1.0)):
        with pytest.raises(ValueError, match=r"spacing.*mm"):
            build_augment(light(), spacing=spacing)
    with pytest.raises(ValueError, match="noise_prob"):
        build_augment(Augment(noise_prob=2.0), spacing=SPACING)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_mask_is_moved_with_the_image_and_keeps_its_values(settings):
    grid = np.indices(SHAPE[:3])
    mask = (np.abs(grid - np.array([2, 3, 5])[:, None, None, None]).max(axis=0) <= 1).astype(np.float32)
    voxels = np.concatenate([VOXELS, mask[..., None]], axis=-1)
    drawn = draw_augment(settings, voxels.shape, spacing=SPACING, seed=[3, 1])
    varied = apply_augment(voxels, drawn, settings, masks=1).numpy()
    assert varied.shape == voxels.shape
    np.testing.assert_array_equal(varied[..., :2], apply_augment(VOXELS, drawn, settings).numpy())
    assert set(np.unique(varied[..., 2])) <= {0.0, 1.0}
    # Moved as an image, the mask is exactly 1 or 0 away from its rim: there the nearest voxel is the same.
    still = {"bias", "blur", "lowres", "noise", "gamma", "contrast", "brightness", "cutout"}
    off = {f"{name}_prob": 0.0 for name in still}
    moving = dataclasses.replace(settings, **off, fill_minimum=False, fill=0.0)
    moved = apply_augment(mask[..., None], drawn, moving).numpy()[..., 0]
    assert varied[..., 2][moved > 1 - 1e-4].all()
    assert not varied[..., 2][moved < 1e-4].any()
    if all(getattr(moving, name) == 0.0 for name in ("affine_prob", "crop_prob", "elastic_prob")):
        np.testing.assert_array_equal(varied[..., 2], moved)

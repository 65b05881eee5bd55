"""Augmentation presets; a configuration file of the same name holds the same values."""

from collections.abc import Callable

from voxlift.data_pipelines.augment.settings import Augment


def none() -> Augment:
    """Return settings that vary nothing."""
    return Augment()


def light() -> Augment:
    """Return small movements and small changes of intensity, safe for any label.

    Nothing is mirrored: a left-right flip is plausible anatomy, but where the label is a side or a
    handedness it changes the label unnoticed. Switch it on with `flip_prob=(0, 0, 0.5)` where
    sides do not matter.
    """
    return Augment(
        affine_prob=0.8,
        rotation_degrees=(10.0, 5.0, 5.0),
        scale=(0.9, 1.1),
        translation_mm=(4.0, 4.0, 4.0),
        noise_prob=0.3,
        noise_sd=(0.0, 0.1),
        gamma_prob=0.3,
        gamma=(0.8, 1.25),
        contrast_prob=0.3,
        contrast=(0.9, 1.11),
        brightness_prob=0.3,
        brightness=0.1,
    )


def strong() -> Augment:
    """Return all transforms that suit a scan, for small training sets.

    **Left and right are mirrored** half the time.

    Where the label is a side or a handedness set `keep_handedness=True`. Right-angle turns, axis
    permutations and mixup stay off: no patient lies in the scanner like that, and mixup needs soft labels.
    """
    return Augment(
        flip_prob=(0.0, 0.0, 0.5),
        affine_prob=0.9,
        rotation_degrees=(25.0, 15.0, 15.0),
        scale=(0.8, 1.25),
        shear=(0.05, 0.05, 0.05),
        translation_mm=(8.0, 8.0, 8.0),
        crop_prob=0.2,
        crop_fraction=(0.8, 1.0),
        elastic_prob=0.3,
        elastic_mm=6.0,
        elastic_node_mm=40.0,
        bias_prob=0.2,
        bias_strength=0.4,
        blur_prob=0.2,
        blur_sigma_mm=(0.0, 1.5),
        lowres_prob=0.2,
        lowres_factor=(1.0, 3.0),
        noise_prob=0.4,
        noise_sd=(0.0, 0.25),
        gamma_prob=0.4,
        gamma=(0.67, 1.5),
        contrast_prob=0.4,
        contrast=(0.75, 1.33),
        brightness_prob=0.4,
        brightness=0.25,
        cutout_prob=0.2,
        cutout_fraction=(0.1, 0.3),
        cutout_boxes=2,
    )


PRESETS: dict[str, Callable[[], Augment]] = {"none": none, "light": light, "strong": strong}

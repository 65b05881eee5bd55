"""The image networks of keras_hub by the names of their classes, in published architectures.

keras_hub has one class per family, whose architecture is an argument; its presets are downloads. Here each
family has one published architecture of moderate size, with random weights.
"""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np

CLASSES = 1000  # of ImageNet, for a head without a number of classes
SUFFIXES = ("ImageClassifier", "Backbone")

TRANSFORMER = {"patch_size": 16, "num_layers": 12, "hidden_dim": 192, "num_heads": 3}  # ViT-Tiny
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "CSPNet": {  # CSPDarkNet-53
        "stem_filters": 32, "stem_kernel_size": 3, "stem_strides": 1,
        "stackwise_depth": [1, 2, 8, 8, 4], "stackwise_strides": [2, 2, 2, 2, 2],
        "stackwise_num_filters": [64, 128, 256, 512, 1024],
        "bottle_ratio": [0.5, 1.0], "block_ratio": [1.0, 0.5], "expand_ratio": [2.0, 1.0],
        "stage_type": "csp", "block_type": "dark_block", "stem_padding": "same", "down_growth": True,
    },
    "DeiT": {**TRANSFORMER, "intermediate_dim": 768},
    "DenseNet": {"stackwise_num_repeats": [6, 12, 24, 16]},  # DenseNet-121
    "DINOV2": {**TRANSFORMER, "intermediate_dim": 768},
    "EfficientNet": {  # B0
        "stackwise_width_coefficients": [1.0] * 7, "stackwise_depth_coefficients": [1.0] * 7,
        "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3], "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
        "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
        "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
        "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
        "stackwise_squeeze_and_excite_ratios": [0.25] * 7, "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
        "stackwise_block_types": ["v1"] * 7,
    },
    "HGNetV2": {  # B0
        "depths": [1, 1, 2, 1], "embedding_size": 16, "hidden_sizes": [64, 256, 512, 1024],
        "stem_channels": [3, 16, 16], "hidden_act": "relu", "use_learnable_affine_block": True,
        "stackwise_stage_filters": [
            (16, 16, 64, 1, 3, 3), (64, 32, 256, 1, 3, 3), (256, 64, 512, 2, 3, 5), (512, 128, 1024, 1, 3, 5),
        ],
        "apply_downsample": [False, True, True, True],
        "use_lightweight_conv_block": [False, False, True, True],
    },
    "MiT": {  # B0
        "layerwise_depths": [2, 2, 2, 2], "num_layers": 4, "layerwise_num_heads": [1, 2, 5, 8],
        "layerwise_sr_ratios": [8, 4, 2, 1], "max_drop_path_rate": 0.1,
        "layerwise_patch_sizes": [7, 3, 3, 3], "layerwise_strides": [4, 2, 2, 2],
        "hidden_dims": [32, 64, 160, 256],
    },
    "MobileNet": {  # V3 small, half as wide
        "stackwise_expansion": [[40, 56], [64, 144, 144], [72, 72], [144, 288, 288]],
        "stackwise_num_blocks": [2, 3, 2, 3],
        "stackwise_num_filters": [[16, 16], [24, 24, 24], [24, 24], [48, 48, 48]],
        "stackwise_kernel_size": [[3, 3], [5, 5, 5], [5, 5], [5, 5, 5]],
        "stackwise_num_strides": [[2, 1], [2, 1, 1], [1, 1], [2, 1, 1]],
        "stackwise_se_ratio": [[None, None], [0.25, 0.25, 0.25], [0.3, 0.3], [0.3, 0.25, 0.25]],
        "stackwise_activation": [["relu"] * 2, ["hard_swish"] * 3, ["hard_swish"] * 2, ["hard_swish"] * 3],
        "stackwise_padding": [[1, 1], [2, 2, 2], [2, 2], [2, 2, 2]],
        "output_num_filters": 288, "depthwise_filters": 8, "depthwise_stride": 2, "depthwise_residual": False,
        "last_layer_filter": 1024, "squeeze_and_excite": 0.5,
    },
    "MobileNetV5": {  # a small one, without attention
        "stackwise_block_types": [["er"], ["uir", "uir"]], "stackwise_num_blocks": [1, 2],
        "stackwise_num_filters": [[24], [48, 48]], "stackwise_strides": [[2], [2, 1]],
        "stackwise_act_layers": [["relu"], ["relu", "relu"]], "stackwise_exp_ratios": [[4.0], [6.0, 6.0]],
        "stackwise_se_ratios": [[0.0], [0.0, 0.0]], "stackwise_dw_kernel_sizes": [[0], [5, 5]],
        "stackwise_dw_start_kernel_sizes": [[0], [0, 0]], "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
        "stackwise_exp_kernel_sizes": [[3], [0, 0]], "stackwise_pw_kernel_sizes": [[1], [0, 0]],
        "stackwise_num_heads": [[0], [0, 0]], "stackwise_key_dims": [[0], [0, 0]],
        "stackwise_value_dims": [[0], [0, 0]], "stackwise_kv_strides": [[0], [0, 0]],
        "stackwise_use_cpe": [[False], [False, False]], "use_msfa": False,
    },
    "ResNet": {  # ResNet-18
        "input_conv_filters": [64], "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 128, 256, 512], "stackwise_num_blocks": [2, 2, 2, 2],
        "stackwise_num_strides": [1, 2, 2, 2], "block_type": "basic_block",
    },
    "SwinTransformer": {  # Swin-T
        "embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "window_size": 7,
    },
    "VGG": {  # VGG-16
        "stackwise_num_repeats": [2, 2, 3, 3, 3], "stackwise_num_filters": [64, 128, 256, 512, 512],
    },
    "ViT": {**TRANSFORMER, "mlp_dim": 768},
    "Xception": {  # Xception-41, without its middle flow
        "stackwise_conv_filters": [[32, 64], [128, 128], [256, 256], [728, 728]],
        "stackwise_pooling": [False, True, True, True],
    },
}  # fmt: skip
WITHOUT_CLASSIFIER = {"DINOV2"}
NAMES = tuple(
    f"{family}{suffix}"
    for family in ARCHITECTURES
    for suffix in SUFFIXES
    if suffix == "Backbone" or family not in WITHOUT_CLASSIFIER
)


def build_hub_network(
    network: str,
    *,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    include_top: bool = True,
    classes: int | None = None,
    weights: str | Path | None = None,
    include_preprocessing: bool = False,  # noqa: ARG001  # these networks have none
) -> keras.Model:
    """Return a network of keras_hub.

    Args:
        network: One of `NAMES`.
        input_shape: Height, width and channels of an image.
        include_top: Whether an image classifier keeps its head.
        classes: Units of that head.
        weights: A weights file of the network, or None for random weights.
        include_preprocessing: As other libraries have it.

    Raises:
        ValueError: Keras_hub is not installed, the network refuses the arguments, or a file is missing.
    """
    models = _import_models()
    suffix = next(suffix for suffix in SUFFIXES if network.endswith(suffix))
    family = network.removesuffix(suffix)
    # All classes but one name the shape as an image's.
    shape = {"input_shape" if family == "EfficientNet" else "image_shape": input_shape}
    model = getattr(models, f"{family}Backbone")(**ARCHITECTURES[family], **shape)
    if suffix == "ImageClassifier" and include_top:
        model = getattr(models, network)(backbone=model, num_classes=classes or CLASSES, preprocessor=None)
    model = keras.Model(model.input, model.output, name=model.name)  # without keras_hub's own compile and fit
    if weights is not None:
        _load_weights(model, weights)
    return model


def find_preset(name: str) -> Path | None:
    """Return the folder of a preset that `keras_hub:FOLDER` names; None where it is the name of a class.

    Args:
        name: What follows the colon.
    """
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else None


def build_preset(
    folder: Path,
    *,
    input_shape: tuple[int | None, int | None, int] | None = None,
    include_top: bool = False,  # noqa: ARG001  # as other networks have it
    classes: int | None = None,  # noqa: ARG001
    weights: str | Path | None = None,
    include_preprocessing: bool = False,  # noqa: ARG001
) -> keras.Model:
    """Return the backbone in the folder of a preset of keras_hub, with its weights.

    Args:
        folder: What `save_to_preset` wrote, or keras_hub downloaded.
        input_shape: Height, width and channels of an image; None: as saved.
        include_top: A preset gives its backbone, without a head.
        classes: As other networks have it.
        weights: None; the folder has them.
        include_preprocessing: As other networks have it; see `read_preset_scaling`.

    Raises:
        ValueError: Keras_hub is not installed, the folder holds no image network, or it does not accept
            images of this shape.
    """
    if weights is not None:
        raise ValueError("a preset has its own weights; leave weights out.")
    models = _import_models()
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        key = "input_shape" if config.get("class_name") == "EfficientNetBackbone" else "image_shape"
        shape = {} if input_shape is None else {key: tuple(input_shape)}
        model = models.Backbone.from_preset(str(folder), **shape)
        return keras.Model(model.input, model.output, name=model.name)
    except MemoryError:
        raise
    except Exception as error:  # whatever the content of a folder makes keras_hub raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"expected the folder of an image network that save_to_preset of keras_hub wrote: {reason}"
        ) from error


def read_preset_scaling(folder: Path) -> tuple[float, float] | None:
    """Return what black and white photographs become before the network of a preset; None if it has none.

    Args:
        folder: Of the preset, whose image converter states it, as the mean over red, green and blue.
    """
    _import_models()
    try:
        converter = importlib.import_module("keras_hub.layers").ImageConverter.from_preset(str(folder))
    except Exception:  # noqa: BLE001  # a preset without a converter fails in many ways
        return None
    scale = 1.0 if converter.scale is None else converter.scale
    offset = 0.0 if converter.offset is None else converter.offset
    return float(np.mean(offset)), float(np.mean(np.asarray(scale) * 255.0 + np.asarray(offset)))


def _import_models() -> ModuleType:
    try:
        return importlib.import_module("keras_hub.models")
    except ImportError as error:
        raise ValueError("the package keras-hub is not installed: pip install 'voxlift[zoo]'.") from error


def _load_weights(model: keras.Model, weights: str | Path) -> None:
    path = Path(weights).expanduser()
    if not path.is_file():
        raise ValueError(
            f"expected a weights file, received {str(weights)!r}. Save a preset with keras_hub's "
            "save_to_preset(FOLDER), and give keras_hub:FOLDER as the network."
        )
    model.load_weights(path)

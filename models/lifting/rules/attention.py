"""Rules for attention over the tokens of a volume.

On a volume of equal planes, attention over D copies of each key gives what it gave in 2D, except for prefix
tokens such as a class token, whose share falls with D. `TokenAttention3D` corrects it by -log(D) on the
scores of all other keys.
"""

import inspect
from typing import Any

import keras
import numpy as np

from voxlift.models.layers import TokenAttention3D
from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.rules.base import ExtraLayer, LayerCall, Lifted, copy_weights, weight_transfer
from voxlift.models.lifting.rules.results import dtype_setting
from voxlift.models.lifting.rules.tokens import layout_of
from voxlift.models.lifting.types import TensorSpec, TokenLayout, Weights

TENSORS = ("query", "value", "key")


def lift_attention(call: LayerCall) -> Lifted:
    """Return TokenAttention3D for MultiHeadAttention.

    Raises:
        UnsupportedError: It has a mask or returns its scores, or its keys and values are different tokens.
    """
    specs = _read_tensors(call)
    keys = specs["value"]
    if specs.get("key", keys).tokens != keys.tokens:
        raise UnsupportedError(
            "its keys and values are not the same tokens.", "Use the same tokens for both."
        )
    if any(spec.is_volume for spec in specs.values()):
        raise UnsupportedError("expected tokens [B, T, C].", "Reshape images to tokens first.")
    query = specs["query"]
    output = query.replace(
        shape=(*query.shape[:-1], call.shapes_2d[0][-1]), shape_2d=call.shapes_2d[0], is_nonnegative=False
    )
    return Lifted(
        TokenAttention3D,
        {**call.config, **_layout_settings(keys.tokens)},
        (output,),
        weight_shapes=call.weight_shapes,
        window=_describe(keys.tokens),
        **weight_transfer(call, copy_weights, "copied"),
    )


def _read_tensors(call: LayerCall) -> dict[str, TensorSpec]:
    """Return query, value and key (if given) of a call.

    Raises:
        UnsupportedError: It has further arguments.
    """
    arguments = inspect.signature(keras.layers.MultiHeadAttention.call).bind(None, *call.args, **call.kwargs)
    given = {name: value for name, value in arguments.arguments.items() if name not in {"self", "training"}}
    others = [name for name, value in given.items() if name not in TENSORS and value not in (None, False)]
    if others:
        raise UnsupportedError(
            f"its call sets {', '.join(others)}, which is not defined for the tokens of a volume.",
            "Call it with query, value and key only.",
        )
    by_id = dict(zip(map(id, call.tensors), call.inputs, strict=True))
    return {name: by_id[id(given[name])] for name in TENSORS if given.get(name) is not None}


def _layout_settings(layout: TokenLayout | None) -> dict[str, int]:
    return {} if layout is None else {"planes": layout.planes, "prefix": layout.prefix}


def _describe(layout: TokenLayout | None) -> str:
    return "" if layout is None else f"{layout.planes} planes, {layout.prefix} prefix"


def lift_kimm_attention(call: LayerCall) -> Lifted:
    """Return TokenAttention3D for the self-attention of kimm, whose queries, keys and values are one kernel.

    Tokens in groups [B, P, T, C], as in MobileViT, attend to those of their own group.
    """
    spec, config = call.spec, call.config
    layout = layout_of(spec)
    heads, channels = int(config["num_heads"]), int(config["hidden_dim"])
    size = channels // heads

    def transfer(weights: Weights) -> Weights:
        *joint, output, output_bias = weights
        bias = joint[1] if config["use_qkv_bias"] else np.zeros(3 * channels, joint[0].dtype)
        kernels = joint[0].reshape(-1, 3, heads, size)
        pairs = [(kernels[:, part], bias.reshape(3, heads, size)[part]) for part in range(3)]
        inputs = [weight for kernel_and_bias in pairs for weight in kernel_and_bias]
        return [*inputs, output.reshape(heads, size, channels), output_bias]

    settings: dict[str, Any] = {
        "name": config["name"],
        "num_heads": heads,
        "key_dim": size,
        "dropout": config["attention_dropout_rate"],
        "attention_axes": [spec.axes.index("T")],
        **_layout_settings(layout),
        **dtype_setting(call),
    }
    read = ((spec.channels, heads, size), (heads, size))
    rate = config["projection_dropout_rate"]
    dropout = {"name": f"{config['name']}_drop", "rate": rate, **dtype_setting(call)}
    return Lifted(
        TokenAttention3D,
        settings,
        (spec.replace(shape_2d=call.shapes_2d[0], is_nonnegative=False),),
        weight_shapes=(*read * 3, (heads, size, channels), (channels,)),
        after=(ExtraLayer(keras.layers.Dropout, dropout),) if rate else (),
        window=_describe(layout),
        call_args=(call.tensors[0], call.tensors[0]),
        call_kwargs={},
        is_rearranged=True,
        **weight_transfer(call, transfer, "split into query, key and value"),
    )

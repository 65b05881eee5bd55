"""What all baselines end in."""

from typing import Any, TypeAlias

from keras import layers

Shape: TypeAlias = tuple[int, int, int]  # height, width, channels
Tensor: TypeAlias = Any
HEADS = ("pool", "flatten")


def add_head(x: Tensor, classes: int, dropout: float, *, kind: str = "pool") -> Tensor:
    """Return float32 logits [B, classes] of a feature map [B, H, W, C] or of features [B, C].

    Args:
        x: What the network gives, symbolic.
        classes: How many logits.
        dropout: Rate before them, 0 for none.
        kind: How a map becomes features: `pool` (global average) or `flatten` (a weight for every place).

    Raises:
        ValueError: Another kind.
    """
    if kind not in HEADS:
        raise ValueError(f"Expected a head of {' or '.join(HEADS)}, received {kind!r}.")
    if len(x.shape) == 4:
        gather = layers.Flatten if kind == "flatten" else layers.GlobalAveragePooling2D
        x = gather(name="features")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return layers.Dense(classes, dtype="float32", name="logits")(x)

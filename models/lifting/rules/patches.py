"""Rules for reshapes that cut an image into patches or into groups of tokens, and put it together again.

A reshape is read as groups of adjacent axes, each of which splits one axis or merges several. Rows and
columns are split into patches and merged again; rows and columns together become the tokens of a volume, one
plane after the other, and tokens become planes again. Depth is never cut: the tokens of all planes with the
same place in their patch belong to one group.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras

from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.rules.base import ExtraLayer, LayerCall, Lifted
from voxlift.models.lifting.rules.results import dtype_setting
from voxlift.models.lifting.types import TokenLayout

PART_AXES = "pqrstuv"  # letters of the axes of patches, and of split channels
SIDES_FIX = "Keep the 2D network's height and width."


@dataclass(frozen=True)
class Group:
    """Adjacent axes of a tensor that become adjacent axes of another: one is split, or several are merged.

    Args:
        old: Letters of the axes before.
        new: Letters of the axes after.
        sizes: Sizes of the axes after, in the 2D network.
    """

    old: str
    new: str
    sizes: tuple[int, ...]


def lift_patch_reshape(call: LayerCall) -> Lifted | None:
    """Return a Reshape of a volume or of its tokens that cuts or merges patches; None for another reshape.

    Raises:
        UnsupportedError: The sides of the volume do not fit the patches.
    """
    groups = _find_groups(call)
    if groups is None:
        return None
    before, new = _order(groups)
    sizes = [size for group in groups for size in _sizes_3d(call, group)]
    layout = call.spec.tokens
    if "T" in new and layout is None:
        layout = _layout(call)
    if "D" in new:
        sizes.insert(new.index("D") - 1, _planes(call))
    output = call.spec.replace(
        axes=new,
        shape=(call.spec.shape[0], *sizes),
        shape_2d=call.shapes_2d[0],
        is_nonnegative=call.spec.is_nonnegative,
        is_global=False,
        tokens=layout if "T" in new else None,
    )
    config = {"name": call.layer.name, "target_shape": tuple(sizes), **dtype_setting(call)}
    return Lifted(
        keras.layers.Reshape,
        config,
        (output,),
        before=_permute(call, before),
        window=" ".join(new[1:]),
        call_args=(call.tensors[0],),
        call_kwargs={},
    )


def _find_groups(call: LayerCall) -> list[Group] | None:
    """Return the groups of axes after the batch, with as few axes in a group as possible."""
    spec, shape_2d = call.spec, call.shapes_2d[0]
    sizes = (*spec.shape_2d[1:], *shape_2d[1:])
    is_known = None not in sizes and spec.repeats == 1 and not (spec.tokens and spec.tokens.prefix)
    if not is_known or spec.shape_2d[0] != shape_2d[0]:
        return None
    found = [
        groups
        for counts in _divide(_known(spec.shape_2d[1:]), _known(shape_2d[1:]))
        if (groups := _name_groups(spec.axes_2d[1:], _known(shape_2d[1:]), counts)) is not None
    ]
    # Axes of size 1 allow several divisions.
    return min(found, key=lambda groups: max(len(each.old + each.new) for each in groups), default=None)


def _divide(old: Sequence[int], new: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """Yield each division of two shapes into groups of equal size: the numbers of axes in each group."""
    if not old and not new:
        yield []
    for left in range(1, len(old) + 1):
        for right in range(1, len(new) + 1):
            if 1 in (left, right) and math.prod(old[:left]) == math.prod(new[:right]):
                for rest in _divide(old[left:], new[right:]):
                    yield [(left, right), *rest]


def _name_groups(axes: str, sizes: Sequence[int], counts: list[tuple[int, int]]) -> list[Group] | None:
    """Return the groups with the letters of their axes; None if one of them is not defined for a volume."""
    unused = [letter for letter in PART_AXES if letter not in axes]
    groups: list[Group] = []
    for left, right in counts:
        old, axes = axes[:left], axes[left:]
        new = _merge(old) if right == 1 else _split(old, right, unused)
        if not new:
            return None
        groups.append(Group(old, new, tuple(sizes[:right])))
        sizes = sizes[right:]
    return groups


def _merge(old: str) -> str:
    """Return the letter of merged axes; empty if they may not be merged."""
    first, rest = old[0], old[1:]
    if not rest or set(rest) <= set(PART_AXES):
        return first if not rest or first in f"HW{PART_AXES}" else ""
    if old == "HW":
        return "T"
    return "C" if old[-1] == "C" and set(old[:-1]) <= set(PART_AXES) else ""


def _split(old: str, count: int, unused: list[str]) -> str:
    """Return the letters of the axes that one axis is split into; empty if it may not be split."""
    if old == "T":
        return "HW" if count == 2 else ""
    missing = count - 1
    if old == "C" or missing > len(unused):
        return ""
    taken, unused[:missing] = unused[:missing], []
    return old + "".join(taken)


def _order(groups: list[Group]) -> tuple[str, str]:
    """Return all axes before, with depth where the reshape needs it, and after."""
    old, new = ("B" + "".join(getattr(group, side) for group in groups) for side in ("old", "new"))
    if "T" in new:
        return (old if "T" in old else old.replace("H", "DH")), new
    return (old, new.replace("H", "DH")) if "T" in old else (f"BD{old[1:]}", f"BD{new[1:]}")


def _permute(call: LayerCall, axes: str) -> tuple[ExtraLayer, ...]:
    """Return the layer that moves depth, if it is not where the reshape needs it."""
    if axes == call.spec.axes:
        return ()
    dims = tuple(call.spec.axes.index(letter) for letter in axes[1:])
    config = {"name": f"{call.layer.name}_permute", "dims": dims, **dtype_setting(call)}
    return (ExtraLayer(keras.layers.Permute, config),)


def _sizes_3d(call: LayerCall, group: Group) -> tuple[int, ...]:
    """Return the sizes of the new axes of a group in 3D, without depth where it is an axis of its own."""
    spec = call.spec
    if group.old == "T" and group.new == "HW":
        return _plane_sides(spec.tokens or TokenLayout(1), spec.shape[spec.axes.index("T")], group)
    total = math.prod(_known([spec.shape[spec.axes.index(letter)] for letter in group.old]))
    if group.new == "T" and group.old == "HW":
        return (_planes(call) * total,)
    if len(group.new) == 1:
        return (total,)
    inner = math.prod(group.sizes[1:])
    if total % inner:
        raise UnsupportedError(
            f"its patches of {inner} do not divide a side of {total}.",
            "Use an input_shape whose sides are divisible by strides and patches of the network.",
        )
    return (total // inner, *group.sizes[1:])


def _plane_sides(layout: TokenLayout, tokens: int | None, group: Group) -> tuple[int, ...]:
    """Return the rows and columns of a plane of tokens."""
    if group.sizes == layout.sides_2d:
        return _known(layout.sides)
    if tokens != layout.planes * math.prod(group.sizes):
        raise UnsupportedError(f"it makes planes of {group.sizes} of other tokens.", SIDES_FIX)
    return group.sizes


def _layout(call: LayerCall) -> TokenLayout:
    """Return the order of the tokens that the planes of a volume become."""
    spec = call.spec
    rows, columns = (spec.axes.index(letter) for letter in "HW")
    rows_2d, columns_2d = (spec.axes_2d.index(letter) for letter in "HW")
    return TokenLayout(
        _planes(call),
        sides=(spec.shape[rows], spec.shape[columns]),
        sides_2d=(spec.shape_2d[rows_2d], spec.shape_2d[columns_2d]),
    )


def _planes(call: LayerCall) -> int:
    planes = call.spec.tokens.planes if call.spec.tokens else call.spec.depth
    if planes is None:
        raise UnsupportedError(
            "the tokens of a volume need a known number of slices.", "Lift with a fixed depth."
        )
    return planes


def _known(sizes: Sequence[int | None]) -> tuple[int, ...]:
    if None in sizes:
        raise UnsupportedError("it cuts a volume of unknown size.", "Lift with a fixed input_shape.")
    return tuple(int(size or 0) for size in sizes)

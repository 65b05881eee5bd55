"""Errors of a lift: everything that cannot be lifted is reported together."""

import re
import traceback
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from voxlift.models.lifting.types import Layer


@dataclass(frozen=True)
class Problem:
    """One layer, operation or setting that prevents the lift.

    Args:
        layer: Path of the layer inside the network, names of nested models joined by "/".
        kind: Its class, or "setting".
        used: Where the layer is called.
        reason: What was expected and what was received.
        fix: What the user can do.
    """

    layer: str
    kind: str
    used: str
    reason: str
    fix: str = ""


class LiftError(ValueError):
    """The error of a network that cannot be lifted; it lists all problems.

    Args:
        network: Name of the 2D network.
        problems: All problems that were found.
    """

    def __init__(self, network: str, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(_message(network, self.problems))


class UnsupportedError(Exception):
    """The error that a rule raises for one layer; the planner records it as a `Problem` and continues.

    Args:
        reason: What was expected and what was received, as a sentence about "the layer".
        fix: What the user can do, as a sentence.
    """

    def __init__(self, reason: str, fix: str = "") -> None:
        self.reason = reason
        self.fix = fix
        super().__init__(f"{reason} {fix}".strip())


class DepthTooSmallError(UnsupportedError):
    """The error of a layer that receives too few slices.

    Args:
        depth: Slices that the layer receives.
    """

    def __init__(self, depth: int | None) -> None:
        super().__init__(
            f"its input has only {depth} slices, fewer than its window needs along depth.",
            "Lift with depth_policy='preserve' (no downsampling along depth), or with a larger depth.",
        )


def is_foreign(layer: Layer) -> bool:
    """Return whether a layer is of a class that neither Keras nor Voxlift defines."""
    return type(layer).__module__.split(".")[0] not in {"keras", "voxlift"}


@contextmanager
def foreign_code(layer: Layer, occasion: str) -> Iterator[None]:
    """Turn whatever the own code of a foreign layer raises into a sentence.

    Args:
        layer: The layer; errors of other layers are raised unchanged.
        occasion: When its code runs, such as "while its lift was planned".

    Raises:
        UnsupportedError: The code of a foreign layer failed.
    """
    try:
        yield
    except (UnsupportedError, LiftError):
        raise
    except Exception as error:
        if not is_foreign(layer):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UnsupportedError(
            f"the code of this class failed {occasion}, in {Path(place.filename).name}, line {place.lineno}: "
            f"{describe_error(error)}",
            "Correct its code, or register your own rule: register_lift_rule(LayerClass, rule).",
        ) from error


def describe_error(error: Exception) -> str:
    r"""Return an error's class and the first line of its message, without the line that Keras adds.

    >>> describe_error(ValueError("Exception encountered when calling Blur.call().\n\nno such axis"))
    'ValueError: no such axis'
    """
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    messages = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    return f"{type(error).__name__}: {messages[0]}" if messages else f"{type(error).__name__}."


def setting_error(network: str, setting: str, reason: str) -> LiftError:
    """Return the error of a wrong argument of `plan_lift`.

    Args:
        network: Name of the 2D network.
        setting: Name of the argument.
        reason: What was expected and what was received.
    """
    return LiftError(network, [Problem(setting, "setting", "", reason)])


def _message(network: str, problems: tuple[Problem, ...]) -> str:
    groups: dict[tuple[str, str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[problem.kind, problem.reason, problem.fix].append(problem)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"{network!r} cannot be lifted to 3D; {count}:"]
    for (kind, reason, fix), group in groups.items():
        places = ", ".join(f"{each.layer!r}{f' ({each.used})' if each.used else ''}" for each in group)
        lines.append(f"- {kind} {places}: {reason} {fix}".rstrip())
    return "\n".join(lines)

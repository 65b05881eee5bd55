"""What a lift cannot do, told in one piece."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One layer or operation that cannot be lifted.

    Args:
        layer: Path of the layer inside the network, nested models joined by "/".
        kind: Its class.
        used: Where it is used.
        reason: What is expected and what was received.
        way_out: What the user can do.
    """

    layer: str
    kind: str
    used: str
    reason: str
    way_out: str = ""


class LiftError(ValueError):
    """A network cannot be lifted; lists every layer and operation in the way.

    Args:
        network: Name of the 2D network.
        problems: All that was found.
    """

    def __init__(self, network: str, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(_message(network, self.problems))


class RefusedError(Exception):
    """Raised by a rule for one layer; the planner turns it into a `Problem` and goes on."""

    def __init__(self, reason: str, way_out: str = "") -> None:
        self.reason = reason
        self.way_out = way_out
        super().__init__(f"{reason} {way_out}".strip())


class DepthUsedUpError(RefusedError):
    """Too few slices reach a layer."""

    def __init__(self, depth: int | None) -> None:
        super().__init__(
            f"only {depth} of the slices reach it, too few for its window along depth.",
            "Lift with depth_policy='preserve' (no downsampling along depth), or with more depth.",
        )


def _message(network: str, problems: tuple[Problem, ...]) -> str:
    groups: dict[tuple[str, str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[problem.kind, problem.reason, problem.way_out].append(problem)
    lines = [f"{network!r} cannot be lifted to 3D; {_count(len(problems), 'problem')}:"]
    for (kind, reason, way_out), members in groups.items():
        places = ", ".join(f"{member.layer!r}{_used(member)}" for member in members)
        lines.append(f"- {kind} {places}: {reason}{' ' + way_out if way_out else ''}")
    return "\n".join(lines)


def _used(problem: Problem) -> str:
    return f" ({problem.used})" if problem.used else ""


def _count(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"

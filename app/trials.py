"""One training of a comparison, as the rooms that plan, run and report it hand it on."""

from dataclasses import dataclass

from app.runs import RunFolder


@dataclass(frozen=True)
class Trial:
    """One training of a comparison."""

    model: str
    fold: int
    seed: int
    overrides: tuple[str, ...]
    run: RunFolder

"""What a person sees while work goes on: one console, plain lines, one kind of progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PIPE_WIDTH = 100  # columns where the output is a file or a pipe


def build_console() -> Console:
    """The terminal's own width and colours; a fixed width and none in a pipe."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=PIPE_WIDTH, no_color=True)


console = build_console()


def say(text: str) -> None:
    """A line for a person, as it stands: brackets in paths are no markup, and only the terminal wraps it."""
    console.print(text, markup=False, soft_wrap=True)


def build_progress() -> Progress:
    """A progress display with counts, time used and time left; silent where the output is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def counted_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that tells itself how much there is: call it with (done, total). Absent until then."""
    with build_progress() as progress:
        task = progress.add_task(description, total=None, note="", visible=False)

        def count(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield count


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar for `total` steps; the function that is handed out advances it by one."""
    with build_progress() as progress:
        task = progress.add_task(description, total=total, note="")

        def advance() -> None:
            progress.advance(task)

        yield advance

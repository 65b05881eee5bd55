"""Print lines and progress bars on one console."""

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

from voxlift.data_pipelines.paths import escape_name

PIPE_WIDTH = 100  # columns, if the output is a file or a pipe


def build_console() -> Console:
    """Return a console with the terminal's width and colours; with a fixed width and no colours in a pipe.

    Brackets and colons, as in `[/AD]` or `:x:`, are text: a class or a file may have any name.
    """
    terminal = Console(highlight=False, markup=False, emoji=False)
    if terminal.is_terminal:
        return terminal
    return Console(highlight=False, markup=False, emoji=False, width=PIPE_WIDTH, no_color=True)


console = build_console()


def print_line(text: str) -> None:
    """Print a line unchanged: brackets in paths are not markup, and only the terminal wraps it."""
    console.print(escape_name(text), soft_wrap=True)


def build_progress() -> Progress:
    """Return a progress display with counts, elapsed and remaining time; off if the output is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def counted_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that updates a bar to (done, total); the bar is shown from the first call on."""
    with build_progress() as progress:
        task = progress.add_task(description, total=None, note="", visible=False)

        def count(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield count


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function that advances a bar of `total` steps by one."""
    with build_progress() as progress:
        task = progress.add_task(description, total=total, note="")

        def advance() -> None:
            progress.advance(task)

        yield advance

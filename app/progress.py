"""Print lines and progress bars on one console."""

from __future__ import annotations

import time
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

SILENT_SECONDS = 30.0  # after which a line is printed where no bar can be shown
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


class Heartbeat:
    """Prints a line about every 30 s while something is counted, for a log where no bar can be shown.

    Args:
        description: Of what is counted.
        is_needed: Whether there is no bar.
        clock: Returns seconds.
        say: Prints a line.
    """

    def __init__(
        self,
        description: str,
        *,
        is_needed: bool,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.description, self.is_needed, self.clock = description, is_needed, clock
        self.say = print_line if say is None else say
        self.done, self.last = 0, clock()

    def tick(self, done: int, total: int, note: str = "") -> None:
        """Take the count; print it where nothing was printed for long."""
        self.done = done
        if self.is_needed and self.clock() - self.last >= SILENT_SECONDS:
            self.say(f"{self.description}: {done} of {total}{note}")
            self.last = self.clock()


@contextmanager
def counted_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that updates a bar to (done, total); the bar is shown from the first call on."""
    with build_progress() as progress:
        task = progress.add_task(description, total=None, note="", visible=False)

        beat = Heartbeat(description, is_needed=progress.disable)

        def count(done: int, total: int) -> None:
            beat.tick(done, total)
            progress.update(task, completed=done, total=total, visible=True)

        yield count


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function that advances a bar of `total` steps by one."""
    with build_progress() as progress:
        task = progress.add_task(description, total=total, note="")

        beat = Heartbeat(description, is_needed=progress.disable)

        def advance() -> None:
            beat.tick(beat.done + 1, total)
            progress.advance(task)

        yield advance

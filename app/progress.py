"""Print lines and progress bars on one console."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from voxlift.data_pipelines.files import escape_name

SILENT_SECONDS = 30.0  # after which a line is printed into a log
TERMINAL_SECONDS = 10.0  # after which a line is printed on a terminal
BRIEF = "VOXLIFT_BRIEF"  # environment variable: see `is_brief`
PIPE_WIDTH = 100  # columns, if the output is a file or a pipe


class WatchedConsole(Console):
    """A console whose output ends a silence."""

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 - what rich's own takes
        """Print as rich does."""
        pulse.note_output()
        super().print(*objects, **options)


def build_console() -> Console:
    """Return a console with the terminal's width and colours; with a fixed width and no colours in a pipe.

    Brackets and colons, as in `[/AD]` or `:x:`, are text: a class or a file may have any name.
    """
    terminal = WatchedConsole(highlight=False, markup=False, emoji=False)
    if terminal.is_dumb_terminal:
        terminal.height = terminal.height  # rich then takes the width of COLUMNS, too, instead of 80
    if terminal.is_terminal:
        return terminal
    return WatchedConsole(highlight=False, markup=False, emoji=False, width=PIPE_WIDTH, no_color=True)


console = build_console()


def has_bars() -> bool:
    """Return whether bars can be shown: on a terminal that moves its cursor."""
    return console.is_terminal and not console.is_dumb_terminal


def is_brief() -> bool:
    """Return whether this process is one training of several, whose results another one prints in a table."""
    return bool(os.environ.get(BRIEF))


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
        disable=not has_bars(),
    )


class Phase:
    """What a command is doing, such as `Preparing volumes`, with a count where it has one.

    Args:
        description: For a line or a bar.
        started: Seconds on the clock of its pulse.
        is_live: Whether a bar on the terminal shows it.
    """

    def __init__(self, description: str, *, started: float, is_live: bool = False) -> None:
        self.description, self.started, self.is_live = description, started, is_live
        self.done, self.total = 0, 0
        self.first: int | None = None  # of a resumed training: what was done before

    def update(self, done: int, total: int) -> None:
        """Take a count."""
        self.first = done if self.first is None else self.first
        self.done, self.total = done, total

    def describe(self, now: float) -> str:
        """Return a line with the count, the time so far and, where it can be estimated, the time left."""
        seconds = now - self.started
        counted = f" {self.done} of {self.total}," if self.total else ""
        line = f"{self.description}:{counted} {format_seconds(seconds)} so far"
        since = self.done - (self.first or 0)
        if not 0 < since < self.total or self.done >= self.total:
            return line
        return f"{line}, about {format_seconds(seconds * (self.total - self.done) / since)} left"


def format_seconds(seconds: float) -> str:
    """Return a duration in words.

    >>> format_seconds(42.4), format_seconds(90), format_seconds(7260)
    ('42 s', '1 min 30 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Pulse:
    """Prints what a command is doing where nothing else was printed for long, however long one phase takes.

    A thread of the command calls `check` (see `keep_pulse`): a long fit or a long read cannot call it itself.

    Args:
        seconds: Of silence after which a line is printed.
        clock: Returns seconds.
        write: Prints a line.
    """

    def __init__(
        self,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], None] | None = None,
    ) -> None:
        self.seconds, self.clock = seconds, clock
        self.write = print_line if write is None else write
        self.phases: list[Phase] = []  # the innermost last
        self.began = self.last = clock()
        self.is_silenced = False

    def note_output(self) -> None:
        """Begin the silence anew: something was printed."""
        self.last = self.clock()

    def check(self) -> None:
        """Print a line if the silence was too long, and no bar shows that the command is at work."""
        phases = list(self.phases)
        if self.is_silenced or any(phase.is_live for phase in phases):
            self.note_output()
        elif self.clock() - self.last >= self.seconds:
            current = phases[-1] if phases else Phase("At work", started=self.began)
            self.note_output()
            self.write(current.describe(self.clock()))

    def enter(self, description: str, *, is_live: bool = False) -> Phase:
        """Begin a phase within those that have begun."""
        self.phases.append(Phase(description, started=self.clock(), is_live=is_live))
        return self.phases[-1]

    def leave(self, phase: Phase) -> None:
        """End a phase; ending it twice does nothing."""
        if phase in self.phases:
            self.phases.remove(phase)
            if phase.is_live:  # its bar was seen; of others nothing was printed
                self.note_output()

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Print nothing meanwhile: another process prints on the same terminal."""
        self.is_silenced = True
        try:
            yield
        finally:
            self.is_silenced = False
            self.note_output()


@contextmanager
def keep_pulse(pulse: Pulse, *, every: float = 1.0, since: float | None = None) -> Iterator[None]:
    """Check a pulse in a thread of its own from now until the end of the block.

    Args:
        pulse: To check.
        every: Seconds between checks.
        since: When the silence began, on the clock of the pulse; None: now.
    """
    ended = threading.Event()
    pulse.began = pulse.last = pulse.clock() if since is None else since

    def watch() -> None:
        while not ended.wait(every):
            with suppress(OSError, ValueError):  # of a closed pipe, which the command meets as well
                pulse.check()

    thread = threading.Thread(target=watch, name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


pulse = Pulse(TERMINAL_SECONDS if has_bars() else SILENT_SECONDS)  # of this process


@contextmanager
def phase(description: str) -> Iterator[None]:
    """Show what is being done while nothing can be counted: a line that moves, or a line about every 30 s."""
    shown = has_bars() and not any(one.is_live for one in pulse.phases)
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not shown,
    )
    current = pulse.enter(description, is_live=shown)
    try:
        with bar:
            bar.add_task(description, total=None)
            yield
    finally:
        pulse.leave(current)


@contextmanager
def counted_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that updates a bar to (done, total); the bar is shown from the first call on."""
    current = pulse.enter(description, is_live=has_bars())
    try:
        with build_progress() as progress:
            task = progress.add_task(description, total=None, note="", visible=False)

            def count(done: int, total: int) -> None:
                current.update(done, total)
                progress.update(task, completed=done, total=total, visible=True)

            yield count
    finally:
        pulse.leave(current)


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function that advances a bar of `total` steps by one."""
    current = pulse.enter(description, is_live=has_bars())
    current.update(0, total)
    try:
        with build_progress() as progress:
            task = progress.add_task(description, total=total, note="")

            def advance() -> None:
                current.update(current.done + 1, total)
                progress.advance(task)

            yield advance
    finally:
        pulse.leave(current)

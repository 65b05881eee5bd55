"""One trial, one training: two comparisons that are started at once do not write the same run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hold_lock(path: Path, *, waiting: Callable[[], None]) -> Iterator[tuple[int, ...]]:
    """Hold a lock file for as long as this process, or a child that inherits it, is alive.

    A comparison that was killed may leave a training behind that goes on: the next comparison then waits for
    it instead of writing beside it. Where the system or the file system knows no such locks, nothing is held.

    Args:
        path: the lock file; made if need be, and left behind.
        waiting: called once where another process holds the lock, before waiting for it.

    Yields:
        The file descriptors that a child must inherit to hold the lock as well.
    """
    try:
        import fcntl
    except ImportError:
        yield ()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass  # some network file systems have no locks
        yield (file.fileno(),)

"""Messages between a supervising process and its training process: JSON values over a socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

Message = dict[str, Any]


class Channel:
    """One end of the socket; any thread may send."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._lock = end, threading.Lock()
        self._lines = end.makefile("r", encoding="utf-8")

    @property
    def descriptor(self) -> int:
        """The file descriptor, for a process that inherits it."""
        return self._end.fileno()

    def send(self, message: Message) -> None:
        """Send a message; nothing happens where the other end is closed."""
        try:
            with self._lock:
                self._end.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return

    def receive(self) -> Message:
        """Return the next message; an empty one when the other end is closed."""
        return next(self.messages(), {})

    def messages(self) -> Iterator[Message]:
        """Yield all messages until the other end is closed; incomplete ones are left out."""
        try:
            for line in self._lines:
                if line.endswith("\n"):
                    yield json.loads(line)
        except OSError:  # the other process was killed
            return

    def close(self) -> None:
        """Close this end."""
        self._lines.close()
        self._end.close()

    def when_closed(self, act: Callable[[], object]) -> None:
        """Call a function, in another thread, when the other process has ended."""

        def wait() -> None:
            for _ in self.messages():
                pass
            act()

        threading.Thread(target=wait, daemon=True).start()


def open_pair() -> tuple[Channel, Channel]:
    """Return both ends: one to keep, one for the child process."""
    ours, theirs = socket.socketpair()
    return Channel(ours), Channel(theirs)


def open_channel(descriptor: int) -> Channel:
    """Open the end that the parent process passed on."""
    return Channel(socket.socket(fileno=descriptor))

"""What a supervising process and its training process tell each other: JSON values over a socket."""

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
        """The open file, for a process that inherits it."""
        return self._end.fileno()

    def send(self, message: Message) -> None:
        """Say something; nothing happens where nobody listens any more."""
        try:
            with self._lock:
                self._end.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return

    def receive(self) -> Message:
        """The next message; an empty one when the other end is closed."""
        return next(self.messages(), {})

    def messages(self) -> Iterator[Message]:
        """All messages until the other end is closed; a message that was cut off is none."""
        try:
            for line in self._lines:
                if line.endswith("\n"):
                    yield json.loads(line)
        except OSError:  # the other process was killed
            return

    def close(self) -> None:
        """End it."""
        self._lines.close()
        self._end.close()

    def when_closed(self, act: Callable[[], object]) -> None:
        """Do something, in another thread, when the other process has ended."""

        def wait() -> None:
            for _ in self.messages():
                pass
            act()

        threading.Thread(target=wait, daemon=True).start()


def open_pair() -> tuple[Channel, Channel]:
    """Both ends: one to keep, one to hand on."""
    ours, theirs = socket.socketpair()
    return Channel(ours), Channel(theirs)


def open_channel(descriptor: int) -> Channel:
    """The end that was handed on to this process."""
    return Channel(socket.socket(fileno=descriptor))

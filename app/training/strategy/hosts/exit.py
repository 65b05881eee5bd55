"""The end of a training process on several hosts: a failed one publishes the cause, and all report it."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, NoReturn

from voxlift.app.runtime.exit_status import DONE, INTERRUPTED, LOST, USER_ERROR
from voxlift.app.training.strategy.hosts.channel import Channel
from voxlift.app.training.strategy.hosts.cluster_environment import ClusterEnvironment
from voxlift.app.training.strategy.hosts.rendezvous import is_connected, publish, read_published

LINGER = 5.0  # seconds for the others to read why host 0 ends, before its key-value store is gone
GRACE = 1.0  # seconds for this process to report its own error, when another one has ended
ENGINE_WORDS = (
    "gloo",
    "nccl",
    "connection reset",
    "connection closed",
    "coordination service",
    "socket closed",
    "heartbeat",
)


class ProcessExit:
    """Ends this process once, from whichever thread finds the cause first.

    Args:
        channel: To the supervising process.
        cluster: Where this process stands.
    """

    def __init__(self, channel: Channel, cluster: ClusterEnvironment) -> None:
        self._channel, self._cluster = channel, cluster
        self._claim = threading.Lock()

    def watch(self) -> None:
        """From now on, end when another process has failed."""
        threading.Thread(target=self._watch, daemon=True).start()

    def end(self, status: int, message: str) -> NoReturn:
        """End for a cause of this process; status 0 is success."""
        self._claim.acquire()
        if status != DONE:
            self._publish_exit({"status": status, "message": message, "primary": True})
        self._close(status, message)

    def exit_lost(self, error: BaseException) -> NoReturn:
        """End because another process was lost: the one that publishes no message."""
        self._claim.acquire()
        words = str(error).strip().split("\n", maxsplit=1)[0][:200]
        try:
            publish(f"left/{self._cluster.index}", {"status": LOST, "message": words, "primary": False})
            index, note = self._find_cause()
        except Exception:  # noqa: BLE001 - the service has gone, and it runs on host 0
            index, note = 0, None
        if note is None:
            self._close(LOST, f"{self._name(index)} was lost: its process was killed or cannot be reached.")
        self._close(*_follow_status(self._name(index), note))

    def _watch(self) -> None:
        while is_connected():
            try:
                notes = read_published("left")
            except Exception:  # noqa: BLE001 - the meeting place is gone: the training itself will notice
                return
            for index, note in notes.items():
                if note["primary"] and int(index) != self._cluster.index:
                    self._follow(int(index), note)
            time.sleep(GRACE)

    def _follow(self, index: int, note: dict[str, Any]) -> None:
        time.sleep(GRACE)
        self._claim.acquire()
        self._publish_exit({**note, "primary": False})
        self._close(*_follow_status(self._name(index), note))

    def _find_cause(self) -> tuple[int, dict[str, Any] | None]:
        """Return which process ended first, with the message that it published, if any."""
        until = time.monotonic() + LINGER
        while True:
            notes = {int(index): note for index, note in read_published("left").items()}
            for index, note in notes.items():
                if note["primary"]:
                    return index, note
            silent = [index for index in range(self._cluster.count) if index not in notes]
            if time.monotonic() > until or not silent or self._cluster.count == 2:
                return (silent or [0])[0], None
            time.sleep(0.1)

    def _publish_exit(self, note: dict[str, Any]) -> None:
        if not is_connected():
            return
        try:
            publish(f"left/{self._cluster.index}", note)
            until = time.monotonic() + LINGER
            while (
                self._cluster.leads
                and len(read_published("left")) < self._cluster.count
                and time.monotonic() < until
            ):
                time.sleep(0.1)
        except Exception:  # noqa: BLE001 - nobody is left who could hear it
            return

    def _name(self, index: int) -> str:
        return f"host {index}" + (f" ({self._cluster.coordinator})" if index == 0 else "")

    def _close(self, status: int, message: str) -> NoReturn:
        self._channel.send({"ended": {"status": status, "message": message}})
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # the engine's own end would wait minutes for processes that are gone


def is_connection_error(error: BaseException) -> bool:
    """Return whether an error comes from the end of another process."""
    text = f"{type(error).__name__}: {error}".lower()
    return any(words in text for words in ENGINE_WORDS)


def _follow_status(name: str, note: dict[str, Any]) -> tuple[int, str]:
    """Return status and sentence of a process that ends because another one did."""
    status = int(note["status"])
    return status if status in {USER_ERROR, INTERRUPTED} else LOST, f"{name} stopped: {note['message']}"

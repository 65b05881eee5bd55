"""What the training processes tell one another beside the training: short messages, waiting, and files.

They go through the service that the engine starts on host 0 to bring the processes together. It needs no
device, so that it serves before the first one is met, and a wait is as long as the work that is waited for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from voxlift.app.config import TrainSettings

PATIENCE = 1000  # milliseconds of one question; it is asked again until there is an answer
PIECE = 2**20  # bytes of a file in one message


def initialize(coordinator: str, *, count: int, index: int, wait_seconds: int) -> None:
    """Meet the other processes; returns when all are there. The engine aborts the process when they are not.

    Args:
        coordinator: where process 0 listens, HOST:PORT.
        count: of processes.
        index: of this one.
        wait_seconds: how long the others are waited for.
    """
    import jax

    # Without it the engine cannot add up what lies on the CPUs of several processes.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator,
        num_processes=count,
        process_id=index,
        initialization_timeout=wait_seconds,
        cluster_detection_method="deactivate",  # all is known, and each process uses all GPUs that it sees
    )


def disconnect() -> None:
    """Part from the others, who do so too; what is computed afterwards is this process's own."""
    import jax

    jax.distributed.shutdown()


def is_follower(settings: TrainSettings) -> bool:
    """Whether another process writes this training's run folder."""
    return settings.strategy == "hosts" and own_index() > 0


def publish_run(settings: TrainSettings, path: Path) -> None:
    """Let every host know where the results go, so that it can say how to go on with them."""
    if settings.strategy == "hosts" and not own_index():
        publish("run", str(path.absolute()))


def own_index() -> int:
    """This process's number, 0 without others."""
    return int(_state().process_id or 0)


def process_count() -> int:
    """How many there are, 1 without others."""
    return int(_state().num_processes or 1)


def is_connected() -> bool:
    """Whether there are others that can be talked to."""
    return _state().client is not None


def publish(name: str, value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Say something under a name that nobody has used."""
    _state().client.key_value_set(_key(name), json.dumps(value))


def wait_for(name: str) -> Any:  # noqa: ANN401 - as above
    """What somebody says under a name; waits until it is said."""
    return json.loads(_ask(lambda client: client.blocking_key_value_get(_key(name), PATIENCE)))


def read_published(folder: str) -> dict[str, Any]:
    """What was said until now under names that begin with `folder/`, by the rest of the name."""
    found = _state().client.key_value_dir_get(_key(folder))
    return {key.rpartition("/")[2]: json.loads(value) for key, value in found}


def barrier(name: str) -> None:
    """Wait here until every process has come."""
    if own_index():
        publish(f"{name}/came/{own_index()}", value=True)
        wait_for(f"{name}/all")
        return
    for index in range(1, process_count()):
        wait_for(f"{name}/came/{index}")
    publish(f"{name}/all", value=True)


@contextmanager
def process_zero_first(settings: TrainSettings) -> Iterator[None]:
    """Host 0 does what is inside first, the others when it is through.

    On a file system that they share, the others find its work done; on one of their own each does its own.
    """
    if is_follower(settings):
        wait_for("prepared")
    yield
    if settings.strategy == "hosts":
        if not own_index():
            publish("prepared", value=True)
        barrier("together")


def send_files(paths: Sequence[Path], root: Path) -> None:
    """Give files of host 0 to the others, under the same names below their own `root`."""
    if own_index() == 0:
        publish("files", [[str(path.relative_to(root)), path.stat().st_size] for path in paths])
        for number, path in enumerate(paths):
            _send_file(path, number)
    else:
        for number, (name, size) in enumerate(wait_for("files")):
            _receive_file(root / name, size, number)
    barrier("handed out")


def _send_file(path: Path, number: int) -> None:
    with path.open("rb") as file:
        for piece, content in enumerate(iter(lambda: file.read(PIECE), b"")):
            _state().client.key_value_set_bytes(_key(f"file/{number}/{piece}"), content)


def _receive_file(path: Path, size: int, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for piece in range(-(-size // PIECE)):
            key = _key(f"file/{number}/{piece}")
            file.write(_ask(lambda client, key=key: client.blocking_key_value_get_bytes(key, PATIENCE)))


def _ask(question: Any) -> Any:  # noqa: ANN401 - a function of the engine's client, which has no types
    """Ask until there is an answer."""
    while True:
        try:
            return question(_state().client)
        except Exception as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            time.sleep(0.01)


def _key(name: str) -> str:
    return f"voxlift/{name}"


def _state() -> Any:  # noqa: ANN401 - untyped JAX
    from jax._src import distributed  # JAX has no public way to exchange values without a device

    return distributed.global_state

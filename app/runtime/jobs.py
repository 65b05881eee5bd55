"""Run independent jobs one after another in this process, or hand them to the workers of a cluster.

Dask hands them out and gives the job of a lost worker to another one. A job must therefore be one that can be
started again. A worker has one job at a time. `shards` makes jobs of a long list.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from voxlift.app.config.schema import ClusterSettings
from voxlift.app.errors import SettingsError
from voxlift.app.progress import console, print_line
from voxlift.app.runtime.cluster import count_threads, open_client, thread_variables

if TYPE_CHECKING:
    from distributed import Client, Future

Value = TypeVar("Value")

TOPIC = "voxlift"  # of the lines that jobs print
# Variables that may change what a training computes: its process on another machine gets this command's.
FORWARDED = ("KERAS_", "TF_", "XLA_", "JAX_", "PYTHONUTF8")


@dataclass(frozen=True)
class JobContext:
    """Where a job runs.

    Attributes:
        worker: Name and host of the worker; empty in this process.
        environment: Variables that the job's child processes get.
        threads: CPU threads that the job has; 0 is one per CPU.
        report: Prints a line where the command was started.
    """

    worker: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int = 0
    report: Callable[[str], None] = print_line


@dataclass(frozen=True)
class Job(Generic[Value]):
    """A job that can be started again where its worker was lost.

    Attributes:
        name: Start of each line about it, such as `3/10  volume3d-seed0`; different for each job.
        call: Does it; runs in another process, so that it must be a function of a module.
        priority: Jobs with a larger one are begun first.
    """

    name: str
    call: Callable[[JobContext], Value]
    priority: int = 0


@dataclass(frozen=True)
class JobEnd(Generic[Value]):
    """How a job ended.

    Attributes:
        value: What it returned; None where its workers were lost.
        problem: Why there is no value; empty where there is one.
    """

    value: Value | None
    problem: str = ""


def run_jobs(settings: ClusterSettings, jobs: Sequence[Job[Value]]) -> Iterator[tuple[int, JobEnd[Value]]]:
    """Run jobs and yield the index of each with its end, as they end.

    Without a cluster they run one after another, and where the caller stops early the rest is not begun.

    Args:
        settings: Where they run.
        jobs: Jobs; their relative paths are of this working directory, which every worker must see.

    Raises:
        SettingsError: The cluster cannot be reached or used.
        KeyboardInterrupt: The user interrupted the command.
    """
    if settings.name == "none":
        here = JobContext(environment=thread_variables(settings), threads=count_threads(settings) or 0)
        for index, job in enumerate(jobs):
            yield index, JobEnd(job.call(here))
    elif jobs:
        with open_client(settings, jobs=len(jobs)) as client:
            yield from run_on_workers(client, settings, jobs)


def run_on_workers(
    client: Client, settings: ClusterSettings, jobs: Sequence[Job[Value]]
) -> Iterator[tuple[int, JobEnd[Value]]]:
    """Run jobs on the workers of a cluster, as `run_jobs` does.

    Args:
        client: Of the cluster.
        settings: Of the cluster.
        jobs: As of `run_jobs`.

    Raises:
        SettingsError: The workers lack Voxlift, or do not see this folder.
        KeyboardInterrupt: The user interrupted the command.
    """
    from distributed import as_completed

    session = uuid.uuid4().hex[:8]  # a scheduler may have jobs of the same name from another command
    keys = [f"{job.name} {session}" for job in jobs]
    client.subscribe_topic(TOPIC, lambda event: print_line(event[1]))
    names = {key: job.name for key, job in zip(keys, jobs, strict=True)}
    client.subscribe_topic("all", partial(_report_loss, names=names))
    resources = {"GPU": settings.gpus} if settings.gpus else None
    variables = {key: value for key, value in os.environ.items() if key.startswith(FORWARDED)}
    begin = partial(
        _run_on_worker,
        folder=str(Path.cwd()),
        variables=variables | thread_variables(settings),
        threads=count_threads(settings) or 0,
        gpus=_own_gpus(settings),
    )
    waiting = iter(sorted(range(len(jobs)), key=lambda index: -jobs[index].priority))
    indices: dict[Future, int] = {}

    def submit(index: int) -> Future:
        job = jobs[index]
        future = client.submit(begin, job.call, key=keys[index], resources=resources, pure=False)
        indices[future] = index
        return future

    # Dask gives a job to a worker at once, also to a busy one; so only as many are submitted as can run.
    slots = len(jobs) if settings.name == "scheduler" else settings.workers
    try:
        ends = as_completed([submit(index) for index in islice(waiting, slots)])
        for future in ends:
            end = _read_end(future, settings)  # first: a result is on its worker, which the next job may end
            for index in islice(waiting, 1):
                ends.add(submit(index))
            yield indices.pop(future), end  # no result is kept
    finally:
        client.unsubscribe_topic("all")  # else its end is an event to a closed client
        client.cancel(list(indices))


def _run_on_worker(
    call: Callable[[JobContext], Value],
    *,
    folder: str,
    variables: Mapping[str, str],
    threads: int,
    gpus: int,
) -> tuple[bool, Value | None]:
    """Run a job on this worker; return whether it was interrupted, and its value."""
    from distributed import get_worker

    worker = get_worker()
    console.quiet = True  # a worker of this machine has the same terminal; its lines are reported
    try:
        os.chdir(folder)
    except OSError as error:
        raise SettingsError(
            f"{folder}: the worker {worker.name} on {socket.gethostname()} does not see this folder "
            f"({error}). Workers need the file system of the command."
        ) from error
    name = f"worker {worker.name} on {socket.gethostname()}"
    own = _gpu_variables(worker.name, gpus)
    report = partial(_report_from, worker, name)
    try:
        return False, call(JobContext(name, {**variables, **own}, threads, report))
    except KeyboardInterrupt:  # it would end the worker
        return True, None


def _report_from(worker: Any, name: str, text: str) -> None:  # noqa: ANN401 - Dask's own
    worker.log_event(TOPIC, f"{text} ({name})")


def _report_loss(event: tuple[float, Mapping[str, Any]], *, names: Mapping[str, str]) -> None:
    """Print which job has lost its worker."""
    message = event[1]
    if not isinstance(message, Mapping) or message.get("action") != "remove-worker":
        return
    for key in sorted(names.keys() & {str(key) for key in message.get("processing-tasks") or ()}):
        print_line(f"{names[key]}: its worker {message['worker']} was lost, another one takes it")


def _read_end(future: Any, settings: ClusterSettings) -> JobEnd[Any]:  # noqa: ANN401 - Dask's own
    """Return the end of a finished job.

    Raises:
        SettingsError: The workers lack Voxlift.
        KeyboardInterrupt: The job was interrupted.
    """
    from distributed import KilledWorker

    try:
        is_interrupted, value = future.result()
    except KilledWorker as error:
        times = f"{settings.retries + 1} times, the last was {error.last_worker.name}"
        return JobEnd(None, f"its workers were lost ({times}): killed, or out of memory")
    except ImportError as error:
        raise SettingsError(
            f"cluster={settings.name}: the workers cannot import what they need ({error}). They need the "
            "Python environment of this command."
        ) from error
    if is_interrupted:
        raise KeyboardInterrupt
    return JobEnd(value)


def _own_gpus(settings: ClusterSettings) -> int:
    """Return how many GPUs each worker of this machine has to itself; 0 where a queueing system sets that."""
    return settings.gpus if settings.name == "local" else 0


def _gpu_variables(worker: object, gpus: int) -> dict[str, str]:
    """Return the variable that shows a process the GPUs of its worker, which are numbered as the workers."""
    if not gpus:
        return {}
    first = int(str(worker)) * gpus
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    shown = visible if visible != [""] else [str(number) for number in range(first + gpus)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(shown[first : first + gpus])}

"""Run independent jobs one after another in this process, or hand them to Dask (group `cluster`).

Dask starts the workers, or submits them to a queueing system, hands out the jobs, and gives the job of a lost
worker to another one. A job must therefore be one that can be started again. A worker has one job at a time.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from voxlift.app.config.checks import find_choice_problems, find_range_problems
from voxlift.app.config.schema import ClusterSettings
from voxlift.app.errors import SettingsError, install_extra
from voxlift.app.progress import print_line

if TYPE_CHECKING:
    from distributed import Client, Future

Value = TypeVar("Value")

QUEUES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster"}
NAMES = ("none", "local", "scheduler", *QUEUES)
TOPIC = "voxlift"  # of the lines that jobs print
# Run by a worker of this machine as it starts: an interrupt from the terminal is for the command and the
# trainings, which a handler leaves as they are.
NO_INTERRUPT = "import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\n"
# Variables that may change what a training computes: its process on another machine gets this command's.
FORWARDED = ("KERAS_", "TF_", "XLA_", "JAX_", "PYTHONUTF8")


@dataclass(frozen=True)
class JobContext:
    """Where a job runs.

    Attributes:
        worker: Name and host of the worker; empty in this process.
        environment: Variables that the job's child processes get.
        report: Prints a line where the command was started.
    """

    worker: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
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


def find_cluster_problems(settings: ClusterSettings) -> list[str]:
    """Return one sentence for each problem in the group `cluster`."""
    name = settings.name
    problems = find_choice_problems("cluster.name", name, NAMES)
    problems += find_range_problems("cluster.workers", settings.workers, 1, 10_000)
    problems += find_range_problems("cluster.gpus", settings.gpus, 0, 64)
    problems += find_range_problems("cluster.retries", settings.retries, 0, 1000)
    if settings.threads is not None:
        problems += find_range_problems("cluster.threads", settings.threads, 1, 4096)
    if (name == "scheduler") != (settings.address is not None):
        problems.append(
            "cluster.address: expected the address of a scheduler, such as tcp://host:8786, with "
            f"cluster=scheduler and only there; received {settings.address} with cluster={name}."
        )
    if settings.dry_run and name not in QUEUES:
        problems.append(
            f"cluster.dry_run=true: expected cluster={' or '.join(QUEUES)}, which submit jobs; received "
            f"{name}."
        )
    return [*problems, *_find_missing_packages(name)]


def _find_missing_packages(name: str) -> list[str]:
    wanted = {"none": ()}.get(name, ("distributed", *(["dask_jobqueue"] if name in QUEUES else [])))
    missing = [package for package in wanted if importlib.util.find_spec(package) is None]
    listed = " and ".join(missing)
    return [f"cluster={name}: {listed} is not installed. {install_extra('cluster')}"] if missing else []


def count_threads(settings: ClusterSettings) -> int | None:
    """Return the CPU threads of each job; None leaves them to the job's process."""
    if settings.threads is not None or settings.name != "local":
        return settings.threads
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cpus // settings.workers)


def thread_variables(settings: ClusterSettings) -> dict[str, str]:
    """Return the variables that give a job's child processes their number of CPU threads."""
    threads = count_threads(settings)
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return {} if threads is None else dict.fromkeys(names, str(threads))


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
        for index, job in enumerate(jobs):
            yield index, JobEnd(job.call(JobContext(environment=thread_variables(settings))))
    elif jobs:
        with open_client(settings, jobs=len(jobs)) as client:
            yield from _run_on_workers(client, settings, jobs)


def _run_on_workers(
    client: Client, settings: ClusterSettings, jobs: Sequence[Job[Value]]
) -> Iterator[tuple[int, JobEnd[Value]]]:
    from distributed import as_completed

    client.subscribe_topic(TOPIC, lambda event: print_line(event[1]))
    client.subscribe_topic("all", partial(_report_loss, names={job.name for job in jobs}))
    resources = {"GPU": settings.gpus} if settings.gpus else None
    variables = {key: value for key, value in os.environ.items() if key.startswith(FORWARDED)}
    begin = partial(
        _run_on_worker,
        folder=str(Path.cwd()),
        variables=variables | thread_variables(settings),
        gpus=_own_gpus(settings),
    )
    waiting = iter(sorted(range(len(jobs)), key=lambda index: -jobs[index].priority))
    indices: dict[Future, int] = {}

    def submit(index: int) -> Future:
        job = jobs[index]
        future = client.submit(begin, job.call, key=job.name, resources=resources, pure=False)
        indices[future] = index
        return future

    # Dask gives a job to a worker at once, also to a busy one; so only as many are submitted as can run.
    slots = len(jobs) if settings.name == "scheduler" else settings.workers
    try:
        ends = as_completed([submit(index) for index in islice(waiting, slots)])
        for future in ends:
            for index in islice(waiting, 1):
                ends.add(submit(index))
            yield indices[future], _read_end(future, settings)
    finally:
        client.unsubscribe_topic("all")  # else its end is an event to a closed client
        client.cancel(list(indices))


def _run_on_worker(
    call: Callable[[JobContext], Value], *, folder: str, variables: Mapping[str, str], gpus: int
) -> tuple[bool, Value | None]:
    """Run a job on this worker; return whether it was interrupted, and its value."""
    from distributed import get_worker

    worker = get_worker()
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
        return False, call(JobContext(name, {**variables, **own}, report))
    except KeyboardInterrupt:  # it would end the worker
        return True, None


def _report_from(worker: Any, name: str, text: str) -> None:  # noqa: ANN401 - Dask's own
    worker.log_event(TOPIC, f"{text} ({name})")


def _report_loss(event: tuple[float, Mapping[str, Any]], *, names: set[str]) -> None:
    """Print which job has lost its worker."""
    message = event[1]
    if not isinstance(message, Mapping) or message.get("action") != "remove-worker":
        return
    for name in sorted(names & {str(key) for key in message.get("processing-tasks") or ()}):
        print_line(f"{name}: its worker {message['worker']} was lost, another one takes it")


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


@contextmanager
def open_client(settings: ClusterSettings, *, jobs: int) -> Iterator[Client]:
    """Connect to the scheduler, after starting it with its workers where it is not the user's own.

    Args:
        settings: Which cluster.
        jobs: Number of jobs: no more workers are started.

    Raises:
        SettingsError: The scheduler cannot be reached, or the queueing system takes no jobs.
    """
    import dask
    from distributed import Client

    for logger in ("distributed", "tornado.application", "asyncio"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)  # we report in our own words
    options = {
        "distributed.scheduler.allowed-failures": settings.retries,
        "distributed.scheduler.unknown-task-duration": "1h",  # worth moving from a busy worker to an idle one
    }
    with dask.config.set(options):
        cluster = None if settings.name == "scheduler" else _start_cluster(settings, jobs=jobs)
        try:
            client = Client(cluster or settings.address, timeout="5s")
        except OSError as error:
            raise SettingsError(
                f"cluster.address={settings.address}: no scheduler answers there ({error}). Start "
                "one with: dask scheduler"
            ) from error
        try:
            print_line(f"Dashboard of the jobs: {client.dashboard_link}")
            yield client
        finally:
            client.close()
            if cluster is not None:
                cluster.close()


def _start_cluster(settings: ClusterSettings, *, jobs: int) -> Any:  # noqa: ANN401 - Dask's own
    workers = min(settings.workers, jobs)
    if settings.name == "local":
        from distributed import LocalCluster

        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=0,  # a job's memory is that of its child process
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            resources={"GPU": settings.gpus} if settings.gpus else None,
            silence_logs=logging.CRITICAL,
            preload=[NO_INTERRUPT],
        )
    cluster = _build_queue(settings)
    if shutil.which(cluster.job_cls.submit_command.split()[0]) is None:
        cluster.close()
        raise SettingsError(
            f"cluster={settings.name}: the command {cluster.job_cls.submit_command} is not found. Start this "
            "command where jobs are submitted, such as on a login node; cluster.dry_run=true prints the job."
        )
    _submit_workers(cluster, workers, settings)
    return cluster


def _submit_workers(cluster: Any, workers: int, settings: ClusterSettings) -> None:  # noqa: ANN401 - Dask's own
    """Submit one job per worker; Dask submits lost ones again, and gives up those that have nothing to do."""

    async def submit() -> None:
        await cluster
        for job in list(cluster.workers.values()):
            await job  # raises why it was not taken, which the cluster itself does not

    cluster.scale(jobs=workers)
    try:
        cluster.sync(submit)
    except (RuntimeError, OSError) as error:
        with suppress(AssertionError):  # which Dask raises for jobs that were never submitted
            cluster.close()
        raise SettingsError(f"cluster={settings.name}: the job was not taken. {error}") from error
    cluster.adapt(minimum_jobs=1, maximum_jobs=workers, target_duration="1ms")
    print_line(f"{workers} jobs submitted to {settings.name}; trainings begin as the queue starts them")


def _build_queue(settings: ClusterSettings) -> Any:  # noqa: ANN401 - Dask's own
    """Return the cluster of a queueing system, with no job submitted yet.

    Raises:
        SettingsError: dask-jobqueue refuses a setting.
    """
    import dask_jobqueue

    given = {
        "queue": settings.queue,
        "project" if settings.name in {"sge", "lsf"} else "account": settings.account,
        "walltime": settings.walltime,
        "interface": settings.interface,
        "resource_spec": _gpu_resources(settings),
    }
    arguments = ["--nthreads", "1"]  # one training at a time, which has all CPUs of the job
    if settings.gpus:
        arguments += ["--resources", f"GPU={settings.gpus}"]
    try:
        return getattr(dask_jobqueue, QUEUES[settings.name])(
            cores=settings.threads,
            processes=1,
            memory=settings.memory,
            job_name="voxlift",
            worker_extra_args=arguments,
            job_extra_directives=[*_gpu_directives(settings), *settings.directives],
            job_script_prologue=[*settings.prologue, "export PYTHONSAFEPATH=1"],
            scheduler_options={"dashboard_address": ":0"},
            **{key: value for key, value in given.items() if value is not None},
        )
    except (ValueError, RuntimeError) as error:
        raise SettingsError(f"cluster={settings.name}: {error}") from error


def _gpu_directives(settings: ClusterSettings) -> list[str]:
    """Return the lines of a job's header that ask for GPUs, as each system writes them by default."""
    if not settings.gpus:
        return []
    return {
        "slurm": [f"--gres=gpu:{settings.gpus}"],
        "pbs": [],
        "sge": [f"-l gpu={settings.gpus}"],
        "lsf": [f"-gpu num={settings.gpus}"],
    }[settings.name]


def _gpu_resources(settings: ClusterSettings) -> str | None:
    """Return what a job of PBS asks for, where that are GPUs too: it takes one line for all."""
    if settings.name != "pbs" or not settings.gpus or settings.memory is None:
        return None
    from dask.utils import parse_bytes
    from dask_jobqueue.pbs import pbs_format_bytes_ceil

    memory = pbs_format_bytes_ceil(parse_bytes(settings.memory))
    return f"select=1:ncpus={settings.threads}:ngpus={settings.gpus}:mem={memory}"


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


def format_job_script(settings: ClusterSettings) -> str:
    """Return the script of the job that dask-jobqueue would submit for each worker."""
    cluster = _build_queue(settings)
    try:
        return str(cluster.job_script())
    finally:
        cluster.close()

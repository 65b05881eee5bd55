"""Start the workers of a cluster with Dask, or connect to them (group `cluster`); `jobs` hands them jobs."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from voxlift.app.config.checks import find_choice_problems, find_range_problems
from voxlift.app.config.schema import ClusterSettings
from voxlift.app.errors import SettingsError, install_extra
from voxlift.app.progress import print_line

if TYPE_CHECKING:
    from distributed import Client

QUEUES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster"}
NAMES = ("none", "local", "scheduler", *QUEUES)
# Run by a worker of this machine as it starts: an interrupt from the terminal is for the command and the
# trainings, which a handler leaves as they are.
NO_INTERRUPT = "import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\n"


def find_cluster_problems(settings: ClusterSettings) -> list[str]:
    """Return one sentence for each problem in the group `cluster`."""
    name = settings.name
    problems = find_choice_problems("cluster.name", name, NAMES)
    problems += find_range_problems("cluster.workers", settings.workers, 1, 10_000)
    problems += find_range_problems("cluster.gpus", settings.gpus, 0, 64)
    problems += find_range_problems("cluster.retries", settings.retries, 0, 1000)
    problems += find_range_problems("cluster.threads", settings.threads, 1, 4096)
    problems += find_range_problems("cluster.shard_size", settings.shard_size, 1, 1_000_000)
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
    from distributed.core import Status

    async def submit() -> None:
        await cluster
        for job in list(cluster.workers.values()):
            await job  # raises why it was not taken, which the cluster itself does not

    cluster.scale(jobs=workers)
    try:
        cluster.sync(submit)
    except (RuntimeError, OSError) as error:
        for job in cluster.workers.values():
            job.status = Status.failed  # else Dask asserts that it has ended, and does not close
        cluster.close()
        raise SettingsError(f"cluster={settings.name}: the job was not taken. {error}") from error
    cluster.adapt(minimum_jobs=1, maximum_jobs=workers, target_duration="1ms")
    print_line(f"{workers} jobs submitted to {settings.name}; work begins as the queue starts them")


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


def format_job_script(settings: ClusterSettings) -> str:
    """Return the script of the job that dask-jobqueue would submit for each worker."""
    cluster = _build_queue(settings)
    try:
        return str(cluster.job_script())
    finally:
        cluster.close()

"""Independent jobs on Dask: their values, lost workers, errors, job scripts, a queue that is a small script.

Jobs of these tests are nested functions: Dask sends those by value, as workers cannot import a test.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from commands import call_command, own_environment
from tiny import TINY
from voxlift.app.config.schema import ClusterSettings
from voxlift.app.errors import SettingsError
from voxlift.app.runtime.child import python_module
from voxlift.app.runtime.cluster import (
    count_threads,
    find_cluster_problems,
    format_job_script,
    thread_variables,
)
from voxlift.app.runtime.failures import PARENT
from voxlift.app.runtime.jobs import Job, run_jobs

LOCAL = ClusterSettings(name="local", workers=2, threads=1)
SLURM = ClusterSettings(
    name="slurm", workers=2, threads=4, gpus=1, queue="a100", account="lab", memory="16GiB",
    walltime="04:00:00", directives=["--constraint=a100"], prologue=["module load cuda"],
)  # fmt: skip
# They stand in for Slurm: a job is a process in the background.
SBATCH = """#!/bin/sh
echo "$1" >> {folder}/submitted; cp "$1" {folder}/script
setsid sh {folder}/script > {folder}/job.log 2>&1 &
echo "Submitted batch job $!"
"""
NAPPING = """
import sys, time
from voxlift.app.config.schema import ClusterSettings
from voxlift.app.runtime.jobs import Job, run_jobs
def main():
    def nap(context):
        context.report("napping")
        time.sleep(60)
    try:
        list(run_jobs(ClusterSettings(name="local", workers=1, threads=1), [Job("a", nap)]))
    except KeyboardInterrupt:
        sys.exit(130)
if __name__ == "__main__":
    main()
"""
SCANCEL = "#!/bin/sh\nkill -- -$1\n"


def run_all(settings, calls):
    jobs = [Job(f"{k}/{len(calls)}  job{k}", call) for k, call in enumerate(calls, start=1)]
    ends = dict(run_jobs(settings, jobs))
    return [ends[k] for k in range(len(calls))]


def test_without_a_cluster_jobs_run_here_one_after_another_and_not_all_where_the_caller_stops():
    begun = []
    jobs = [Job(f"{k}", lambda context, k=k: begun.append((k, context.worker))) for k in range(3)]
    for index, end in run_jobs(ClusterSettings(), jobs):
        assert end.problem == ""
        if index == 1:
            break
    assert begun == [(0, ""), (1, "")]


@pytest.mark.slow
def test_two_workers_share_the_jobs_and_report_in_our_words(tmp_path, capsys):
    def meet(context):  # ends only where another job runs at the same time
        (tmp_path / context.worker).touch()
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        context.report("it met the other")
        return context.worker, len(list(tmp_path.iterdir())), Path.cwd(), dict(context.environment)

    first, second = (end.value for end in run_all(LOCAL, [meet, meet]))
    assert first[0] != second[0]
    assert first[1:3] == second[1:3] == (2, Path.cwd())
    assert first[3]["TF_NUM_INTRAOP_THREADS"] == "1"
    shown = capsys.readouterr().out
    assert "http://127.0.0.1:" in shown
    assert f"it met the other ({first[0]})" in shown


@pytest.mark.slow
def test_a_job_whose_worker_is_killed_runs_on_another_as_often_as_allowed(tmp_path, capsys):
    def die_once(context):
        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return context.worker

    def die(_):
        with (tmp_path / "deaths").open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    again, lost = run_all(replace(LOCAL, workers=1, retries=1), [die_once, die])
    assert again.value.startswith("worker ")
    assert lost.value is None
    assert "2 times" in lost.problem
    assert (tmp_path / "deaths").read_text() == "xx"
    shown = capsys.readouterr().out
    assert "1/2  job1: its worker" in shown
    assert "Traceback" not in shown


@pytest.mark.slow
def test_an_error_and_an_interrupt_of_a_job_reach_the_command():
    def refuse(_):
        raise SettingsError("the reason")

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(SettingsError, match="the reason"):
        run_all(LOCAL, [refuse])
    with pytest.raises(KeyboardInterrupt):
        run_all(LOCAL, [interrupt])


@pytest.mark.slow
def test_an_interrupt_from_the_terminal_ends_command_and_workers_without_a_traceback(tmp_path):
    (tmp_path / "napping.py").write_text(NAPPING)
    with (tmp_path / "shown").open("w") as shown:
        command = subprocess.Popen(
            [sys.executable, tmp_path / "napping.py"], env=own_environment(), start_new_session=True,
            stdout=shown, stderr=subprocess.STDOUT,
        )  # fmt: skip
    wait_for(lambda: "napping" in (tmp_path / "shown").read_text())
    os.killpg(command.pid, signal.SIGINT)
    assert command.wait(timeout=60) == 130
    assert "Traceback" not in (tmp_path / "shown").read_text()
    wait_for(lambda: not is_group_running(command.pid))


def is_group_running(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_threads_of_a_job():
    cpus = len(os.sched_getaffinity(0))
    assert count_threads(ClusterSettings(name="local", workers=2 * cpus)) == 1
    assert count_threads(ClusterSettings(name="local", workers=1)) == cpus
    assert thread_variables(ClusterSettings()) == {}
    assert set(thread_variables(ClusterSettings(threads=3)).values()) == {"3"}


def test_a_command_of_ours_dies_with_the_process_that_started_it(tmp_path):
    waiting = "from voxlift.app.runtime.failures import die_with_parent as d; d(); import os, time; "
    waiting += f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    variables = f"{{**os.environ, {PARENT!r}: str(os.getpid())}}"
    starter = (
        "import subprocess, sys, os, time; "
        f"subprocess.Popen([sys.executable, '-c', {waiting!r}], env={variables}); "
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", starter], env=own_environment())
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    child = int((tmp_path / "pid").read_text())
    wait_for(lambda: not is_running(child))


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_the_job_script_of_slurm_asks_for_what_the_keys_say():
    script = format_job_script(SLURM)
    for line in ("-p a100", "-A lab", "--cpus-per-task=4", "--mem=16G", "-t 04:00:00", "--gres=gpu:1",
                 "--constraint=a100"):  # fmt: skip
        assert f"#SBATCH {line}\n" in script
    header, _, worker = script.partition("module load cuda\n")
    assert "dask_worker" not in header
    assert f"{sys.executable} -m distributed.cli.dask_worker tcp://" in worker
    assert worker.rindex("--nthreads 1 ") > worker.index("--nthreads 4")
    assert "--resources GPU=1" in worker


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("pbs", "#PBS -l select=1:ncpus=4:ngpus=1:mem=16GB"),
        ("sge", "#$ -l gpu=1"),
        ("lsf", "#BSUB -gpu num=1"),
    ],
)
def test_the_job_scripts_of_other_systems_ask_for_gpus(name, line):
    keys = {"name": name, "threads": 4, "gpus": 1, "memory": "16GiB", "account": "lab"}
    script = format_job_script(ClusterSettings(**keys))
    assert line in script
    assert "lab" in script


@pytest.mark.slow
def test_a_dry_run_prints_the_job_and_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ("cluster=slurm", "cluster.queue=a100", "cluster.dry_run=true")
    assert call_command("compare", "models=[slice2d,volume3d]", *given) == 0
    assert "#SBATCH -p a100" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_jobs_of_a_queue_do_the_work_and_end(tmp_path, monkeypatch):
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    settings = ClusterSettings(name="slurm", workers=3, threads=1, gpus=1, memory="1GiB", walltime="00:10:00")

    def work(context):
        return os.getpid(), context.worker

    (end,) = run_all(settings, [work])
    pid, worker = end.value
    assert pid != os.getpid()
    assert "SLURMCluster" in worker
    assert len((tmp_path / "submitted").read_text().split()) == 1  # no more jobs than trainings
    wait_for(lambda: not is_running(pid))


@pytest.mark.slow
def test_a_queue_that_takes_no_job_is_reported(tmp_path, monkeypatch):
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho invalid partition >&2; exit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    settings = ClusterSettings(name="slurm", threads=1, memory="1GiB", queue="none")
    with pytest.raises(SettingsError, match="invalid partition"):
        run_all(settings, [lambda _: None])
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(SettingsError, match="sbatch"):
        run_all(settings, [lambda _: None])


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"name": "grid"}, "cluster.name"),
        ({"name": "local", "workers": 0}, "cluster.workers"),
        ({"name": "scheduler"}, "cluster.address"),
        ({"name": "local", "address": "tcp://here:8786"}, "cluster.address"),
        ({"name": "local", "dry_run": True}, "cluster.dry_run"),
        ({"threads": 0}, "cluster.threads"),
    ],
)
def test_a_mistake_names_its_key(keys, named):
    assert named in " ".join(find_cluster_problems(ClusterSettings(**keys)))


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    (problem,) = find_cluster_problems(SLURM)
    assert "dask_jobqueue" in problem
    assert "voxlift[cluster]" in problem
    assert find_cluster_problems(ClusterSettings()) == []


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_named():
    settings = ClusterSettings(name="scheduler", address="tcp://127.0.0.1:9")
    with pytest.raises(SettingsError, match="9"):
        run_all(settings, [lambda _: None])


@pytest.mark.slow
def test_a_comparison_on_two_workers_one_of_them_killed_equals_one_without_a_cluster(tmp_path):
    shared = ["models=[slice2d,volume3d]", *TINY, "trainer.epochs=4"]
    shared += ["preflight.enabled=false", "deterministic=true", "cluster.threads=1"]

    def start(*own):
        command = python_module("voxlift.app.cli.compare", *shared, *own)
        return subprocess.Popen(
            command, cwd=tmp_path, env=own_environment(), stdout=subprocess.PIPE, text=True
        )

    alone = start("run_dir=alone", "runs_folder=a")
    alone.communicate()
    running = start("run_dir=shared", "runs_folder=b", "cluster=local", "cluster.workers=2")
    killed = tmp_path / "shared/runs/volume3d-seed0"
    wait_for(
        lambda: (
            (killed / "history.csv").exists() and len((killed / "history.csv").read_text().splitlines()) > 1
        )
    )
    os.kill(worker_of(killed), signal.SIGKILL)
    shown, _ = running.communicate()
    assert (alone.returncode, running.returncode) == (0, 0)
    assert "2/2  volume3d-seed0: its worker" in shown
    assert "2/2  volume3d-seed0: resuming" in shown
    first, second = (
        json.loads((tmp_path / name / "comparison.json").read_text()) for name in ("alone", "shared")
    )
    assert first["pairs"] == second["pairs"]
    for run in ("slice2d-seed0", "volume3d-seed0"):
        scores = [
            (tmp_path / name / "runs" / run / "predictions.csv").read_bytes() for name in ("alone", "shared")
        ]
        assert scores[0] == scores[1]


def worker_of(run):
    """The process of the worker whose child trains in a run folder."""
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if "voxlift.app.cli.train" in line and str(run.name) in line and "shared" in line:
            parents = process.parents()
            return next(one.pid for one in parents if "voxlift.app.cli.train" not in " ".join(one.cmdline()))
    raise AssertionError(run)

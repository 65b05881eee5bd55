"""Shards of files on workers: nothing is lost with a worker, and results equal those without a cluster."""

import csv
import json
import os
import signal
import subprocess
import time

import nibabel as nib
import numpy as np
import psutil
import pytest

from commands import call_command, own_environment
from tiny import train_tiny
from voxlift.app.config.schema import ClusterSettings
from voxlift.app.runtime.child import python_module
from voxlift.app.runtime.shards import open_mapper, split_shards

FILES = 24
BAD = 5  # the file that cannot be read
ONE_THREAD = "cluster.threads=1"
ON_WORKERS = ("cluster=local", "cluster.workers=2", ONE_THREAD, "cluster.shard_size=2")


def test_shards_hold_every_place_once_in_whole_batches():
    for count, workers, multiple, asked in [
        (0, 1, 1, None),
        (7, 2, 4, None),
        (5000, 3, 16, None),
        (9, 2, 4, 2),
    ]:
        settings = ClusterSettings(name="local", workers=workers, shard_size=asked)
        shards = split_shards(count, settings, multiple=multiple)
        assert [k for places in shards for k in places] == list(range(count))
        assert all(len(places) % multiple == 0 for places in shards[:-1])


def test_without_a_cluster_items_are_mapped_in_order_by_threads():
    with open_mapper(ClusterSettings(), unit="files", workers=3) as mapper:
        found = list(mapper(lambda k: (time.sleep(0.01 * (k % 2)), k)[1], range(20), lost=None))
    assert found == list(range(20))


@pytest.mark.slow
def test_of_a_shard_that_ends_its_workers_only_the_item_that_does_so_is_lost(capsys):
    def square(k):
        if k == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return k * k

    settings = ClusterSettings(name="local", workers=1, threads=1, shard_size=3, retries=0)
    with open_mapper(settings, unit="files") as mapper:
        found = list(mapper(square, range(8), lost=lambda k, reason: (k, reason)))
    assert found[:5] + found[6:] == [0, 1, 4, 9, 16, 36, 49]
    assert found[5][0] == 5
    assert "lost" in found[5][1]
    assert "3 files of lost shards" in capsys.readouterr().out


@pytest.fixture
def table(tmp_path):
    """Files of two classes, one of which cannot be read."""
    rng = np.random.default_rng(0)
    rows = ["file,label,subject"]
    for k in range(FILES):
        image = nib.Nifti1Image(rng.integers(0, 900, (48, 40, 44), np.int16), np.diag([2, 2, 2.5, 1]))
        image.to_filename(tmp_path / f"{k:02}.nii.gz")
        rows.append(f"{k:02}.nii.gz,{'ab'[k % 2]},s{k:02}")
    bad = tmp_path / f"{BAD:02}.nii.gz"
    bad.write_bytes(bad.read_bytes()[:2000])
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "labels.csv"


def kill_a_worker(folder, command, *arguments):
    """The output and status of a command, one of whose workers was killed with a shard in its hands."""
    shown = folder / f"{command}.txt"
    with shown.open("w") as file:
        running = subprocess.Popen(
            python_module(f"voxlift.app.cli.{command}", *arguments, *ON_WORKERS),
            cwd=folder, env=own_environment(), stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    deadline = time.monotonic() + 200
    while "Dashboard" not in shown.read_text():
        assert running.poll() is None, shown.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    workers = [
        one for one in psutil.Process(running.pid).children(recursive=True)
        if "spawn_main" in " ".join(one.cmdline())
    ]  # fmt: skip
    workers[0].send_signal(signal.SIGSTOP)  # so that a shard is in its hands, or soon will be
    time.sleep(1)
    workers[0].kill()
    running.wait(timeout=500)
    text = shown.read_text()
    assert "was lost, another one takes it" in text
    assert "(worker " in text
    assert "Traceback" not in text
    return text, running.returncode


def data_of(table):
    return ("data=manifest", f"data.table={table}", "data.image_column=file", "data.subject_column=subject")


@pytest.mark.slow
@pytest.mark.parametrize("on_bad_file", ["stop", "skip"])
def test_a_preparation_whose_worker_is_killed_fills_the_cache_that_a_training_reads(
    table, tmp_path, capsys, on_bad_file
):
    shared = (
        *data_of(table),
        "preprocess=mri",
        "preprocess.shape=[24,32,40]",
        f"data.on_bad_file={on_bad_file}",
    )
    text, status = kill_a_worker(tmp_path, "prepare", *shared, "cache.folder=many")
    alone = call_command("prepare", *shared, f"cache.folder={tmp_path}/one")
    assert status == alone == {"stop": 2, "skip": 0}[on_bad_file]
    assert f"{BAD:02}.nii.gz" in text
    assert f"{FILES - 1} of {FILES}" in text
    assert f"{FILES - 1} of {FILES}" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "many").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


@pytest.mark.slow
def test_an_audit_whose_worker_is_killed_equals_one_without_a_cluster(table, tmp_path):
    _, status = kill_a_worker(tmp_path, "audit", *data_of(table), "output=many", "measure=true")
    assert call_command("audit", *data_of(table), f"output={tmp_path}/one", "measure=true") == status == 1
    for name in ("audit.csv", "audit.measures.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()
    one, many = (json.loads((tmp_path / name / "audit.json").read_text()) for name in ("one", "many"))
    assert one | {"created": ""} == many | {"created": ""}
    assert one["unreadable"] == 1


@pytest.mark.slow
def test_a_prediction_whose_worker_is_killed_equals_one_without_a_cluster(table, tmp_path):
    run = train_tiny(tmp_path, "run", "preflight.enabled=false", "trainer.epochs=1")
    shared = (f"run={run.path}", f"input={table}", "image_columns=[file]", "subject_column=subject")
    text, status = kill_a_worker(tmp_path, "predict", *shared, "batch_size=2", "output=many.csv")
    done = subprocess.run(
        python_module("voxlift.app.cli.predict", *shared, "batch_size=2", "output=one.csv"),
        cwd=tmp_path, env=own_environment() | {"TF_NUM_INTRAOP_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert status == done.returncode == 0
    with (tmp_path / "one.csv").open() as one, (tmp_path / "many.csv").open() as many:
        expected, found = list(csv.DictReader(one)), list(csv.DictReader(many))
    assert found == expected
    assert [row["subject"] for row in found if row["reason"]] == [f"s{BAD:02}"]
    assert f"Cannot be scored: {expected[BAD]['reason']}" in text

"""Threads and memory are chosen for what the process may use, and said."""

import json
import subprocess
import sys

import pytest

from voxlift.app.runtime import environment as processor
from voxlift.app.runtime.environment import usable_cpus

SCRIPT = """
import json, resource
import numpy as np
from voxlift.app.runtime.environment import prepare_processor
chosen = prepare_processor()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(2**23)  # 64 MiB, above every threshold of glibc's own
print(json.dumps([chosen.described(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 4),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "900000 100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu.max": "nonsense"}, 4),
        ({}, 4),
    ],
)
def test_a_container_s_quota_limits_the_threads(tmp_path, monkeypatch, files, cpus):
    monkeypatch.setattr(processor.os, "sched_getaffinity", lambda _: range(4), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    found, reason = usable_cpus(tmp_path)
    assert found == cpus
    assert ("quota" in reason) == (cpus < 4)


def run_in_new_process(**environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**processor.os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(processor.platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_freed_memory_is_not_faulted_in_again():
    chosen, faults = run_in_new_process()
    assert chosen["keeps_memory"]
    assert chosen["onednn"]
    assert chosen["threads"] == usable_cpus()[0]
    assert faults < 1000  # 81 920 pages otherwise


def test_what_the_user_set_stays():
    chosen, _ = run_in_new_process(
        TF_NUM_INTRAOP_THREADS="1", MALLOC_TRIM_THRESHOLD_="131072", TF_ENABLE_ONEDNN_OPTS="0"
    )
    assert (chosen["threads"], chosen["keeps_memory"], chosen["onednn"]) == (1, False, False)
    assert "TF_NUM_INTRAOP_THREADS" in chosen["threads_reason"]


def test_one_line_says_it_all():
    chosen = processor.Processor(threads=2, threads_reason="one for each CPU", onednn=True, keeps_memory=True)
    assert str(chosen) == (
        "CPU: 2 threads (one for each CPU), oneDNN on, freed memory kept for the next step"
    )

"""Threads and malloc are set for what the process may use, unless the user has set them."""

import json
import subprocess
import sys

import pytest

from voxlift.app.runtime import setup
from voxlift.app.runtime.setup import count_usable_cpus

SCRIPT = """
import dataclasses, json, resource
import numpy as np
from voxlift.app.runtime.setup import prepare_processor
chosen = prepare_processor()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(2**23)  # 64 MiB, above every threshold of glibc's own
print(json.dumps([dataclasses.asdict(chosen), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


QUOTAS = [
    ({"cpu.max": "50000 100000"}, 1),
    ({"cpu.max": "max 100000"}, 4),
    ({"cpu.max": "250000 100000"}, 3),
    ({"cpu.max": "900000 100000"}, 4),
    ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 4),
    ({"cpu.max": "nonsense"}, 4),
    ({}, 4),
]


def test_a_quota_of_the_container_limits_the_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(setup.os, "sched_getaffinity", lambda _: range(4), raising=False)
    for number, (files, cpus) in enumerate(QUOTAS):
        for name, text in files.items():
            path = tmp_path / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        found, reason = count_usable_cpus(tmp_path / str(number))
        assert found == cpus, files
        assert ("quota" in reason) == (cpus < 4)


def run_in_new_process(**environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**setup.os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(setup.platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_freed_memory_is_not_faulted_in_again():
    chosen, faults = run_in_new_process()
    assert chosen["keeps_memory"]
    assert chosen["onednn"]
    assert chosen["threads"] == count_usable_cpus()[0]
    assert faults < 1000  # 81 920 pages otherwise


def test_variables_of_the_user_are_kept():
    chosen, _ = run_in_new_process(
        TF_NUM_INTRAOP_THREADS="1", MALLOC_TRIM_THRESHOLD_="131072", TF_ENABLE_ONEDNN_OPTS="0"
    )
    assert (chosen["threads"], chosen["keeps_memory"], chosen["onednn"]) == (1, False, False)
    assert "TF_NUM_INTRAOP_THREADS" in chosen["threads_reason"]


def test_the_log_line_has_every_field():
    chosen = setup.Processor(threads=2, threads_reason="for a reason", onednn=False, keeps_memory=True)
    line = str(chosen)
    assert "2 threads (for a reason)" in line
    assert "oneDNN off (TF_ENABLE_ONEDNN_OPTS)" in line
    assert line != str(setup.Processor(2, "for a reason", onednn=False, keeps_memory=False))

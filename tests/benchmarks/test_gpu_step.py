"""The functions of the GPU benchmark that need no GPU: the largest batch, agreement, failures, the table."""

import argparse
import csv
import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu_step.py"


@pytest.fixture(name="bench", scope="module")
def bench_fixture():
    spec = importlib.util.spec_from_file_location("gpu_step", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    path, sys.path[:] = list(sys.path), list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def test_the_largest_batch_is_found_in_few_tries(bench):
    for capacity in (4, 5, 8, 31, 32, 37, 63, 64, 200):
        tried = []

        def fits(batch, capacity=capacity, tried=tried):
            tried.append(batch)
            return batch <= capacity

        assert bench.find_largest_batch(fits, known=4, limit=64) == min(capacity, 64)
        assert len(tried) == len(set(tried)) <= 10
        assert max(tried) <= 64


def test_a_network_that_does_not_fit_is_a_row_and_logits_are_compared(bench, monkeypatch, tmp_path):
    def answer(task, **_):
        if task["precision"] == "mixed_float16":
            return None
        if task["batch"] > 6:
            return None
        logits = [[-0.5, 0.25]] if task["precision"] == "float32" else [[-0.49, 0.25]]
        return {
            "batch": task["batch"],
            "volumes_per_s": 1.0,
            "ms_per_step": 2.0,
            "loss": 1.0,
            "logits": logits,
        }

    monkeypatch.setattr(bench, "measure_in_child", answer)
    options = argparse.Namespace(
        profile=None, processes=1, precision=bench.PRECISIONS, batch=4, limit=64, timeout=1.0
    )
    rows = bench.compare_precisions("demo", 16, options)
    assert [row.get("largest_batch") for row in rows] == [6, 6, None]
    assert [row.get("differs_from_float32") for row in rows] == [0, 0.02, None]
    assert rows[2]["ms_per_step"] == "does not fit"
    bench.write_csv(tmp_path / "table.csv", rows)
    with (tmp_path / "table.csv").open() as file:
        assert [row["precision"] for row in csv.DictReader(file)] == list(bench.PRECISIONS)


@pytest.mark.parametrize(("code", "errors"), [(-9, ""), (1, "RESOURCE_EXHAUSTED: Out of memory allocating")])
def test_out_of_memory_is_a_result_and_another_failure_is_an_error(code, errors, bench, monkeypatch):
    def child(status, errors):
        return lambda *_, **__: argparse.Namespace(returncode=status, stdout="", stderr=errors)

    monkeypatch.setattr(bench.subprocess, "run", child(code, errors))
    assert bench.measure_in_child({}, timeout=1) is None
    monkeypatch.setattr(bench.subprocess, "run", child(1, "ImportError: no module"))
    with pytest.raises(bench.MeasurementError, match="no module"):
        bench.measure_in_child({}, timeout=1)
    options = argparse.Namespace(
        profile=None, processes=1, precision=["float32"], batch=4, limit=64, timeout=1.0
    )
    assert bench.compare_precisions("demo", 16, options)[0]["ms_per_step"] == "fails"


def test_a_larger_batch_that_fails_or_takes_too_long_keeps_the_row(bench, monkeypatch):
    def child(command, **_):
        task = json.loads(command[-1])
        if task["batch"] > 10:
            raise bench.subprocess.TimeoutExpired(command, 1)
        row = {"batch": task["batch"], "volumes_per_s": 1.0, "ms_per_step": 2.0, "logits": [[1.0]]}
        failed = task["batch"] > 6
        return argparse.Namespace(returncode=failed, stdout=json.dumps(row), stderr="no algorithm")

    monkeypatch.setattr(bench.subprocess, "run", child)
    options = argparse.Namespace(
        profile=None, processes=1, precision=["float32"], batch=4, limit=64, timeout=1.0
    )
    (row,) = bench.compare_precisions("demo", 16, options)
    assert row["largest_batch"] == 6
    with pytest.raises(bench.MeasurementError, match="1 s"):
        bench.measure_in_child({"batch": 11}, timeout=1.0)

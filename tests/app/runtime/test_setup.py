"""Threads, malloc and precision suit the device: what its kernels cannot compute is computed in float32."""

import json
import logging
import subprocess
import sys

import keras
import numpy as np
import pytest

from voxlift.app.runs.folder import load_network
from voxlift.app.runtime import setup
from voxlift.app.runtime.setup import count_usable_cpus, protect_pooling, protect_shallow_convolutions
from voxlift.models.baselines import build_baseline
from voxlift.models.lifting import plan_lift
from voxlift.models.slice_model import wrap_slices

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


RNG = np.random.default_rng(0)
SHAPE = (6, 8, 10, 1)  # [D, H, W, C]


def build_stack(depth, kernel, policy):
    inputs = keras.Input((depth, 8, 8, 1))
    inner = keras.Sequential([keras.layers.Conv3D(2, kernel, padding="same", name="nested", dtype=policy)])
    x = keras.layers.Conv3D(2, kernel, padding="same", name="outer", dtype=policy)(inputs)
    return keras.Model(inputs, inner(x))


@pytest.mark.parametrize(
    ("depth", "kernel", "changed"),
    [
        (1, 3, []),
        (2, 3, ["outer", "nested"]),
        (3, 3, ["outer", "nested"]),
        (4, 3, []),
        (5, 5, ["outer", "nested"]),
    ],
)
def test_only_convolutions_on_few_slices_leave_bfloat16(depth, kernel, changed):
    network = build_stack(depth, kernel, "mixed_bfloat16")
    assert sorted(protect_shallow_convolutions(network)) == sorted(changed)
    policies = {layer.compute_dtype for layer in network._flatten_layers() if "Conv" in type(layer).__name__}
    assert policies == {"float32" if changed else "bfloat16"}


def test_float32_networks_are_left_alone():
    assert protect_shallow_convolutions(build_stack(2, 3, "float32")) == []


def test_the_protection_is_saved_with_the_model(tmp_path):
    network = build_stack(2, 3, "mixed_bfloat16")
    protect_shallow_convolutions(network)
    network.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    assert loaded.get_layer("outer").compute_dtype == "float32"


def test_a_convolution_with_a_safe_gradient_stays_in_bfloat16():
    from voxlift.models.layers import FewPositionsConv3D

    inputs = keras.Input((2, 8, 8, 2))
    x = FewPositionsConv3D(2, 3, padding="same", name="safe", dtype="mixed_bfloat16")(inputs)
    x = FewPositionsConv3D(2, 3, padding="same", groups=2, name="grouped", dtype="mixed_bfloat16")(x)
    assert protect_shallow_convolutions(keras.Model(inputs, x)) == ["grouped"]


def flat_network():
    return build_baseline("cnn", input_shape=SHAPE[1:], classes=2, filters=(2, 3, 4))


def adaptive_network():
    """As somebody might bring it along."""
    inputs = keras.Input(SHAPE)
    x = keras.layers.AdaptiveMaxPooling3D(4)(keras.layers.AdaptiveAveragePooling3D(5)(inputs))
    x = keras.layers.AveragePooling3D(2)(x)
    return keras.Model(inputs, keras.layers.Dense(2, dtype="float32")(keras.layers.Flatten()(x)))


@pytest.mark.parametrize(
    "build",
    [
        lambda: plan_lift(flat_network(), depth=SHAPE[0], depth_policy="isotropic").build(),
        lambda: wrap_slices(flat_network(), input_shape=SHAPE),
        adaptive_network,
    ],
    ids=["lifted", "slices", "brought along"],
)
def test_a_network_trained_in_float16_on_a_gpu_scores_on_a_cpu(build, tmp_path):
    keras.utils.set_random_seed(0)
    wide = build()
    keras.config.set_dtype_policy("mixed_float16")
    network = build()
    network.set_weights(wide.get_weights())
    network.save(tmp_path / "a.keras")
    voxels = RNG.normal(size=(3, *SHAPE)).astype("float32")
    loaded = load_network(tmp_path / "a.keras")
    assert "float16" in {layer.compute_dtype for layer in loaded._flatten_layers()}
    scores = loaded.predict(voxels, verbose=0)
    np.testing.assert_allclose(scores, wide.predict(voxels, verbose=0), atol=0.02)


def test_pooling_in_other_precisions_is_left_alone():
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert protect_pooling(adaptive_network()) == []


def test_advice_on_retracing_is_not_shown_and_other_warnings_are():
    setup.import_quietly()
    logger = logging.getLogger("tensorflow")
    texts = ("5 out of the last 10 calls to <f> triggered tf.function retracing.", "a warning")
    records = [logger.makeRecord("tensorflow", logging.WARNING, "", 0, text, (), None) for text in texts]
    assert [bool(logger.filter(record)) for record in records] == [False, True]

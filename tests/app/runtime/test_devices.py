"""Free memory respects containers, batch jobs and ulimit; an unknown or missing backend is refused."""

import resource

import pytest

from voxlift.app.config import SettingsError
from voxlift.app.runtime.devices import (
    check_backend,
    find_host_memory,
    read_address_space_left,
    read_cgroup_bytes_left,
)

GIB = 2**30


NAMES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def write_group(folder, *, limit, used, droppable=0, version=2, path=""):
    group = (folder / "memory" if version == 1 else folder) / path
    group.mkdir(parents=True, exist_ok=True)
    limit_name, used_name, droppable_name = NAMES[version]
    (group / limit_name).write_text(str(limit))
    (group / used_name).write_text(str(used))
    (group / "memory.stat").write_text(f"anon 5\n{droppable_name} {droppable}\n")


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_container_counts_without_what_the_kernel_can_drop(version, tmp_path):
    write_group(tmp_path, limit=4 * GIB, used=3 * GIB, droppable=GIB, version=version)
    assert read_cgroup_bytes_left(tmp_path) == 2 * GIB


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_group_around_a_batch_job_counts(version, tmp_path):
    own = tmp_path / "own"
    own.write_text(
        "9:name=systemd:/x\n4:cpu:/y\n" + ("0::/job/step\n" if version == 2 else "3:memory:/job/step\n")
    )
    groups = tmp_path / "groups"
    write_group(groups, limit="max", used=9 * GIB, version=version)
    write_group(groups, limit=3 * GIB, used=GIB, version=version, path="job")
    assert read_cgroup_bytes_left(groups, own) == 2 * GIB
    write_group(groups, limit=4 * GIB, used=3 * GIB, version=version, path="job/step")
    assert read_cgroup_bytes_left(groups, own) == GIB


def test_a_limited_address_space_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, 0))
    assert read_address_space_left() is None
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**50, 2**50))
    assert 2**49 < read_address_space_left() < 2**50
    monkeypatch.setattr("voxlift.app.runtime.devices.read_address_space_left", lambda: GIB // 64)
    found = find_host_memory(tmp_path, tmp_path / "none")
    assert (found.free, found.name) == (GIB // 64, "this process (ulimit -v)")


def test_no_limit_leaves_the_machines_own_memory(tmp_path):
    write_group(tmp_path, limit="max", used=GIB)
    assert read_cgroup_bytes_left(tmp_path) is None
    assert find_host_memory(tmp_path).name == "this machine"


def test_the_tighter_of_container_and_machine_counts(tmp_path):
    write_group(tmp_path, limit=GIB // 64, used=0)
    found = find_host_memory(tmp_path)
    assert (found.free, found.name) == (GIB // 64, "this container or batch job")


def test_an_unknown_or_missing_backend_is_refused(monkeypatch):
    check_backend({})
    with pytest.raises(SettingsError, match=r"KERAS_BACKEND\b.*torch"):
        check_backend({"KERAS_BACKEND": "torch"})
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'voxlift\[jax\]'"):
        check_backend({"KERAS_BACKEND": "jax"})

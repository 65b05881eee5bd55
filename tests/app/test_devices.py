"""What the engine and its memory are: control groups on made-up files, refusals by message."""

import pytest

from app.devices import cgroup_bytes_left, check_backend, host_memory
from app.settings import SettingsError

GIB = 2**30


def write_group(folder, *, limit, used, droppable=0, version=2):
    names = {
        2: ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        1: (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    }[version]
    (folder / "memory").mkdir()
    for name, text in zip(names, (limit, used, f"anon 5\n{names[3]} {droppable}\n"), strict=False):
        (folder / name).write_text(str(text))


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_counts_without_what_the_kernel_can_drop(version, tmp_path):
    write_group(tmp_path, limit=4 * GIB, used=3 * GIB, droppable=GIB, version=version)
    assert cgroup_bytes_left(tmp_path) == 2 * GIB


def test_no_limit_leaves_the_machines_own_memory(tmp_path):
    write_group(tmp_path, limit="max", used=GIB)
    assert cgroup_bytes_left(tmp_path) is None
    assert host_memory(tmp_path).name == "this machine"


def test_the_tighter_of_container_and_machine_counts(tmp_path):
    write_group(tmp_path, limit=GIB // 64, used=0)
    found = host_memory(tmp_path)
    assert (found.free, found.name) == (GIB // 64, "this container")


def test_an_unknown_or_missing_engine_is_refused_with_the_way_out(monkeypatch):
    check_backend({})
    with pytest.raises(SettingsError, match="KERAS_BACKEND: expected tensorflow or jax; received torch"):
        check_backend({"KERAS_BACKEND": "torch"})
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'voxlift\[jax\]'"):
        check_backend({"KERAS_BACKEND": "jax"})

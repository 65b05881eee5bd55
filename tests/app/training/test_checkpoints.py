"""Checkpoints: whole or not there, two kept, and a damaged one falls back to the one before."""

import errno
import logging
import os
import resource
import time
import zipfile

import numpy as np
import pytest

from voxlift.app.config import SettingsError
from voxlift.app.files import write_beside
from voxlift.app.training.callbacks.monitoring import EarlyStopping
from voxlift.app.training.callbacks.stateful import restore_states
from voxlift.app.training.checkpoints import (
    Checkpoint,
    Checkpoints,
    Phase,
    Position,
    plan_phases,
    read_arrays,
    write_arrays,
)


def checkpoint_of(epoch, step=0):
    arrays = {"network/00000": np.full((3, 5), epoch, np.float32), "optimizer/00000": np.array(step)}
    return Checkpoint(
        Position(epoch, step), arrays, {"rows": [epoch, float("-inf")]}, {"00000": np.ones(4) * epoch}
    )


@pytest.fixture
def kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for epoch, best_epoch in ((1, 0), (2, 0), (3, 2)):
        checkpoints.save(checkpoint_of(epoch), best_epoch=best_epoch)
    return checkpoints


def names(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_arrays_and_values_come_back(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.uint32).reshape(2, 3), "b": np.array(2.5)}
    write_arrays(tmp_path / "x.npz", arrays, {"best": [float("-inf"), 1e-17], "rows": [{"loss": 0.1}]})
    found, state = read_arrays(tmp_path / "x.npz")
    assert state == {"best": [float("-inf"), 1e-17], "rows": [{"loss": 0.1}]}
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_the_newest_two_are_kept_with_the_best_weights_that_they_name(kept):
    assert names(kept) == ["at-0002-000000.npz", "at-0003-000000.npz", "best-0000.npz", "best-0002.npz"]
    found = kept.load()
    assert found.position == Position(3)
    assert found.state["rows"] == [3, float("-inf")]
    np.testing.assert_array_equal(found.best["00000"], np.full(4, 3.0))
    kept.thin()
    assert names(kept) == ["at-0003-000000.npz", "best-0002.npz"]


def test_positions_within_an_epoch_are_ordered(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for at in ((1, 0), (0, 40), (1, 12), (1, 4)):
        checkpoints.save(checkpoint_of(*at), best_epoch=-1)
    assert checkpoints.load().position == Position(1, 12)


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "best"])
def test_a_damaged_newest_one_falls_back_and_is_named(damage, kept, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("voxlift"), "propagate", True)
    path = kept.folder / ("best-0002.npz" if damage == "best" else "at-0003-000000.npz")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[200] ^= 0xFF
    path.write_bytes(
        {"cut": content[: len(content) // 2], "empty": b""}.get(
            damage, content[:-40] if damage == "best" else content
        )
    )
    with caplog.at_level(logging.INFO, "voxlift"):
        assert kept.load().position == Position(2)
    assert "at-0003-000000.npz" in caplog.text
    kept.save(checkpoint_of(3), best_epoch=2)
    assert kept.load().position == Position(3)


def test_where_none_can_be_read_the_way_out_is_reported(kept):
    for path in kept.folder.glob("at-*"):
        path.write_bytes(b"nonsense")
    with pytest.raises(
        SettingsError, match=r"(?s)No checkpoint of this run can be read.*Remove .*checkpoints"
    ):
        kept.load()


def write_hostile(form, path):
    """Write what no training writes, in place of a checkpoint."""
    arrays = {"network/00000": np.ones(3, np.float32)}
    head = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (%s,)}"
    texts = {
        "deep": "[" * 100_000,
        "no object": "[1]",
        "no text": "\udcff",
        "another type": '{"best_epoch": "x"}',
        "no best epoch": "{}",
    }
    if form in texts:
        encoded = np.frombuffer(texts[form].encode(errors="surrogateescape"), np.uint8)
        np.savez(path, **arrays, **{"state.json": encoded})
    elif form == "object":
        np.savez(path, **{"state.json": np.array([{}], object)})
    elif form in ("bomb", "huge shape", "no array"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            if form == "no array":
                archive.writestr("state.json.npy", b"text")
            elif form == "huge shape":
                archive.writestr("state.json.npy", (head % (b"9" * 14)).ljust(127) + b"\n")
            else:
                with archive.open("state.json.npy", "w") as member:
                    for _ in range(300):
                        member.write(bytes(2**20))
    else:
        path.unlink()
        path.symlink_to("/dev/zero")


HOSTILE = ("deep", "no object", "no text", "another type", "no best epoch", "object", "bomb", "huge shape")
HOSTILE += ("no array", "endless")


def test_a_checkpoint_that_no_training_wrote_falls_back_soon_and_in_little_memory(kept):
    newest, started = kept.folder / "at-0003-000000.npz", time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for form in HOSTILE:
        write_hostile(form, newest)
        assert kept.load().position == Position(2), form
        kept.save(checkpoint_of(3), best_epoch=2)
        assert kept.load().position == Position(3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 250_000  # KB
    assert time.monotonic() - started < 10


def test_values_of_a_callback_that_it_does_not_write_are_named():
    with pytest.raises(SettingsError, match="KeepBest"):
        restore_states([EarlyStopping("val_auc", patience=1)], {"KeepBest": {"best": []}})


def test_none_is_no_error(tmp_path):
    assert Checkpoints(tmp_path / "nothing").load() is None


def test_a_full_disk_leaves_the_checkpoint_before_and_no_rest(kept, monkeypatch):
    before = names(kept)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*at-0004-000000\.npz'"):
        kept.save(checkpoint_of(4), best_epoch=2)
    assert names(kept) == before
    assert kept.load().position == Position(3)


def test_what_a_kill_left_while_writing_is_cleared_away(kept):
    (kept.folder / ".writing-abc-at-0004-000000.npz").write_bytes(b"half")
    kept.save(checkpoint_of(4), best_epoch=2)
    assert not list(kept.folder.glob(".*"))


def test_a_file_is_whole_or_as_before(tmp_path):
    path = tmp_path / "a.txt"
    write_beside(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"half of the n")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_beside(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("start", "unfreeze", "expected"),
    [
        (Position(), 0, [Phase(0, 6)]),
        (Position(), 2, [Phase(0, 2), Phase(2, 6)]),
        (Position(2), 2, [Phase(2, 6)]),
        (Position(1, 3), 2, [Phase(1, 2, 3), Phase(2, 6)]),
        (Position(5, 1), 0, [Phase(5, 6, 1)]),
        (Position(6), 0, []),
        (Position(0), 9, [Phase(0, 6)]),
    ],
)
def test_what_is_left_is_cut_where_the_network_or_the_epoch_changes(start, unfreeze, expected):
    assert plan_phases(start, epochs=6, unfreeze=unfreeze) == expected

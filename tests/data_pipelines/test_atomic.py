"""A file written atomically is the old one or the new one, and nothing else is left beside it."""

import errno
import os
import signal
import stat

import pytest

from commands import run_python
from voxlift.data_pipelines.atomic import atomic_write, remove_leftovers


def test_a_file_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "a.nii.gz"
    target.write_text("old")
    with atomic_write(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
        assert temporary.name.endswith("-a.nii.gz")
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_parallel_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    target = tmp_path / "a.csv"
    with atomic_write(target) as one, atomic_write(target) as other:
        assert one != other
        one.write_text("1")
        other.write_text("1")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, ValueError])
def test_a_failure_leaves_the_old_file_and_nothing_else(error, tmp_path):
    target = tmp_path / "a.csv"
    target.write_text("old")

    def write_half():
        with atomic_write(target) as temporary:
            temporary.write_text("ha")
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_names_the_file_that_could_not_be_written(tmp_path):
    missing = tmp_path / "missing" / "a.csv"
    with pytest.raises(FileNotFoundError) as caught, atomic_write(missing) as temporary:
        temporary.write_text("x")
    assert caught.value.filename == str(missing)

    full = tmp_path / "full.csv"
    with pytest.raises(OSError, match=r"full\.csv") as caught, atomic_write(full):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(full))


def test_an_error_about_another_file_still_names_that_file(tmp_path):
    other = tmp_path / "input.csv"
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "output.csv"):
        other.read_text()
    assert caught.value.filename == str(other)


def test_permissions_are_those_of_an_ordinary_open(tmp_path):
    target, ordinary = tmp_path / "a.csv", tmp_path / "b.csv"
    ordinary.write_text("x")
    for mode in (stat.S_IMODE(ordinary.stat().st_mode), 0o640):
        with atomic_write(target) as temporary:
            temporary.write_text("x")
        assert stat.S_IMODE(target.stat().st_mode) == mode
        target.chmod(0o640)


def test_a_long_name_can_be_written(tmp_path):
    target = tmp_path / ("ä" * 120 + ".nii.gz")
    with atomic_write(target) as temporary:
        temporary.write_text("x")
    assert list(tmp_path.iterdir()) == [target]


def test_leftovers_of_killed_writers_are_removed_by_age(tmp_path):
    (tmp_path / ".hidden").write_text("keep")
    temporary = atomic_write(tmp_path / "a.csv").__enter__()
    temporary.write_text("half")
    remove_leftovers(tmp_path)
    assert temporary.exists()
    os.utime(temporary, (0, 0))
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]


def test_leftovers_of_a_process_that_was_killed_are_removed_at_once(tmp_path):
    write = "import os, pathlib, sys\nfrom voxlift.data_pipelines.atomic import atomic_write\n"
    write += (
        "path = atomic_write(pathlib.Path(sys.argv[1])).__enter__(); path.touch(); os.kill(os.getpid(), 9)"
    )
    assert run_python("-c", write, tmp_path / "a.csv").returncode == -signal.SIGKILL
    (killed,) = tmp_path.iterdir()
    alive = atomic_write(tmp_path / "a.csv").__enter__()
    alive.touch()
    elsewhere = tmp_path / killed.name.replace(killed.name.split("-")[1], "0" * 8)  # on another machine
    elsewhere.touch()
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {alive, elsewhere}

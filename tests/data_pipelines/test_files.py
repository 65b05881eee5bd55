"""A path is looked at before it is opened; a file is found once; a killed writer leaves no half of a file."""

import errno
import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from commands import run_python
from scans import write_scan
from voxlift.data_pipelines.audit import read_facts
from voxlift.data_pipelines.files import (
    FolderWalk,
    atomic_write,
    escape_name,
    find_kind,
    find_real_path,
    is_absent,
    linked_as_ascii,
    remove_leftovers,
)
from voxlift.data_pipelines.readers import load_volume
from voxlift.data_pipelines.readers.identity import identify_image
from voxlift.data_pipelines.scans import find_scans
from voxlift.data_pipelines.tables.manifest import ManifestError, TableOptions, load_manifest
from voxlift.data_pipelines.volume import VolumeError

LATIN = os.fsdecode(b"caf\xe9")


def write_pipe(path):
    os.mkfifo(path)


def write_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def write_loop(path):
    path.symlink_to(path.name)


def write_loop_of_two(path):
    path.with_name("other").symlink_to(path.name)
    path.symlink_to("other")


def write_device_link(path):
    path.symlink_to("/dev/zero")


def write_broken_link(path):
    path.symlink_to("nowhere")


UNREADABLE = [write_pipe, write_socket, write_loop, write_loop_of_two, write_device_link, write_broken_link]


@pytest.fixture
def folder(tmp_path):
    """Two images, one in a subfolder."""
    write_scan(tmp_path / "a.nii.gz", 0)
    write_scan(tmp_path / "deep" / "b.nii.gz", 1)
    return tmp_path


def subjects_in(folder):
    return [scan.subject for scan in find_scans(folder, image_columns=["image"])]


@pytest.mark.parametrize("write", UNREADABLE)
def test_what_is_no_regular_file_is_reported_and_not_opened(folder, write):
    bad = folder / "bad.nii.gz"
    write(bad)
    assert find_kind(bad).name in ("other", "absent")
    for read in (load_volume, lambda path: load_volume(path.with_name("bad.nii.gz"))):
        with pytest.raises(VolumeError, match=r"bad\.nii\.gz"):
            read(bad)
    assert str(bad) in read_facts(bad).error
    assert identify_image(bad)[0][0] == str(bad)
    assert subjects_in(folder) == ["a.nii.gz", "bad.nii.gz", "deep/b.nii.gz"]


@pytest.mark.parametrize("write", UNREADABLE)
def test_a_table_may_name_what_cannot_be_read(folder, write):
    write(folder / "bad.nii.gz")
    rows = ["image,label", "a.nii.gz,x", "bad.nii.gz,y", "deep/b.nii.gz,x"]
    (folder / "t.csv").write_text("\n".join(rows))
    options = TableOptions(keep_absent=True)
    assert len(load_manifest(folder / "t.csv", options).records) == 3
    if write is write_broken_link:
        with pytest.raises(ManifestError, match=r"bad\.nii\.gz"):
            load_manifest(folder / "t.csv")


@pytest.mark.parametrize("name", ["x" * 300, "xxx\0"])
def test_an_impossible_name_is_a_bad_file(tmp_path, name):
    path = tmp_path / f"{name}.nii.gz"
    assert find_kind(path).name == "other"
    assert find_real_path(path) == path
    with pytest.raises(VolumeError, match="xxx"):
        load_volume(path)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("latest", "."),
        ("deep/up", ".."),
        ("deep/again", "../deep"),
        ("a_link.nii.gz", "a.nii.gz"),
        ("copy", "deep"),
        ("deep/a.nii.gz", "../a.nii.gz"),
    ],
)
def test_each_real_file_is_found_once_under_its_own_name(folder, link, target):
    (folder / link).symlink_to(target)
    assert subjects_in(folder) == ["a.nii.gz", "deep/b.nii.gz"]


def test_two_links_that_lead_to_each_other_end(folder):
    (folder / "p").mkdir()
    (folder / "q").mkdir()
    (folder / "p" / "to_q").symlink_to("../q")
    (folder / "q" / "to_p").symlink_to("../p")
    write_scan(folder / "q" / "c.nii", 2)
    assert subjects_in(folder) == ["a.nii.gz", "deep/b.nii.gz", "q/c.nii"]


def test_what_only_links_lead_to_is_found_once(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_scan(elsewhere / "c.nii", 2)
    write_scan(elsewhere / "in" / "d.nii", 3)
    (folder / "one").symlink_to(elsewhere)
    (folder / "two").symlink_to(elsewhere)
    (folder / "c.nii").symlink_to(elsewhere / "c.nii")
    (folder / "three").symlink_to(elsewhere / "in")
    found = subjects_in(folder)
    assert len(found) == 4
    assert len({find_real_path(folder / name) for name in found}) == 4


def test_channels_of_subjects_are_found_beside_links(tmp_path):
    for subject in ("s1", "s2"):
        for channel in ("t1", "t2"):
            write_scan(tmp_path / subject / f"{channel}.nii", 0)
        (tmp_path / subject / "self").symlink_to(".")
    (tmp_path / "newest").symlink_to("s2")
    scans = find_scans(tmp_path, image_columns=["t1", "t2"])
    assert [(scan.subject, scan.problem) for scan in scans] == [("s1", ""), ("s2", "")]


@pytest.mark.parametrize(
    "name",
    [
        "._a.nii.gz",
        ".hidden/a.nii.gz",
        "__MACOSX/._a.nii.gz",
        "__MACOSX/x/a.nii.gz",
        "@eaDir/a.nii.gz",
        ".DS_Store",
    ],
)
def test_files_of_the_system_are_no_images(folder, name):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0\5\x16\7" + bytes(100))
    assert subjects_in(folder) == ["a.nii.gz", "deep/b.nii.gz"]


def folder_per_class(tmp_path):
    for name in ("AD", "CN"):
        for subject in range(3):
            write_scan(tmp_path / "c" / name / f"{name}{subject}.nii", subject)
    return tmp_path / "c"


@pytest.mark.parametrize("name", ["__MACOSX", ".git", "@eaDir", "lost+found", "$RECYCLE.BIN"])
def test_folders_of_the_system_are_no_classes(tmp_path, name):
    root = folder_per_class(tmp_path)
    write_scan(root / name / "AD" / "._x.nii", 0)
    (root / "AD" / ".DS_Store").write_bytes(bytes(9))
    manifest = load_manifest(root)
    assert manifest.classes == ("AD", "CN")
    assert len(manifest.records) == 6


@pytest.mark.parametrize(
    ("link", "target"), [("latest", "."), ("AD/all", ".."), ("AD/self", "."), ("up", "..")]
)
def test_links_to_folders_above_add_no_class_and_no_image(tmp_path, link, target):
    root = folder_per_class(tmp_path)
    (root / link).symlink_to(target)
    manifest = load_manifest(root)
    assert manifest.classes == ("AD", "CN")
    assert len(manifest.records) == 6


def test_one_file_in_two_classes_through_a_link_is_a_contradiction(tmp_path):
    root = folder_per_class(tmp_path)
    (root / "AD" / "linked.nii").symlink_to("../CN/CN0.nii")
    with pytest.raises(ManifestError, match="two labels"):
        load_manifest(root)


def test_patterns_do_not_match_files_of_the_system(folder):
    write_scan(folder / "deep" / "._b.nii.gz", 0)
    (folder / "t.csv").write_text("id,label\ndeep,x\n.,y\n")
    manifest = load_manifest(folder / "t.csv", TableOptions(image_column="{id}/*.nii.gz"))
    assert {record.images[0].name for record in manifest.records} == {"a.nii.gz", "b.nii.gz"}


def test_names_that_are_not_utf8_are_found_read_and_shown(folder):
    path = folder / f"{LATIN}.nii.gz"
    write_scan(folder / "plain.nii.gz", 5).rename(path)
    assert load_volume(path).voxels.shape == (11, 7, 5)
    assert subjects_in(folder) == ["a.nii.gz", path.name, "deep/b.nii.gz"]
    assert escape_name(str(path)).endswith("caf\\xe9.nii.gz")
    assert escape_name("é|\t.nii") == "é|\t.nii"


def test_links_with_plain_names_vanish(folder):
    with linked_as_ascii([folder / "a.nii.gz"]) as links:
        ((link, path),) = links.items()
        assert link.read_bytes() == path.read_bytes()
    assert not link.exists()
    assert not link.parent.exists()


def test_a_folder_that_cannot_be_listed_is_left_out(folder, monkeypatch):
    def refuse(path):
        if path.name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return iter([folder / "deep", folder / "a.nii.gz"])

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert subjects_in(folder) == ["a.nii.gz"]
    assert not is_absent(folder)


def test_entries_of_one_walk_are_sorted(folder):
    assert FolderWalk(folder).entries(folder) == [folder / "a.nii.gz", folder / "deep"]


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
    write = "import os, pathlib, sys\nfrom voxlift.data_pipelines.files import atomic_write\n"
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

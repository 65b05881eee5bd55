import pytest

from voxlift.data_pipelines.atomic import whole_file


def test_a_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "a.nii.gz"
    target.write_text("old")
    with whole_file(target) as place:
        assert place.parent == tmp_path
        assert place.name.startswith(".")
        assert place.name.endswith("-a.nii.gz")
        place.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    target = tmp_path / "a.csv"
    with whole_file(target) as one, whole_file(target) as other:
        assert one != other
        one.write_text("1")
        other.write_text("1")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there_and_nothing_else(error, tmp_path):
    target = tmp_path / "a.csv"
    target.write_text("old")

    def write_half():
        with whole_file(target) as place:
            place.write_text("ha")
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]

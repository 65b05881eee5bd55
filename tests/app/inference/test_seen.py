"""A prediction on scans that a run was trained on says so."""

from types import SimpleNamespace

from voxlift.app.files import write_json, write_rows
from voxlift.app.inference.predict import find_seen
from voxlift.app.runs.folder import RunFolder
from voxlift.data_pipelines.scans import Scan


def test_scans_of_the_training_split_are_found_by_their_files(tmp_path):
    run, files = RunFolder(tmp_path / "run"), [tmp_path / f"{name}.nii.gz" for name in ("a", "b", "c")]
    run.path.mkdir()
    for number, file in enumerate(files):
        file.write_bytes(b"x" * (number + 1))
    sizes = {str(file): {"files": [[str(file.resolve()), file.stat().st_size, 0]]} for file in files[:2]}
    write_json(run.images, sizes)
    splits = [("train", files[0]), ("test", files[1])]
    write_rows(run.splits, [{"subject": "s", "image": str(file), "split": split} for split, file in splits])
    link = tmp_path / "link.nii.gz"
    link.symlink_to(files[0])
    ensemble = SimpleNamespace(members=[SimpleNamespace(run=run)])
    scans = [Scan("s", (file,)) for file in (*files, link)]
    assert find_seen(scans, ensemble) == {str(files[0]), str(link)}
    files[0].write_bytes(b"another image")
    assert find_seen(scans, ensemble) == frozenset()

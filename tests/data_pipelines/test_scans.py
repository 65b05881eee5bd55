"""Every readable scan is found once, in a fixed order, and the problem of one is kept with that one."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from scans import write_scan
from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.scans import find_scans

VOXELS = np.arange(5 * 7 * 11, dtype=np.int16).reshape(5, 7, 11)


def write_dicom_series(folder):
    folder.mkdir(parents=True)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number in range(3):
        image = SimpleITK.GetImageFromArray(VOXELS[number : number + 1])
        for tag, value in {
            "0008|0060": "CT",
            "0020|000e": "1.2.826.0.1.3680043.2.1125.1",
            "0020|0032": f"0\\0\\{number * 2}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(number),
        }.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"slice{number}"))
        writer.SetImageIO("GDCMImageIO")
        writer.Execute(image)


def test_a_folder_gives_every_scan_at_any_depth_a_pair_once(tmp_path):
    write_scan(tmp_path / "b.nii.gz", 0)
    write_scan(tmp_path / "deep" / "er" / "a.nii", 0)
    (tmp_path / "pair").mkdir()
    nib.save(nib.Nifti1Pair(VOXELS, np.eye(4)), tmp_path / "pair" / "c.hdr")
    nib.save(nib.MGHImage(VOXELS.astype(np.float32), np.eye(4)), tmp_path / "d.mgz")
    for name in ("e.nrrd", "f.mha", "g.mhd"):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOXELS), str(tmp_path / name))
    write_dicom_series(tmp_path / "series")
    (tmp_path / "notes.txt").write_text("not a scan")
    write_scan(tmp_path / ".hidden" / "x.nii", 0)
    found = find_scans(tmp_path, image_columns=["image"])
    assert [scan.subject for scan in found] == [
        "b.nii.gz",
        "d.mgz",
        "e.nrrd",
        "f.mha",
        "g.mhd",
        "deep/er/a.nii",
        "pair/c.hdr",
        "series",
    ]
    assert found[-1].images == (tmp_path / "series",)
    assert not any(scan.problem for scan in found)


def test_a_series_folder_and_a_file_are_one_scan_each(tmp_path):
    write_dicom_series(tmp_path / "series")
    (series,) = find_scans(tmp_path / "series", image_columns=["image"])
    assert (series.subject, series.images) == ("series", (tmp_path / "series",))
    (one,) = find_scans(write_scan(tmp_path / "a.nii", 0), image_columns=["image"])
    assert one.images == (tmp_path / "a.nii",)


def test_a_table_keeps_its_order_and_a_row_without_an_image_its_reason(tmp_path):
    (tmp_path / "new.csv").write_text(
        "who,t1,flair\nanna,a_t1.nii,a_fl.nii\nbert,n/a,b_fl.nii\n,c_t1.nii,c_fl.nii\n"
    )
    first, second, third = find_scans(
        tmp_path / "new.csv", image_columns=["t1", "flair"], subject_column="who"
    )
    assert first.images == (tmp_path / "a_t1.nii", tmp_path / "a_fl.nii")
    assert (second.subject, second.images) == ("bert", ())
    assert "row 3 of new.csv" in second.problem
    assert third.subject == "row 4"
    (one,) = find_scans(tmp_path / "new.csv", image_columns=["flair"], root=tmp_path / "else")[:1]
    assert (one.subject, one.images) == ("a_fl.nii", (tmp_path / "else" / "a_fl.nii",))


def test_channels_are_recognised_by_the_names_of_their_files(tmp_path):
    for subject in ("s1", "s2", "s3"):
        write_scan(tmp_path / subject / "anat" / f"{subject}_T1.nii.gz", 0)
        write_scan(tmp_path / subject / f"{subject}_flair.nii.gz", 0)
    (tmp_path / "s2" / "s2_flair.nii.gz").unlink()
    write_scan(tmp_path / "s3" / "again_T1.nii.gz", 0)
    s1, s2, s3 = find_scans(tmp_path, image_columns=["t1", "flair"])
    assert (s1.subject, [path.name for path in s1.images]) == ("s1", ["s1_T1.nii.gz", "s1_flair.nii.gz"])
    assert "s2" in s2.problem
    assert "flair" in s2.problem
    assert "again_T1.nii.gz, s3_T1.nii.gz" in s3.problem
    (alone,) = find_scans(tmp_path / "s1", image_columns=["{id}/anat/{id}_T1.nii.gz", "flair"])
    assert alone.images == s1.images


def test_sessions_that_hold_every_channel_are_a_scan_each(tmp_path):
    for session in ("ses-1", "ses-2"):
        for channel in ("T1", "flair"):
            write_scan(tmp_path / "s1" / session / "anat" / f"s1_{session}_{channel}.nii.gz", 0)
    write_scan(tmp_path / "s1" / "ses-2" / "fmap" / "s1_fieldmap.nii.gz", 0)
    scans = find_scans(tmp_path, image_columns=["t1", "{id}/ses-*/anat/*_flair.nii.gz"])
    assert [(scan.subject, [path.name for path in scan.images]) for scan in scans] == [
        ("s1", [f"s1_{session}_T1.nii.gz", f"s1_{session}_flair.nii.gz"]) for session in ("ses-1", "ses-2")
    ]
    (tmp_path / "s1" / "ses-2" / "anat" / "s1_ses-2_T1.nii.gz").unlink()
    (scan,) = find_scans(tmp_path, image_columns=["t1", "flair"])
    assert "s1_ses-1_flair.nii.gz, s1_ses-2_flair.nii.gz" in scan.problem


def test_a_source_without_scans_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for source, columns, named in (
        (tmp_path / "missing.nii", ["image"], "missing.nii"),
        (tmp_path / "empty", ["image"], ".nii.gz, "),
        (write_scan(tmp_path / "a.nii", 0), ["t1", "t2"], "2 images (t1, t2)"),
    ):
        with pytest.raises(ManifestError) as caught:
            find_scans(source, image_columns=columns)
        assert named in str(caught.value)

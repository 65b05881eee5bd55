"""Splits by site: no site in two splits, one site left out, and what is refused."""

import numpy as np
import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.manifest import TableOptions, load_manifest
from voxlift.data_pipelines.tables.sites import group_by_site, leave_site_out, read_sites
from voxlift.data_pipelines.tables.splits import assign_splits


def write_table(folder, sites, labels=None, subjects=None):
    lines = ["image,label,subject,site"]
    for i, site in enumerate(sites):
        image = folder / f"{i}.nii.gz"
        image.touch()
        label = labels[i] if labels else "ab"[i // 2 % 2]
        lines.append(f"{image.name},{label},{subjects[i] if subjects else f's{i:02d}'},{site}")
    table = folder / "table.csv"
    table.write_text("\n".join(lines))
    return load_manifest(str(table), TableOptions(subject_column="subject"))


def test_a_site_is_in_one_split_only(tmp_path):
    sites = [f"site{i % 6}" for i in range(60)]
    manifest = write_table(tmp_path, sites, labels=["ab"[i // 6 % 2] for i in range(60)])
    found = read_sites(manifest, "site", setting="splits.by")
    assert list(found) == sites
    splits = assign_splits(group_by_site(manifest, found), val=0.2, test=0.2, seed=0)
    assert set(splits) == {"train", "val", "test"}
    for site in set(sites):
        assert len({split for split, own in zip(splits, sites, strict=True) if own == site}) == 1


@pytest.mark.parametrize("by_site", [False, True])
def test_each_fold_tests_one_site(tmp_path, by_site):
    sites = [f"site{i % 4}" for i in range(80)]
    manifest = write_table(tmp_path, sites, labels=["ab"[i // 4 % 2] for i in range(80)])
    for fold in range(4):
        splits = np.array(leave_site_out(manifest, sites, fold=fold, val=0.2, seed=0, by_site=by_site))
        assert set(np.array(sites)[splits == "test"]) == {f"site{fold}"}
        assert (splits == "test").sum() == 20
        assert (splits == "val").sum() == (20 if by_site else 16)
    with pytest.raises(ManifestError, match=r"splits\.fold=4"):
        leave_site_out(manifest, sites, fold=4, val=0.2, seed=0)


def test_missing_columns_empty_cells_and_subjects_at_two_sites_are_refused(tmp_path):
    manifest = write_table(tmp_path, ["x", "y"] * 8)
    with pytest.raises(ManifestError, match=r"splits\.by=scanner"):
        read_sites(manifest, "scanner", setting="splits.by")
    (tmp_path / "empty").mkdir()
    manifest = write_table(tmp_path / "empty", ["x", ""] * 8)
    with pytest.raises(ManifestError, match="8 used rows"):
        read_sites(manifest, "site", setting="splits.by")
    (tmp_path / "two").mkdir()
    names = [f"s{i // 2}" for i in range(16)]
    manifest = write_table(tmp_path / "two", ["x", "y"] * 8, ["ab"[i // 8] for i in range(16)], names)
    with pytest.raises(ManifestError, match="8 subjects"):
        read_sites(manifest, "site", setting="splits.leave_out")

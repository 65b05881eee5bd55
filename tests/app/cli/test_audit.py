"""Promises of `voxlift-audit`: all findings at once, three files, an exit status, nothing overwritten."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from commands import call_command, compose_command, run_python
from scans import write_scan
from voxlift.app.config import AuditSettings, DataSettings, SettingsError
from voxlift.app.data.sources import dataset_name
from voxlift.app.report.dataset_audit import audit_dataset, audit_folder, write_audit
from voxlift.app.report.findings import (
    format_finding,
    group_findings,
    suggested_overrides,
    truncate_line,
)
from voxlift.app.report.terminal import print_audit
from voxlift.data_pipelines.audit import Finding
from voxlift.data_pipelines.tables.manifest import ManifestError


@pytest.fixture
def folder(tmp_path):
    """A clean data set of six files."""
    data = tmp_path / "scans"
    data.mkdir()
    rows = ["file,label,subject,split"]
    for index in range(6):
        write_scan(data / f"{index}.nii.gz", index)
        rows.append(f"{index}.nii.gz,{'ab'[index % 2]},s{index},{('train', 'val', 'test')[index // 2]}")
    (data / "labels.csv").write_text("\n".join(rows) + "\n")
    return data


def settings_of(folder, **settings):
    columns = {"image_column": "file", "subject_column": "subject", "split_column": "split"}
    data = DataSettings(name="manifest", table=str(folder / "labels.csv"), **columns)
    return AuditSettings(data=data, runs_folder=str(folder.parent / "runs"), workers=2, **settings)


def add_row(folder, text):
    with (folder / "labels.csv").open("a") as table:
        table.write(f"{text}\n")


def kinds(found):
    return {finding.kind: finding for finding in found.audit.findings}


def printed(found, width=100):
    stream = io.StringIO()
    print_audit(found, console=Console(file=stream, width=width))
    return stream.getvalue()


class Page(HTMLParser):
    """Collects what a page would load, and its pictures."""

    def __init__(self):
        super().__init__()
        self.sources, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in {"src", "href"} and tag != "a"]


def test_clean_data_pass_with_a_page_and_status_0(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    columns = ("image_column=file", "subject_column=subject", "split_column=split")
    arguments = ["data=manifest", "data.table=scans/labels.csv", *(f"data.{column}" for column in columns)]
    assert call_command("audit", *arguments) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "6 files" in shown[0]
    assert shown[-1] == "Results in runs/audit-scans-labels"
    results = folder.parent / "runs" / "audit-scans-labels"
    names = {path.name for path in results.iterdir()}
    assert names == {"audit.json", "audit.csv", "audit.html", "audit.flow.csv"}
    assert call_command("audit", *arguments) == 0  # its own earlier audit is overwritten
    (folder / "2.nii.gz").write_bytes(b"junk")
    assert call_command("audit", *arguments) == 1
    assert json.loads((results / "audit.json").read_text(encoding="utf-8"))["spoils"] is True


def test_a_folder_with_other_things_is_refused_before_any_file_is_read(folder):
    (folder / "audit.json").write_text("{}")
    with pytest.raises(SettingsError, match=r"0\.nii\.gz, 1\.nii\.gz, 2\.nii\.gz"):
        audit_folder(settings_of(folder, output=str(folder)))
    with pytest.raises(SettingsError, match=r"labels\.csv"):
        audit_folder(settings_of(folder, output=str(folder / "labels.csv")))


def test_a_table_that_training_refuses_is_a_finding_beside_all_others(folder):
    add_row(folder, "nowhere.nii.gz,a,s6,train")
    add_row(folder, "0.nii.gz,b,s0,val")
    write_scan(folder / "5.nii.gz", 1, np.float32)
    found = audit_dataset(settings_of(folder))
    by_kind = kinds(found)
    assert {"table_refused", "absent", "two_labels", "subject_in_two_splits", "same_voxels"} <= set(by_kind)
    assert "0.nii.gz" in by_kind["table_refused"].message
    assert [Path(one).name for one in by_kind["absent"].where] == ["nowhere.nii.gz"]
    assert found.audit.spoils
    assert found.audit.findings[0].kind == "table_refused"


def test_a_missing_image_alone_is_reported_and_the_rest_audited(folder):
    add_row(folder, "nowhere.nii.gz,a,s6,train")
    found = audit_dataset(settings_of(folder))
    assert set(kinds(found)) == {"absent"}  # once, and not as a fault of the table besides
    assert sum(not facts.error for facts in found.audit.facts) == 6
    assert "data.root" in printed(found)


def test_bad_files_that_training_leaves_out_spoil_nothing(folder):
    add_row(folder, "nowhere.nii.gz,a,s6,train")
    (folder / "2.nii.gz").write_bytes(b"junk")
    settings = settings_of(folder)
    settings.data.on_bad_file = "skip"
    found = audit_dataset(settings)
    assert {kind: one.severity for kind, one in kinds(found).items()} == {
        "absent": "warning",
        "unreadable": "warning",
    }
    assert not found.audit.spoils
    assert "on_bad_file" not in printed(found)


def test_a_table_that_cannot_be_read_at_all_is_an_error_with_its_column(folder):
    settings = settings_of(folder)
    settings.data.label_column = "diagnosis"
    with pytest.raises(ManifestError, match="diagnosis"):
        audit_dataset(settings)


def test_rows_that_no_training_would_use_are_noted(folder):
    add_row(folder, "0.nii.gz,n/a,s0,train")
    found = audit_dataset(settings_of(folder))
    assert kinds(found)["rows_left_out"].message.endswith("(1)")
    assert not found.audit.spoils


def test_files_hold_every_finding_and_one_row_per_image(folder, tmp_path):
    (folder / "2.nii.gz").write_bytes(b"junk")
    write_scan(folder / "4.nii.gz", 0)
    found = audit_dataset(settings_of(folder))
    write_audit(found, tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    assert [one["kind"] for one in saved["findings"]] == [one.kind for one in found.audit.findings]
    assert (saved["files"], saved["unreadable"], saved["classes"]) == (6, 1, {"a": 3, "b": 3})
    assert saved["facts"]["shape"] == {"5x7x11": 5}
    assert saved["suggested"]["overrides"] == suggested_overrides(found.audit)
    with (tmp_path / "out" / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["subject"], row["label"], row["split"]) for row in rows[:3]] == [
        ("s0", "a", "train"),
        ("s1", "b", "train"),
        ("s2", "a", "val"),
    ]
    assert [bool(row["error"]) for row in rows] == [False, False, True, False, False, False]


def test_the_page_is_self_contained_and_has_findings_first(folder, tmp_path):
    (folder / "2.nii.gz").write_bytes(b"junk")
    (folder / "labels.csv").write_text(
        (folder / "labels.csv").read_text(encoding="utf-8").replace(",s3,", ",<b>s3</b>,")
    )
    found = audit_dataset(settings_of(folder, thumbnails=3))
    write_audit(found, tmp_path / "out")
    text = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert all(source.startswith("data:") for source in page.sources)
    assert "script" not in page.tags
    assert page.tags.count("img") == 3
    assert text.index('id="findings"') < text.index('id="files"') < text.index('id="pictures"')
    assert "preprocess.spacing=[3,2,1]" in text
    assert "<b>s3" not in text


def test_pictures_can_be_left_out_and_flagged_files_come_first(folder, tmp_path):
    write_scan(folder / "4.nii.gz", 3)
    shown = audit_dataset(settings_of(folder, thumbnails=2))
    write_audit(shown, tmp_path / "some")
    names = re.findall(
        r'alt="Slices of ([^"]+)"', (tmp_path / "some" / "audit.html").read_text(encoding="utf-8")
    )
    assert names == ["3.nii.gz", "4.nii.gz"]
    write_audit(audit_dataset(settings_of(folder, thumbnails=0)), tmp_path / "none")
    assert "<img" not in (tmp_path / "none" / "audit.html").read_text(encoding="utf-8")


def test_the_terminal_shows_one_row_per_kind_with_its_first_examples(folder):
    for index in range(5):
        (folder / f"{index}.nii.gz").write_bytes(b"junk")
    found = audit_dataset(settings_of(folder))
    text = printed(found)
    first, second = found.manifest.classes
    assert re.search(rf"\b{second}; 'data\.classes=\[{second},{first}\]' makes it {first}\b", text)
    (line,) = [line for line in text.splitlines() if line.startswith("unreadable")]
    assert re.search(r"error +5 +\S", line)
    assert "and 2 more" in text
    assert "1 of 6 files" in text
    assert max(map(len, printed(found, width=60).splitlines())) <= 60 + len(
        " ".join(suggested_overrides(found.audit))
    )


def test_the_terminal_shows_the_whole_message_of_a_refused_table(folder):
    text = (folder / "labels.csv").read_text(encoding="utf-8")
    (folder / "labels.csv").write_text(f"{text.rstrip()}\n0.nii.gz,a,s0,train\n0.nii.gz,b,s0,train\n")
    found = audit_dataset(settings_of(folder))
    last_words = " ".join(kinds(found)["table_refused"].message.split()[-5:])
    assert last_words in " ".join(printed(found).split())


def test_suggestions_can_be_pasted_into_a_training(folder):
    found = audit_dataset(settings_of(folder))
    overrides = [override.strip("'") for override in suggested_overrides(found.audit)]
    composed = compose_command("train", *overrides).preprocess
    assert composed.name == "mri"
    assert list(composed.spacing) == [3, 2, 1]
    assert list(composed.shape) == [8, 8, 12]
    assert set(found.grids) == {64, 96, 128}


def test_no_readable_file_still_ends_in_an_audit(folder, tmp_path):
    for index in range(6):
        (folder / f"{index}.nii.gz").write_bytes(b"junk")
    found = audit_dataset(settings_of(folder))
    write_audit(found, tmp_path / "out")
    assert suggested_overrides(found.audit) == []
    assert "0 of 6 files" in printed(found)


def test_findings_group_by_kind_and_name_their_places():
    findings = [
        Finding("a_b", "error", "bad", ("/d/x",), spoils=True),
        Finding("c", "note", "odd", ()),
        Finding("a_b", "error", "/d/y: worse", ("/d/y",), spoils=True),
        Finding("a_b", "warning", "poor", tuple(f"/d/{i}" for i in range(5))),
    ]
    groups = group_findings(findings)
    assert [(group.name, group.severity, group.files) for group in groups] == [
        ("a b", "error", 2),
        ("c", "note", 1),
        ("a b", "warning", 5),
    ]
    lines = [format_finding(finding, below="/d/") for finding in findings]
    assert lines == ["x: bad", "odd", "y: worse", "poor: 0, 1, 2 and 2 more"]
    assert truncate_line("one\n two " + "x" * 200, length=10) == "one two x\N{HORIZONTAL ELLIPSIS}"


def test_the_default_folder_is_named_after_the_data():
    for data, name in [
        (DataSettings(name="phantom", task="nodule"), "phantom-nodule"),
        (DataSettings(name="medmnist3d", npz="x/adrenalmnist3d.npz"), "adrenalmnist3d"),
        (DataSettings(name="manifest", table="/a/my scans/labels.csv"), "my_scans-labels"),
    ]:
        assert dataset_name(data) == name


def test_wrong_settings_are_reported_together(capsys):
    bad = ["data=manifest", "preprocess.prefer=both", "thumbnails=-1"]
    assert call_command("audit", *bad) == 2
    text = capsys.readouterr().err
    assert "data.table" in text
    assert "preprocess.prefer" in text
    assert "thumbnails" in text


def test_an_audit_does_not_import_tensorflow(folder):
    columns = ["data.image_column=file", f"output={folder.parent}/out"]
    arguments = ["data=manifest", f"data.table={folder / 'labels.csv'}", *columns]
    code = (
        f"import sys; sys.argv = ['voxlift-audit', *{arguments}]\n"
        "from voxlift.app.cli.audit import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    status = end.code\n"
        "print(status, sorted({'tensorflow', 'keras', 'sklearn'} & set(sys.modules)))"
    )
    assert run_python("-c", code).stdout.splitlines()[-1] == "0 []"


def test_what_was_uncertain_in_the_table_is_a_finding(folder):
    write_scan(folder / "6.nii.gz", 6)
    write_scan(folder / "7.nii.gz", 7)
    add_row(folder, "6.nii.gz,a,S0,val")
    add_row(folder, '7.nii.gz,b,"s\n9",val')
    found = audit_dataset(settings_of(folder))
    assert (kinds(found)["similar_subjects"].severity, kinds(found)["spanning_cells"].severity) == (
        "warning",
        "note",
    )
    assert "'S0' and 's0'" in kinds(found)["similar_subjects"].message
    assert "9 to 10" in kinds(found)["spanning_cells"].message
    assert not found.audit.spoils

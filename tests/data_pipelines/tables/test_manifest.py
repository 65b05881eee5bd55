"""A manifest has every usable row once; the others are counted or reported together."""

import logging
from pathlib import Path

import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.manifest import (
    TableOptions,
    join_images,
    load_manifest,
    load_rows_unchecked,
    split_images,
)


def load(table, **options):
    return load_manifest(table, TableOptions(**options))


@pytest.fixture
def folder(tmp_path):
    for name in ("a.nii.gz", "b 1.nii.gz", "c.nii.gz", "d.nii.gz"):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / name).touch()
    return tmp_path


def write(folder: Path, text: str, *, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text(text, encoding=encoding)
    return path


PLAIN = "image,label\nimages/a.nii.gz,sick\nimages/b 1.nii.gz,well\nimages/c.nii.gz,sick\n"


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_table_reads_the_same_whatever_wrote_it(folder, delimiter, encoding, newline):
    text = PLAIN.replace(",", delimiter).replace("\n", newline)
    table = folder / "labels.txt"
    table.write_bytes(text.encode(encoding))
    manifest = load(table)
    assert manifest.classes == ("sick", "well")
    assert [record.label for record in manifest.records] == [0, 1, 0]
    assert [record.row for record in manifest.records] == [2, 3, 4]
    assert manifest.records[1].images == (folder / "images" / "b 1.nii.gz",)
    assert [record.subject for record in manifest.records] == [
        "images/a.nii.gz",
        "images/b 1.nii.gz",
        "images/c.nii.gz",
    ]


def test_quoted_cells_may_hold_delimiters_and_blank_lines_do_not_count(folder):
    (folder / "images" / "odd, name.nii").touch()
    text = 'image,label,note\n\n"images/odd, name.nii",x,"a\nb"\nimages/a.nii.gz,y,\n,,\n'
    manifest = load(write(folder, text))
    assert manifest.records[0].images[0].name == "odd, name.nii"
    assert manifest.records[1].row == 5


def test_bids_participants_find_their_files_by_a_pattern(folder):
    for name in ("sub-01", "sub-02"):
        (folder / name / "anat").mkdir(parents=True)
        (folder / name / "anat" / f"{name}_T1w.nii.gz").touch()
    table = write(folder, "participant_id\tgroup\nsub-01\tHC\nsub-02\tAD\n", name="participants.tsv")
    manifest = load(
        table,
        image_column="{participant_id}/anat/{participant_id}_T1w.nii.gz",
        label_column="group",
        subject_column="participant_id",
    )
    assert [record.images[0].name for record in manifest.records] == [
        "sub-01_T1w.nii.gz",
        "sub-02_T1w.nii.gz",
    ]
    assert [record.subject for record in manifest.records] == ["sub-01", "sub-02"]


def test_paths_may_be_absolute_relative_to_a_root_or_start_at_home(folder, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("tables")
    monkeypatch.setenv("HOME", str(folder))
    text = f"image,label\n{folder / 'images' / 'a.nii.gz'},x\n~/images/c.nii.gz,y\nimages/d.nii.gz,y\n"
    manifest = load(write(elsewhere, text), root="~")
    assert [record.images[0] for record in manifest.records] == [
        folder / "images" / name for name in ("a.nii.gz", "c.nii.gz", "d.nii.gz")
    ]


def test_rows_without_a_usable_label_are_counted_by_reason(folder):
    rows = [
        "a.nii.gz,MCA",
        "b 1.nii.gz,n/a",
        "c.nii.gz,mixed",
        "d.nii.gz,ACA",
        "e.nii.gz,",
        ",MCA",
        "f.nii.gz,NA",
    ]
    text = "image,label\n" + "".join(
        row if row[0] == "," else f"images/{row}" for row in (r + "\n" for r in rows)
    )
    manifest = load(write(folder, text), classes=["MCA", "ACA"])
    assert [(record.label, record.row) for record in manifest.records] == [(0, 2), (1, 5)]
    assert manifest.left_out == {"label missing": 3, "label 'mixed' is not a class": 1, "image missing": 1}


def test_a_class_may_be_named_like_a_missing_value(folder):
    text = "image,label\nimages/a.nii.gz,NA\nimages/c.nii.gz,Cl\n"
    assert [r.label for r in load(write(folder, text), classes=["Cl", "NA"]).records] == [1, 0]


def test_accents_are_alike_in_labels_and_subjects_however_they_are_encoded(folder):
    composed, split = "l\u00e9ger", "le\u0301ger"
    rows = [("a", composed, "\u00e9"), ("b 1", split, "e\u0301"), ("c", "grave", "x"), ("d", "NULL", "y")]
    lines = [f"images/{name}.nii.gz,{label},{subject}" for name, label, subject in rows]
    table = write(folder, "\n".join(["image,label,who", *lines]))
    for classes in ((), (split, "grave")):
        manifest = load(table, subject_column="who", classes=classes)
        assert set(manifest.classes) == {composed, "grave"}
        assert [record.subject for record in manifest.records] == ["\u00e9", "\u00e9", "x"]
        assert manifest.left_out == {"label missing": 1}


def test_a_number_with_a_decimal_comma_is_reported(folder):
    table = write(folder, 'image,label\nimages/a.nii.gz,"3,2"\nimages/c.nii.gz,7\nimages/d.nii.gz,4\n')
    options = {"label_bins": (5,), "classes": ("low", "high")}
    (reason,) = load(table, **options).left_out
    assert "'3,2'" in reason


def test_numeric_classes_sort_by_value_and_floats_mean_integers(folder):
    text = "image,label\nimages/a.nii.gz,10.0\nimages/c.nii.gz,2\nimages/d.nii.gz,10\n"
    manifest = load(write(folder, text))
    assert manifest.classes == ("2", "10")
    assert [record.label for record in manifest.records] == [1, 0, 1]


def test_bins_put_a_value_on_the_edge_above_it(folder):
    text = "image,label\nimages/a.nii.gz,4.99\nimages/b 1.nii.gz,5\nimages/c.nii.gz,?\nimages/d.nii.gz,17.0\n"
    manifest = load(write(folder, text), label_bins=[5], classes=["minor", "severe"])
    assert [record.label for record in manifest.records] == [0, 1, 1]
    assert manifest.left_out == {"label '?' is not a number": 1}


def test_one_file_per_channel(folder):
    text = "t1,flair,label\nimages/a.nii.gz,images/b 1.nii.gz,x\nimages/c.nii.gz,images/d.nii.gz,y\n"
    manifest = load(write(folder, text), image_columns=["t1", "flair"])
    assert [tuple(p.name for p in r.images) for r in manifest.records] == [
        ("a.nii.gz", "b 1.nii.gz"),
        ("c.nii.gz", "d.nii.gz"),
    ]
    assert manifest.records[0].subject == "images/a.nii.gz"


def test_split_names_have_synonyms_and_gaps_are_counted(folder):
    text = "image,label,part\nimages/a.nii.gz,x,Training\nimages/c.nii.gz,y,VALID\nimages/d.nii.gz,y,n/a\n"
    manifest = load(write(folder, text), split_column="part")
    assert [record.split for record in manifest.records] == ["train", "val"]
    assert manifest.left_out == {"split missing": 1}


def test_a_plain_repetition_of_a_row_is_left_out_and_counted(folder):
    manifest = load(write(folder, PLAIN + "images/a.nii.gz,sick\n"))
    assert len(manifest.records) == 3
    assert manifest.left_out == {"image listed twice": 1}


def test_a_folder_per_class_groups_subject_folders(tmp_path):
    for name in (
        "AD/s1/x.nii.gz",
        "AD/s1/y.nii.gz",
        "AD/z.nii",
        "HC/s2/ct/1.dcm",
        "HC/.hidden.nii",
        "HC/notes.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    manifest = load(tmp_path)
    assert manifest.classes == ("AD", "HC")
    assert [(r.subject, r.images[0].relative_to(tmp_path).as_posix(), r.label) for r in manifest.records] == [
        ("s1", "AD/s1/x.nii.gz", 0),
        ("s1", "AD/s1/y.nii.gz", 0),
        ("AD/z.nii", "AD/z.nii", 0),
        ("s2", "HC/s2/ct", 1),
    ]


def test_a_folder_per_split_and_class_keeps_its_split(tmp_path):
    for split in ("train", "Validation", "test"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            (tmp_path / split / label / f"{split}{label}.nii").touch()
    manifest = load(tmp_path)
    assert manifest.classes == ("a", "b")
    assert {record.split for record in manifest.records} == {"train", "val", "test"}


def message(*args, **kwargs) -> str:
    with pytest.raises(ManifestError) as caught:
        load(*args, **kwargs)
    return str(caught.value)


def test_a_missing_table_is_named(tmp_path):
    assert str(tmp_path / "no.csv") in message(tmp_path / "no.csv")


def test_a_missing_column_names_those_that_exist_and_the_nearest(folder):
    text = message(write(folder, PLAIN), label_column="lable")
    for part in ("'lable'", "mean 'label'", "'image', 'label'", "data.label_column"):
        assert part in text


def test_missing_images_are_reported_together_and_ten_are_listed(folder):
    text = "image,label\n" + "".join(f"gone{i}.nii,{'xy'[i % 2]}\n" for i in range(13))
    found = message(write(folder, text))
    for part in ("13", "row 2", "gone9.nii", "3 more", "data.root", "data.on_bad_file"):
        assert part in found
    assert "gone10.nii" not in found


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("images/a.nii.gz,x,s1\nimages/a.nii.gz,y,s1\n", "(x, y)"),
        ("images/a.nii.gz,x,s1\nimages/a.nii.gz,x,s2\nimages/c.nii.gz,y,s3\n", "(s1, s2)"),
        ("images/a.nii.gz,x,s1\nimages/c.nii.gz,y,n/a\n", "row 3"),
        ("images/a.nii.gz,x,s1\nimages/c.nii.gz,x,s2\n", "'x'"),
        ("images/a.nii.gz,n/a,s1\n", "label missing (1)"),
        ("images/a.nii.gz,x\n", "line 2"),
    ],
)
def test_contradictions_are_errors(folder, rows, expected):
    table = write(folder, f"image,label,who\n{rows}")
    assert expected in message(table, subject_column="who")


def test_an_image_reached_by_two_names_is_one_image(folder):
    (folder / "link.nii.gz").symlink_to(folder / "images" / "a.nii.gz")
    text = PLAIN + "link.nii.gz,well\n"
    assert "(sick, well)" in message(write(folder, text))


def test_repeated_subjects_without_a_subject_column_are_refused(folder):
    text = "participant_id,image,label\ns1,images/a.nii.gz,x\ns1,images/c.nii.gz,y\n"
    table = write(folder, text)
    assert "'data.subject_column=participant_id'" in message(table)
    assert len(load(table, subject_column="image").records) == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"classes": ["sick", "ill"]}, "'ill'"),
        ({"classes": ["sick"]}, "'sick'"),
        ({"classes": ["sick", "sick"]}, "'sick'"),
        ({"classes": ["sick", ""]}, "data.classes"),
        ({"label_bins": [5], "classes": ["a", "b", "c"]}, "data.label_bins"),
        ({"label_bins": [5, 5], "classes": ["a", "b", "c"]}, "[5, 5]"),
        ({"split_column": "label"}, "row 2: 'sick'"),
    ],
)
def test_settings_that_do_not_fit_the_table_say_why(folder, settings, expected):
    assert expected in message(write(folder, PLAIN), **settings)


def test_a_spreadsheets_western_csv_is_read_with_a_warning(folder, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("voxlift"), "propagate", True)
    text = "image;label\nimages/a.nii.gz;s\u00e9v\u00e8re\nimages/c.nii.gz;l\u00e9g\u00e8re\n"
    assert load(write(folder, text, encoding="cp1252")).classes == ("l\u00e9g\u00e8re", "s\u00e9v\u00e8re")
    assert "Windows-1252" in caplog.text
    assert "\u00e8, \u00e9" in caplog.text


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "t.csv"),
        (b"PK\x03\x04\xff\xfe\x00", "UTF-8"),
        (b"image,label\n\x00,\x00\n", "t.csv"),
        (b"image,label,label\n", "'label'"),
    ],
)
def test_files_that_are_not_tables_are_refused(tmp_path, raw, expected):
    (tmp_path / "t.csv").write_bytes(raw)
    assert expected in message(tmp_path / "t.csv")


def test_the_error_for_an_empty_folder_names_the_expected_layout(tmp_path):
    assert "CLASS/FILE" in message(tmp_path)


def test_a_bids_folder_given_as_a_folder_per_class_is_recognised(tmp_path):
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    (tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz").touch()
    (tmp_path / "participants.tsv").write_text("participant_id\tgroup\nsub-01\ta\n")
    with pytest.raises(ManifestError, match=r"BIDS.*participants\.tsv.*\{participant_id\}"):
        load(tmp_path)


def test_bins_cut_numbers_with_a_decimal_comma(folder):
    table = write(folder, "image;score\nimages/a.nii.gz;4,9\nimages/c.nii.gz;5,0\n")
    manifest = load(table, label_column="score", label_bins=[5], classes=["low", "high"])
    assert [record.label for record in manifest.records] == [0, 1]


@pytest.mark.parametrize("name", ["Subject ID", "PatientID", "subject_no", "ID", "MRN"])
def test_repeated_subjects_are_known_by_many_names_of_their_column(folder, name):
    table = write(folder, f"{name},image,label\ns1,images/a.nii.gz,x\ns1,images/c.nii.gz,y\n")
    assert f"'data.subject_column={name}'" in message(table)


@pytest.mark.parametrize("name", ["case", "Site", "no"])
def test_columns_that_repeat_by_their_nature_are_not_subjects(folder, name):
    table = write(folder, f"{name},image,label\n1,images/a.nii.gz,x\n1,images/c.nii.gz,y\n")
    assert len(load(table).records) == 2


def test_a_root_that_is_not_a_folder_is_reported_before_its_files(folder):
    table = write(folder, PLAIN)
    for root in (folder / "imagse", table):
        assert f"data.root={root}" in message(table, root=root)


def test_an_image_named_without_its_ending_is_reported_with_the_existing_file(folder):
    table = write(folder, "image,label\nimages/a,x\nimages/c.nii.gz,y\n")
    assert "images/a (there is a.nii.gz)" in message(table)


def test_a_label_in_other_capitals_is_reported_with_the_class(folder):
    table = write(folder, "image,label\nimages/a.nii.gz,Sick\nimages/c.nii.gz,well\n")
    text = message(table, classes=["sick", "well"])
    for part in ("'Sick'", "'sick'", "(1)", "data.classes"):
        assert part in text


def test_a_table_without_rows_is_empty(tmp_path):
    (tmp_path / "t.csv").write_text("image,label\n")
    assert "t.csv" in message(tmp_path / "t.csv")


def test_only_a_similar_column_is_suggested(folder):
    table = write(folder, "file name,age,label\nimages/a.nii.gz,1,x\n")
    assert "mean" not in message(table)  # "image" does not suggest "age"
    assert "mean 'file name'" in message(table, image_column="file")


@pytest.mark.parametrize(
    "names",
    [
        ("/data/t1.nii", "/data/flair.nii"),
        ("/data/T1|a.nii", "/data/b"),
        ("/data/a|", "/data/b|"),
        ("/data/a||b||", "/data|/c"),
        ("/data/a|||",),
        ("/data/a\\|b", "/data/c\\"),
    ],
)
def test_images_of_several_channels_survive_as_one_cell(names):
    images = tuple(map(Path, names))
    assert split_images(join_images(images)) == images
    assert "|" in names[0] or join_images(images) == "|".join(names)  # as runs were written before


def test_a_folder_may_be_a_class_of_any_name(tmp_path):
    for name in ("null", "NA", "true", "???", "${AD}", "1.10"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.nii").touch()
    manifest = load(tmp_path)
    assert manifest.classes == ("${AD}", "1.10", "???", "NA", "null", "true")
    assert not manifest.left_out


def test_files_of_macos_and_windows_are_no_classes_and_no_images(tmp_path):
    for name in (
        "AD/a.nii",
        "CN/b.nii",
        "__MACOSX/AD/._a.nii",
        "AD/._a.nii",
        "CN/.DS_Store",
        "CN/x/.DS_Store",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    manifest = load(tmp_path)
    assert manifest.classes == ("AD", "CN")
    assert len(manifest.records) == 2


@pytest.mark.parametrize(
    "labels",
    [
        ("true", "false"),
        ("1.10", "1.1"),
        ("???", "CN"),
        ("${AD}", "@x"),
        ("a/b", "a.b"),
        ("[a]", "'b'"),
        ("inf", "x"),
    ],
)
def test_class_names_are_those_of_the_table_or_as_typed(folder, labels):
    table = write(folder, f"image,label\nimages/a.nii.gz,{labels[0]}\nimages/c.nii.gz,{labels[1]}\n")
    assert set(load(table).classes) == set(labels)
    manifest = load(table, classes=labels)
    assert manifest.classes == labels
    assert [record.label for record in manifest.records] == [0, 1]


def test_a_class_typed_with_point_zero_keeps_it(folder):
    table = write(folder, "image,label\nimages/a.nii.gz,1\nimages/c.nii.gz,2.0\n")
    assert load(table, classes=["1.0", "2"]).classes == ("1.0", "2")


def test_an_audit_reads_the_rows_that_training_refuses(folder):
    rows = [
        "images/a.nii.gz,x,s1,train",
        "images/a.nii.gz,y,s1,train",  # contradicts the first row
        "images/gone.nii.gz,y,s2,val",
        "images/c.nii.gz,y,,elsewhere",
        "images/c.nii.gz,y,,elsewhere",
        ",x,s3,train",
        "images/d.nii.gz,n/a,s4,train",
    ]
    table = write(folder, "\n".join(["image,label,who,part", *rows]))
    options = TableOptions(subject_column="who", split_column="part")
    manifest = load_rows_unchecked(table, options)
    assert [(record.row, record.subject, record.label, record.split) for record in manifest.records] == [
        (2, "s1", 0, "train"),
        (3, "s1", 1, "train"),
        (4, "s2", 1, "val"),
        (5, "row 5", 1, None),
        (6, "row 6", 1, None),
    ]
    assert manifest.left_out == {"image missing": 1, "label missing": 1}
    with pytest.raises(ManifestError):
        load_manifest(table, options)


def test_an_image_given_as_the_table_is_named_as_an_image(folder):
    image = folder / "scan.nii.gz"
    image.write_bytes(b"\x1f\x8b\x08\x00\x80\xff")
    with pytest.raises(ManifestError, match="is an image, not a table"):
        load(image)


def test_images_without_class_folders_ask_for_a_table(folder):
    with pytest.raises(ManifestError, match=r"has 4 images.*data\.table"):
        load(folder / "images")

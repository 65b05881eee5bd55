"""The cases of a page: volumes for the viewer, what is said about them, and what the page holds."""

import base64
import hashlib
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from voxlift.app.config import DataSettings, SettingsError, TrainSettings
from voxlift.app.config.checks import find_report_problems
from voxlift.app.config.schema import PageSettings
from voxlift.app.errors import refuse_problems
from voxlift.app.evaluation.findings import Findings
from voxlift.app.evaluation.grades import Grades
from voxlift.app.evaluation.numbers import Numbers
from voxlift.app.evaluation.scores import Scores
from voxlift.app.inference.groups import find_case_names
from voxlift.app.report import cases as building
from voxlift.app.report.case_facts import describe_row, name_volume
from voxlift.app.report.case_pictures import MAP_OPACITY, blend_map, case_picture, colour_bar
from voxlift.app.report.case_viewer import lay_out_cases
from voxlift.app.report.cases import Case, Grid, cut_case, pick_cases, place_sprite, share_planes
from voxlift.app.report.pages import write_page
from voxlift.app.report.run_page import RunSummary, add_groups, run_page_values
from voxlift.app.report.sprites import (
    MAX_BYTES,
    MAX_SIDE,
    build_sprite,
    encode_sprite,
    find_object,
    tile_slices,
)
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.subjects import SubjectColumns
from voxlift.data_pipelines.preprocess.settings import Preprocess

AFFINE = np.array([[0.0, 2, 0, -10], [1.5, 0, 0, -20], [0, 0, 4, -30], [0, 0, 0, 1]])  # axes exchanged


def decoded(address):
    picture = base64.b64decode(address.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(picture)))


def to_mm(affine, voxel):
    """Return the mm of a voxel (depth, height, width)."""
    return (np.asarray(affine) @ [*voxel[::-1], 1])[:3]


def spotted(at, shape=(5, 9, 7), *, name=""):
    """A case whose map has its maximum at a voxel."""
    heat = np.zeros(shape, np.float32)
    heat[at] = 1
    sprite = place_sprite(np.ones((*shape, 1), np.float32), Grid(), heat)
    case = Case("s", "true class a", f"decided {name}", (), sprite=sprite, item="s.nii")
    return cut_case(case, find_object(sprite))


def test_a_slice_is_in_its_tile_with_the_head_on_top_and_the_front_on_the_right():
    levels = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    sheet, columns = tile_slices(levels), encode_sprite(build_sprite(levels.astype(float)))["columns"]
    for (z, y, x), level in np.ndenumerate(levels):
        row, column = divmod(x, columns)
        assert sheet[row * 3 + 2 - z, column * 4 + y] == level


def test_a_volume_becomes_cubes_that_stay_at_their_place_in_mm():
    rng = np.random.default_rng(0)
    voxels = rng.normal(size=(6, 20, 31)).astype(np.float32)
    sprite = build_sprite(voxels, AFFINE)
    spacing = np.linalg.norm(sprite.affine[:3, :3], axis=0)
    assert spacing.max() / spacing.min() < 1.05
    corners = [(-0.5, -0.5, -0.5), tuple(side - 0.5 for side in voxels.shape)]
    new = [(-0.5, -0.5, -0.5), tuple(side - 0.5 for side in sprite.image.shape)]
    for old_corner, new_corner in zip(corners, new, strict=True):  # the same field of view
        np.testing.assert_allclose(to_mm(AFFINE, old_corner), to_mm(sprite.affine, new_corner), atol=1e-9)
    assert sprite.has_world
    assert not build_sprite(voxels).has_world


def test_values_can_be_read_back_in_the_unit_of_the_window():
    ramp = np.linspace(0, 1, 4 * 5 * 6).reshape(4, 5, 6)
    sprite = build_sprite(ramp, units=(-200.0, 300.0))
    read = sprite.low + sprite.image / 255 * (sprite.high - sprite.low)
    np.testing.assert_allclose(read, -200 + 500 * ramp, atol=500 / 255)


@pytest.mark.parametrize("shape", [(128, 40, 200), (96, 96, 96)])
def test_a_case_is_never_larger_than_its_bounds(shape):
    noise = np.random.default_rng(1).normal(size=shape).astype(np.float32)  # the worst to compress
    found = encode_sprite(build_sprite(noise, maps={"a": np.abs(noise), "b": noise**2}))
    addresses = [found["image"], *(one["image"] for one in found["overlays"])]
    assert sum(map(len, addresses)) <= MAX_BYTES
    assert max(found["size"]) <= MAX_SIDE
    width, height, depth = found["size"]
    assert decoded(found["image"]).shape[1] == found["columns"] * height
    assert decoded(found["image"]).shape[0] == -(-width // found["columns"]) * depth


def test_the_planes_go_through_the_mask_else_the_map_else_the_object():
    shape = (8, 9, 10)
    image, mask, heat = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    image[4:7, 5:8, 2:5], mask[1, 2, 3], heat[6, 6, 3], heat[0, 8, 9] = 1, 1, 0.4, 1
    assert find_object(build_sprite(image)) == (5, 6, 3)
    assert find_object(build_sprite(image, maps={"m": heat})) == (6, 6, 3)  # not the maximum in the corner
    assert find_object(build_sprite(np.ones(shape), maps={"m": heat})) == (0, 8, 9)  # no object to miss
    assert find_object(build_sprite(image, maps={"m": heat}, masks={"k": mask})) == (1, 2, 3)


def test_every_plane_without_a_mask_or_map_cuts_the_object():
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, (20, 24, 28))
    image[3:9, 3:9, 3:20] += 12  # an angle, whose centre of mass lies beside it, and a smaller blob
    image[3:9, 3:20, 3:9] += 12
    image[14:18, 18:22, 22:26] += 12
    at = find_object(build_sprite(image))
    is_object = image > 6
    is_object[14:18] = False
    assert all(np.take(is_object, place, axis).any() for axis, place in enumerate(at))


def test_models_on_other_grids_are_cut_at_the_same_place_in_mm():
    fine, coarse = np.zeros((16, 16, 16)), np.zeros((8, 8, 8))
    fine[10:14, 4:8, 6:10], coarse[5:7, 2:4, 3:5] = 1, 1
    grids = {"fine": np.diag([1.0, 1, 1, 1]), "coarse": np.diag([2.0, 2, 2, 1])}
    grids["coarse"][:3, 3] = 0.5  # the same field of view
    voxels = {"fine": fine, "coarse": coarse}
    cases = {
        name: Case("s", "", "", (), sprite=place_sprite(voxels[name][..., None], Grid(affine), None))
        for name, affine in grids.items()
    }
    planes = {name: case.planes for name, case in share_planes(cases).items()}
    for small, large in zip(planes["coarse"], planes["fine"], strict=True):
        np.testing.assert_array_equal(np.kron(small, np.ones((2, 2))), large)


def test_the_models_of_a_volume_are_cut_through_the_same_voxel():
    shared = share_planes({"a": spotted((1, 2, 3)), "b": spotted((3, 6, 5))})
    places = [[np.argwhere(plane > 0).tolist() for plane in case.maps] for case in shared.values()]
    assert sum(any(found) for found in places) == 1  # through the maximum of one, which the other lacks
    apart = {"a": spotted((1, 2, 3)), "b": spotted((3, 6, 5), shape=(6, 9, 7))}  # another grid: each its own
    assert all(np.any(case.maps[0] > 0) for case in share_planes(apart).values())


def test_a_decision_is_said_with_the_probability_of_what_and_the_threshold():
    two = Scores(["s"], [1], [[0.6, 0.4]], ("benign", "malignant"), ("s.nii",), threshold=0.45)
    assert describe_row(two, 0).decided == "decided benign: probability of malignant 0.400, threshold 0.450"
    facts = describe_row(two, 0).facts
    assert (facts.outcome, facts.is_wrong, facts.error, facts.confidence) == ("malignant", True, 0.6, 0.6)
    three = Scores(["s"], [0], [[0.2, 0.7, 0.1]], ("a", "b", "c"))
    assert describe_row(three, 0).decided == "decided b: probability of b 0.700"
    grades = Grades(["s"], [0], [[0.1, 0.2, 0.7]], ("0", "1", "2"))
    assert describe_row(grades, 0).facts.error > 2  # grades count before probabilities
    finding = Findings(
        ("s",), np.array([[np.nan, 1.0]]), np.array([[0.3, 0.8]]), ("x", "y"), thresholds=(0.2, 0.9)
    )
    unknown, missed = describe_row(finding, 0, 0), describe_row(finding, 0, 1)
    assert unknown.facts.is_wrong is None
    assert "probability of y 0.800, threshold 0.900" in missed.decided
    assert missed.facts.is_wrong
    number = Numbers(("s",), np.array([50.0]), np.array([47.5]), unit="years")
    assert describe_row(number, 0).facts.error == 2.5


def test_a_subject_with_several_volumes_is_named_with_what_tells_them_apart():
    items = ("/data/sub-1/ses-1/anat/t1.nii.gz", "/data/sub-1/ses-2/anat/t1.nii.gz", "/data/sub-2/t1.nii.gz")
    scores = Scores(["sub-1", "sub-1", "sub-2"], [0, 0, 1], [[0.5, 0.5]] * 3, ("a", "b"), items)
    assert [name_volume(scores, row) for row in range(3)] == ["sub-1 (ses-1)", "sub-1 (ses-2)", "sub-2"]


def test_the_subject_is_that_of_the_table_where_no_column_was_named():
    rows = {"a/x.nii": {"participant_id": "P7", "age": "4"}, "a/y.nii": {"participant_id": "n/a", "age": ""}}
    columns, run = SubjectColumns(rows, ("age", "participant_id")), RunFolder(Path("none"))
    settings = TrainSettings(data=DataSettings(name="manifest", label_column="state"))
    names = find_case_names(run, settings, columns)
    assert names == {"a/x.nii": "P7"}
    shown = [add_groups(Case(item, "", "", (), item=item), {}, names).subject for item in rows]
    assert shown == ["P7", "a/y.nii"]
    named = {
        f"data/{code}_t1.nii": {"file": f"{code}_t1.nii", "No": str(row), "Kennung": code}
        for row, code in enumerate(("A-1", "A-12", "B-3"))
    }
    unusual = SubjectColumns(named, ("file", "No", "Kennung"))
    assert list(find_case_names(run, settings, unusual).values()) == ["A-1", "A-12", "B-3"]
    assert find_case_names(run, settings, SubjectColumns(named, ("file", "No"))) == {}
    settings.data.subject_column = "age"
    assert find_case_names(run, settings, columns) == {}


@pytest.mark.parametrize(
    ("wrong", "count", "expected"), [(9, 4, (2, 2)), (1, 6, (1, 5)), (9, 12, (8, 4)), (3, 0, (0, 0))]
)
def test_a_page_has_as_many_cases_as_asked_for_from_both_groups(monkeypatch, wrong, count, expected):
    ranked = ([(i, 0) for i in range(wrong)], [(i, 0) for i in range(4 if count == 12 else 7)])
    monkeypatch.setattr(building, "rank_cases", lambda _: ranked)
    monkeypatch.setattr(building, "build_cases", lambda _, rows, *__: list(rows))
    assert tuple(map(len, pick_cases(None, None, None, count))) == expected


def test_the_colour_bar_and_the_pictures_have_the_colours_of_the_map():
    bar = decoded(colour_bar()) / 255
    grey = np.zeros((1, 1, 3))
    for share in (0.0, 0.25, 1.0):
        pixel = blend_map(grey, np.array([[share]]))[0, 0]
        np.testing.assert_allclose(bar[0, round(255 * share)], pixel, atol=1 / 128)
    np.testing.assert_allclose(bar[0, 0], 0)
    np.testing.assert_allclose(bar[-1, 0], 1)
    assert 0 < MAP_OPACITY < 1
    with_map, without = spotted((1, 2, 3)), spotted((1, 2, 3))
    tall, flat = decoded(case_picture(with_map)), decoded(case_picture(without, with_bare=False))
    assert tall.shape[0] > 2 * flat.shape[0] - 1  # bare above the map
    np.testing.assert_array_equal(tall[-len(flat) :], flat)


@pytest.fixture(name="page")
def written_page(tmp_path):
    groups = {"s.nii": {"sex": "<F>"}}
    cases = [add_groups(spotted((1, 2, 3)), groups), spotted((2, 3, 4))]
    summary = RunSummary(name="run", metrics={"test": {"auc": 0.8, "n": 2}}, errors=cases)
    path = write_page("run.html.j2", tmp_path / "r.html", run_page_values(summary))
    return path.read_text(encoding="utf-8")


def test_a_page_runs_its_own_scripts_alone_and_loads_nothing(page):
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    assert scripts[0].startswith("/*! brainsprite")
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1].replace("&#39;", "'")
    for script in scripts:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "<iframe" not in page
    assert set(re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page)) == set()


def test_the_data_of_a_page_hold_what_the_list_needs_whatever_the_names(page):
    data = json.loads(re.search(r'id="case-data">(.*?)</script>', page, re.DOTALL)[1])
    assert [case["facts"].get("sex") for case in data["cases"]] == ["<F>", None]
    assert "<F>" not in page
    assert len(data["colours"]) == 256


def test_pictures_alone_need_no_script(tmp_path):
    assert lay_out_cases([("x", [{"": spotted((1, 2, 3))}])], is_interactive=False).viewer is None
    assert lay_out_cases([("x", [])]).is_empty
    summary = RunSummary(
        name="run", metrics={"test": {"auc": 0.8, "n": 2}}, errors=[spotted((1, 2, 3))], is_interactive=False
    )
    text = write_page("run.html.j2", tmp_path / "r.html", run_page_values(summary)).read_text(
        encoding="utf-8"
    )
    assert "<script" not in text
    assert "script-src" not in text
    assert "<img" in text


def test_the_grid_of_a_cohort_reads_the_affine_that_the_cache_kept_or_prepares_the_image(monkeypatch):
    kept = SimpleNamespace(affine=AFFINE.tolist())
    cohort = SimpleNamespace(
        records=[SimpleNamespace(images=("a.nii",), region=None)],
        files=["a.raw"],
        shape=(1, 1, 1, 1),
        dtype="float32",
        preprocess=Preprocess(window_hu=(-100.0, 200.0)),
    )
    monkeypatch.setattr(building, "load_metadata", lambda *_: [kept])
    grid = building.find_grid(cohort, 0)
    np.testing.assert_array_equal(grid.affine, AFFINE)
    assert grid.units == (-100.0, 200.0)
    kept.affine = None  # a cache of an earlier version
    monkeypatch.setattr(building, "prepare_volume", lambda *_: SimpleNamespace(affine=2 * AFFINE))
    np.testing.assert_array_equal(building.find_grid(cohort, 0).affine, 2 * AFFINE)


def test_the_number_of_cases_is_checked():
    assert find_report_problems(PageSettings()) == []
    with pytest.raises(SettingsError, match=r"report\.cases"):
        refuse_problems(find_report_problems(PageSettings(cases=-1)))

"""The cases of a page in a real browser: planes, overlay, window, keys, list, narrow screens and print.

`make test-browser` runs these. They need Chromium, as `chromium` or `google-chrome`, and fail without it.
"""

import io
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from voxlift.app.report.case_facts import CaseFacts
from voxlift.app.report.case_viewer import lay_out_cases
from voxlift.app.report.cases import Case, Grid, cut_case, place_sprite
from voxlift.app.report.pages import write_page
from voxlift.app.report.run_page import RunSummary, run_page_values
from voxlift.app.report.sprites import find_object

pytestmark = pytest.mark.browser

SHAPE = (9, 15, 12)  # unequal sides: a swapped axis shows
AFFINE = np.array([[2.0, 0, 0, -10], [0, 2, 0, -20], [0, 0, 2, -30], [0, 0, 0, 1]])
PEAK = (6, 10, 3)  # (depth, height, width)
POSITION = re.compile(r"x (-?[\d.]+), y (-?[\d.]+), z (-?[\d.]+) mm")


def case(index, *, is_wrong):
    """A volume whose voxels grow along each axis, with a map around one voxel."""
    depth, height, width = np.indices(SHAPE, np.float32)
    voxels = (100 * depth + 10 * height + width)[..., None]
    distance = sum((axis - at) ** 2 for axis, at in zip((depth, height, width), PEAK, strict=True))
    sprite = place_sprite(voxels, Grid(AFFINE, has_sides=True), np.exp(-distance / 3))
    facts = CaseFacts(
        "ab"[index % 2],
        is_wrong=is_wrong,
        error=index / 10,
        confidence=1 - index / 10,
        groups={"sex": "FM"[index // 2]},
    )
    made = Case(
        f"sub-{index}",
        f"true class {'ab'[index % 2]}",
        "decided b: probability of b 0.9",
        (),
        sprite=sprite,
        facts=facts,
    )
    return cut_case(made, find_object(sprite))


@pytest.fixture(name="browser", scope="module")
def started_browser():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("expected Chromium as `chromium` or `google-chrome` on the PATH; install it.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(name="address", scope="module")
def written_page(tmp_path_factory):
    summary = RunSummary(
        name="volume3d on phantom",
        metrics={"test": {"auc": 0.8, "n": 4}},
        errors=[case(0, is_wrong=True), case(1, is_wrong=True)],
        correct=[case(2, is_wrong=False), case(3, is_wrong=False)],
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    return write_page("run.html.j2", path, run_page_values(summary)).as_uri()


def compared(index, *, other):
    """A volume of two models, which differ in what they say of its class."""
    one = case(index, is_wrong=False)
    told = {"first": 0.5, "second": other}
    return {name: replace(one, facts=replace(one.facts, rated=value)) for name, value in told.items()}


def test_cases_of_a_comparison_are_sorted_by_the_disagreement_of_the_models(browser, tmp_path):
    volumes = [compared(index, other=other) for index, other in enumerate((0.6, 0.1, 0.7))]
    section = lay_out_cases([("", volumes)])
    values = {**run_page_values(RunSummary(name="x", metrics={"test": {"n": 3}})), "cases": section}
    path = write_page("run.html.j2", tmp_path / "report.html", {**values, "viewer": section.viewer})
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("#viewer[data-ready='0']")
    page.locator("[data-sort]").select_option("disagreement")
    shown = [card.get_attribute("data-case") for card in page.locator("[data-case]:visible").all()]
    assert shown == ["1", "2", "0"]
    page.close()


@pytest.fixture(name="page")
def opened_page(browser, address):
    """The page, opened from its file without a network; a message of the console fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    page, messages = context.new_page(), []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#viewer[data-ready='0']")
    yield page
    context.close()
    assert messages == []


def pixels(page, plane):
    """Return what a plane shows, as [H, W, RGB]."""
    return np.asarray(
        Image.open(io.BytesIO(page.locator(f"[data-plane={plane}]").screenshot())).convert("RGB"), int
    )


def position(page):
    return tuple(
        float(part) for part in POSITION.search(page.locator("[data-part=position]").inner_text()).groups()
    )


def test_the_planes_start_at_the_maximum_of_the_map_in_world_mm_with_the_value_of_the_voxel(page):
    depth, height, width = PEAK
    assert position(page) == (2 * width - 10, 2 * height - 20, 2 * depth - 30)
    text = page.locator("[data-part=position]").inner_text()
    value = float(re.search(r"value (?:at \w+ )?(-?[\d.]+)", text)[1])
    assert abs(value - (100 * depth + 10 * height + width)) <= 5  # a level of 8 bit
    assert "1.00" in text.partition("Grad-CAM")[2]


def test_a_click_moves_the_other_planes_to_the_voxel_below_it(page):
    before = {name: pixels(page, name) for name in ("coronal", "sagittal")}
    box = page.locator("[data-plane=axial]").bounding_box()
    _, height, width = SHAPE
    at = {
        "x": (1 + 0.5) / width * box["width"],
        "y": (2 + 0.5) / height * box["height"],
    }  # row 0 is the front
    page.locator("[data-plane=axial]").click(position=at)
    assert position(page) == (2 * 1 - 10, 2 * (height - 1 - 2) - 20, 2 * PEAK[0] - 30)
    for name, old in before.items():
        assert np.any(pixels(page, name) != old)


def test_each_plane_shows_its_own_slice_with_the_head_and_the_front_on_top(page):
    page.locator("[data-part=overlay]").select_option(label="none")
    page.locator("[data-part=crosshair]").uncheck()
    for name, (rows, columns) in {"axial": (15, 12), "coronal": (9, 12), "sagittal": (9, 15)}.items():
        shown = pixels(page, name)[..., 0]
        centres = [
            ((np.arange(n) + 0.5) / n * side).astype(int)
            for n, side in zip((rows, columns), shown.shape, strict=True)
        ]
        grid = shown[np.ix_(*centres)]
        assert np.all(np.diff(grid[3:], axis=0) <= 0), (
            name
        )  # values fall from the top on; the letters are above
        assert np.all(np.diff(grid[3:], axis=1) >= 0), name


def test_opacity_and_window_change_the_pixels_and_the_overlay_can_be_switched_off(page):
    page.locator("[data-part=crosshair]").uncheck()
    looks = [pixels(page, "axial")]
    for value in ("0", "100"):
        page.locator("[data-part=opacity]").fill(value)
        looks.append(pixels(page, "axial"))
    assert np.any(looks[0] != looks[1])
    assert np.any(looks[1] != looks[2])
    assert np.ptp(looks[1], axis=-1)[40:].max() == 0  # grey without the map
    page.locator("[data-part=overlay]").select_option(label="none")
    np.testing.assert_array_equal(pixels(page, "axial"), looks[1])
    assert page.locator("[data-part=scale]").is_hidden()
    page.locator("[data-part=white]").fill("400")
    brighter = pixels(page, "axial")
    assert brighter.mean() > looks[1].mean()
    page.locator("[data-part=reset]").click()
    np.testing.assert_array_equal(pixels(page, "axial"), looks[1])


def test_the_colour_bar_has_the_colours_of_the_map(page):
    page.locator("[data-part=crosshair]").uncheck()
    page.locator("[data-part=opacity]").fill("100")
    bar = np.asarray(Image.open(io.BytesIO(page.locator("[data-part=bar]").screenshot())).convert("RGB"), int)
    shown = pixels(page, "axial")
    peak = shown[
        int((SHAPE[1] - PEAK[1] - 0.5) / SHAPE[1] * len(shown)),
        int((PEAK[2] + 0.5) / SHAPE[2] * shown.shape[1]),
    ]
    assert np.abs(bar[len(bar) // 4, -3] - peak).max() <= 12  # not at its soft edge


def test_the_keyboard_alone_moves_scrolls_and_opens_cases(page):
    x, y, z = position(page)
    page.locator("[data-plane=axial]").focus()
    for key, expected in (
        ("ArrowRight", (x + 2, y, z)),
        ("ArrowUp", (x + 2, y + 2, z)),
        ("PageUp", (x + 2, y + 2, z + 2)),
        ("PageDown", (x + 2, y + 2, z)),
    ):
        page.keyboard.press(key)
        assert position(page) == expected, key
    page.keyboard.press("n")
    page.wait_for_selector("#viewer[data-ready='1']")
    assert page.locator("[data-part=subject]").inner_text() == "sub-1"
    page.locator("[data-case='3'] button").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[data-ready='3']")
    assert page.evaluate("document.activeElement.dataset.plane") == "axial"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"  # where the keys go is seen


def test_the_list_is_sorted_and_filtered(page):
    def shown():
        return [int(card.get_attribute("data-case")) for card in page.locator("[data-case]:visible").all()]

    assert shown() == [0, 1, 2, 3]
    page.locator("[data-sort]").select_option("error")
    assert shown() == [3, 2, 1, 0]
    page.locator("[data-sort]").select_option("confidence")
    assert shown() == [0, 1, 2, 3]
    page.locator("[data-filter=Class]").select_option("b")
    assert shown() == [1, 3]
    page.locator("[data-filter=Decision]").select_option("wrong")
    assert shown() == [1]
    page.locator("[data-filter=Decision]").select_option("")
    page.locator("[data-filter=sex]").select_option("M")
    assert shown() == [3]


def test_a_narrow_screen_shows_planes_of_its_width_without_scrolling_sideways(page):
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    for plane in page.locator("[data-plane]").all():
        assert plane.bounding_box()["width"] >= 300
    sizes = page.evaluate(
        "[...document.querySelectorAll('#cases *')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 12  # pixels


def test_print_shows_every_case_as_a_picture_and_no_controls(page):
    page.locator("[data-filter=Class]").select_option("b")
    page.emulate_media(media="print")
    assert page.locator("#viewer").is_hidden()
    assert page.locator("#case-list").is_hidden()
    assert page.locator("[data-case] img:visible").count() == 4
    assert page.locator("[data-case] button:visible").count() == 0


def test_everything_that_is_seen_or_set_has_a_name(page):
    assert page.evaluate("[...document.images].every(image => image.alt)")
    assert page.evaluate("[...document.querySelectorAll('#viewer [role=img]')].every(one => one.ariaLabel)")
    assert page.evaluate(
        "[...document.querySelectorAll('#cases input, #cases select')].every(one => one.labels.length)"
    )


def test_without_a_script_the_pictures_remain(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator("[data-case] img:visible").count() == 4
    assert page.locator("#viewer").is_hidden()
    assert page.locator("button:visible").count() == 0
    context.close()

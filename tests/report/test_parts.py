"""The pieces of a page: markup, numbers, pictures, figures, packed columns."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import zlib
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from lirastore.report import chart, figures
from lirastore.report.content import Curve, Rate, Sketch
from lirastore.report.formats import interval, moment, number, percent, size
from lirastore.report.histogram import histogram, ticks_of
from lirastore.report.markup import Markup, data_block, element, join, raw_block
from lirastore.report.packing import PRECISION, Pack
from lirastore.report.parts import rate_cell, strip
from lirastore.report.pictures import LARGEST_SIDE, SHEET_SIDE, data_uri, sheet

# --- markup -------------------------------------------------------------------------------------


def test_text_is_escaped_and_markup_is_not() -> None:
    assert element("p", "1 < 2 & ", element("b", '"')) == "<p>1 &lt; 2 &amp; <b>&quot;</b></p>"


def test_attributes_are_escaped_named_and_left_out() -> None:
    made = element("img", alt='"><script>', class_="a", aria_hidden="true", hidden=True, id=None, open=False)
    assert made == '<img alt="&quot;&gt;&lt;script&gt;" class="a" aria-hidden="true" hidden>'


def test_content_may_be_nested_empty_or_a_number() -> None:
    assert join("a", None, [Markup("<br>"), ["<"]], 3) == "a<br>&lt;3"


def test_joining_markup_with_text_does_not_launder_the_text() -> None:
    assert element("p", element("b", "x") + "<script>") == "<p>&lt;b&gt;x&lt;/b&gt;&lt;script&gt;</p>"


@settings(max_examples=40)
@given(st.recursive(st.text() | st.floats(allow_nan=False, allow_infinity=False), st.lists))
def test_data_for_the_script_comes_back_and_cannot_end_it(value: Any) -> None:
    block = data_block("x", value)
    content = block.removeprefix('<script type="application/json" id="x">').removesuffix("</script>")
    assert not set(content) & set("<>&")
    assert json.loads(content) == value


def test_data_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        data_block("x", math.nan)


@pytest.mark.parametrize("content", ["a </script> b", "</SCRIPT", "<!-- a"])
def test_a_script_that_would_end_early_is_refused(content: str) -> None:
    assert raw_block("script", "1 < 2 && 3", type="module") == '<script type="module">1 < 2 && 3</script>'
    with pytest.raises(ValueError, match="end early"):
        raw_block("script", content)


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "–"),
        (0.0, "0%"),
        (1.0, "100%"),
        (0.4512, "45.1%"),
        (0.08834, "8.83%"),
        (0.00123, "0.12%"),
        (1.7e-5, "0.0017%"),
        (4.4e-7, "0.000044%"),
        (0.99996, "100.0%"),
    ],
)
def test_percent(share: float | None, text: str) -> None:
    assert percent(share) == text


def test_other_numbers() -> None:
    assert interval(0.313, 0.321) == "31.3–32.1"
    assert (number(None), number(-12.3456), number(0.0)) == ("–", "-12.3", "0")
    assert (size(7), size(23_000_000), size(9_200_000_000)) == ("7 B", "23 MB", "9.2 GB")


@pytest.mark.parametrize("time", ["2026-11-23T14:40:59Z", "2026-11-23T16:40:59+02:00", "2026-11-23T14:40:59"])
def test_moments_are_utc(time: str) -> None:
    assert moment(time) == "2026-11-23 14:40 UTC"


# --- pictures -----------------------------------------------------------------------------------


def decoded(uri: str) -> np.ndarray:
    kind, _, text = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_survive(channels: int) -> None:
    picture = np.random.default_rng(channels).integers(0, 256, (7, 5, channels), dtype=np.uint8)
    uri = data_uri(picture)
    assert uri is not None
    assert np.array_equal(decoded(uri).reshape(picture.shape), picture)


def test_large_pictures_are_thinned() -> None:
    uri = data_uri(np.zeros((1000, 300, 1), dtype=np.uint8))
    assert uri is not None
    assert decoded(uri).shape == (125, 38)
    assert LARGEST_SIDE >= 125


def test_pictures_that_png_cannot_hold_are_left_out() -> None:
    assert data_uri(np.zeros((4, 4, 7), dtype=np.uint8)) is None


def test_a_sheet_holds_the_first_pictures_in_rows() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (43, 6, 5, 3), dtype=np.uint8)
    found = sheet(pictures, 100_000)
    assert found is not None
    assert (found.count, found.columns, found.width, found.height) == (43, 20, 5, 6)
    image = decoded(found.uri)
    for place, picture in enumerate(pictures):
        line, column = divmod(place, found.columns)
        cut = image[line * 6 : line * 6 + 6, column * 5 : column * 5 + 5]
        assert np.array_equal(cut, picture)


def test_a_sheet_takes_no_more_than_fits() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (300, 200, 150, 1), dtype=np.uint8)
    found = sheet(pictures, 50_000)
    assert found is not None
    assert 5 <= found.count < 300
    assert len(found.uri) <= 50_000
    assert found.height <= SHEET_SIDE
    assert sheet(pictures, 100) is None
    assert sheet(np.zeros((3, 4, 4, 7), np.uint8), 50_000) is None


# --- figures for papers -------------------------------------------------------------------------


def curve(name: str) -> Curve:
    rates = np.array([0.0, 0.001, 0.1, 1.0])
    return Curve(name, rates, np.array([0.01, 0.05, 0.4, 1.0]), np.array([np.inf, 3.0, 1.0, -2.0]))


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_roc_files_are_the_same_for_the_same_curves(count: int) -> None:
    pytest.importorskip("matplotlib")
    curves = [curve(f"attack_{rank}") for rank in range(count)]
    drawn = [figures.svg_bytes(figures.roc(curves, 50_000)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert ElementTree.fromstring(drawn[0]).tag.endswith("svg")
    assert b"<text" not in drawn[0]  # outlines: the same with any fonts


def test_png_is_for_print() -> None:
    image = Image.open(io.BytesIO(figures.png_bytes(figures.roc([curve("a")], 50_000))))
    assert image.size[0] > 1200
    assert image.info["dpi"][0] == pytest.approx(300, abs=0.1)


def test_curves_look_different() -> None:
    styles = {
        (figures.SERIES[rank % len(figures.SERIES)], figures.DASHES[rank % len(figures.DASHES)])
        for rank in range(28)
    }
    assert len(styles) == 28
    assert (len(figures.SERIES), len(figures.DASHES)) == (chart.SERIES, chart.DASHES)


# --- figures of the page ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("non_members", "floor"), [(0, "0.1%"), (500, "0.1%"), (57_504, "0.001%"), (10**9, "0.0001%")]
)
def test_axes_end_at_the_decade_of_one_false_positive(non_members: int, floor: str) -> None:
    ticks = chart.decades(chart.floor_of(non_members))
    assert (ticks[0][1], ticks[-1]) == (floor, (1.0, "100%"))


def test_scales_keep_to_the_figure() -> None:
    scale = chart.rate_scale(0.001, 10.0, 310.0)
    assert [scale(value) for value in (0.0, 0.001, 0.01, 1.0, 7.0)] == pytest.approx([10, 10, 110, 310, 310])
    values = np.array([0.0, 0.002, 0.3, 2.0])
    assert scale.places(values) == pytest.approx([scale(value) for value in values.tolist()])


def corners(path: str) -> list[tuple[float, float]]:
    """The corners of a path that is made of M, H and V."""
    found, x, y = [], 0.0, 0.0
    for command, values in re.findall(r"([MHV])([-0-9. ]+)", path):
        numbers = [float(value) for value in values.split()]
        x, y = {"M": (numbers[0], numbers[-1]), "H": (numbers[0], y), "V": (x, numbers[0])}[command]
        found.append((x, y))
    return found


def test_a_staircase_keeps_its_height_until_the_next_point() -> None:
    x, y = np.array([0.0, 10.0, 10.0, 20.0, 30.0]), np.array([50.0, 50.0, 40.0, 40.0, 5.0])
    drawn = chart.staircase(x, y, "curve")
    found = re.search(' d="([^"]*)"', drawn)
    assert found is not None
    assert corners(found[1]) == [(0, 50), (10, 50), (10, 40), (30, 40), (30, 5), (30, 5)]


def outputs(inside: list[float], outside: list[float]) -> Sketch:
    values = np.array([*inside, *outside])
    low, high = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    sides = [np.array(side) for side in (inside, outside)]
    counts = [np.histogram(side, bins=8, range=(low, high or 1.0))[0] for side in sides]
    means = [side.mean() if len(side) else np.nan for side in sides]
    stds = [side.std() if len(side) else np.nan for side in sides]
    return Sketch(*(np.array([part]) for part in (low, high, means, stds, counts)))


@pytest.mark.parametrize(
    ("inside", "outside"),
    [([1, 2, 3], [-1, -2]), ([], [1, 2]), ([], []), ([5], [5]), ([1e4] * 3, [-1e4] * 3), ([0, 0], [0, 0])],
)
def test_histograms_of_degenerate_values(inside: list[float], outside: list[float]) -> None:
    drawn = histogram(outputs(inside, outside), 0, 'a "<b>"')
    assert ElementTree.fromstring(drawn).tag == "svg"
    assert "nan" not in drawn
    assert 'aria-label="a &quot;&lt;b&gt;&quot;"' in drawn
    assert drawn.count('class="fit') == (len(set(inside)) > 1) + (len(set(outside)) > 1)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_within(low: float, width: float) -> None:
    ticks = ticks_of(low, low + width)
    assert 2 <= len(ticks) <= 6
    assert all(low - 1e-9 * width <= tick <= low + width * (1 + 1e-9) for tick in ticks)


def test_figures_are_themed_by_classes_alone() -> None:
    drawn = strip(1e-4, Rate(0.02, 0.01, 0.03), published=0.017, fpr=0.002)
    assert "style=" not in drawn
    assert "#" not in drawn
    assert drawn.count("<circle") == 2


# --- cells --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (Rate(None), "–"),
        (Rate(0.2), "20.0%|no interval"),
        (Rate(0.2, 0.1, 0.3, 0.15, 0.25), "20.0%|10.0–30.0|<i>15.0–25.0</i>"),
        (Rate(0.2, None, None, 0.15, 0.25), "20.0%|<i>15.0–25.0</i>"),
        (Rate(0.0, 0.0, 0.0, 0.0, 0.004), "0%|<i>≤ 0.40</i>"),
        (Rate(0.0, 0.0, 0.0), "0%|no interval"),
    ],
)
def test_a_rate_stands_over_the_interval_that_it_has(rate: Rate, text: str) -> None:
    cell = re.sub("<td[^>]*>|</td>|</small>", "", rate_cell(rate))
    assert re.sub("<small[^>]*>", "|", cell) == text


# --- packed columns -----------------------------------------------------------------------------


def unpacked(pack: Pack, name: str) -> np.ndarray:
    """As unpack.js does it."""
    entry = pack.header[name]
    planes = zlib.decompress(base64.b64decode(pack.text()[entry["body"]]))
    split = np.frombuffer(planes, np.uint8).reshape(entry["width"], entry["count"]).astype(np.uint64)
    codes = sum(split[plane] << np.uint64(8 * plane) for plane in range(entry["width"]))
    if entry.get("float"):
        return np.asarray(codes, np.uint64).view(np.float64)
    values = np.asarray(codes, np.float64)
    if "step" not in entry:
        return values + entry["low"]
    decoded = entry["scale"] * np.sinh(entry["step"] * (values - entry["centre"]))
    return np.where(values == 0, np.nan, decoded)


@given(hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(-(2**31), 2**32)))
def test_packed_integers_come_back(values: np.ndarray) -> None:
    pack = Pack()
    pack.integers("a", values)
    assert np.array_equal(unpacked(pack, "a"), values)


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e300, 1e300) | st.just(math.nan)))
def test_packed_reals_come_back_to_about_their_precision(values: np.ndarray) -> None:
    pack = Pack()
    pack.reals("a", values)
    found = unpacked(pack, "a")
    assert np.array_equal(np.isnan(found), np.isnan(values))
    known = ~np.isnan(values)
    allowed = PRECISION * np.hypot(values[known], pack.header["a"]["scale"])
    assert (np.abs(found[known] - values[known]) <= allowed).all()


def test_few_reals_are_so_small_that_they_are_rounded_more() -> None:
    values = 10 ** np.random.default_rng(0).normal(0, 1, 5000)
    pack = Pack()
    pack.reals("a", values)
    error = np.abs(unpacked(pack, "a") / values - 1)
    assert (error <= PRECISION).mean() > 0.97


def test_packed_floats_keep_infinity_and_packs_can_be_joined() -> None:
    first, second = Pack(), Pack()
    first.integers("a", np.arange(5))
    second.floats("b", np.array([np.inf, -1.5, 0.1]))
    first.take(second)
    assert unpacked(first, "b").tolist() == [np.inf, -1.5, 0.1]
    assert unpacked(first, "a").tolist() == [0, 1, 2, 3, 4]
    assert first.size == sum(map(len, first.text()))

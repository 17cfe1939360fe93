"""The pieces of a page: markup, numbers, pictures, figures."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from lirastore.report import figures
from lirastore.report.data import Curve, Exposed, Outputs
from lirastore.report.formats import interval, moment, number, percent, size
from lirastore.report.markup import Markup, element, join
from lirastore.report.pictures import LARGEST_SIDE, data_uri

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


# --- figures ------------------------------------------------------------------------------------


def curve(name: str) -> Curve:
    return Curve(name, np.array([0.0, 0.001, 0.1, 1.0]), np.array([0.01, 0.05, 0.4, 1.0]))


def outputs(inside: list[float], outside: list[float]) -> Outputs:
    shown = Exposed(0, 1, None, None, None, len(inside), None)
    return Outputs(shown, "one", np.array(inside), np.array(outside))


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_roc_files_are_the_same_for_the_same_curves(count: int) -> None:
    curves = [curve(f"attack_{rank}") for rank in range(count)]
    drawn = [figures.svg_bytes(figures.roc(curves, 50_000, figures.PAPER, legend=True)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert ElementTree.fromstring(drawn[0]).tag.endswith("svg")
    assert b"<text" not in drawn[0]  # outlines: the same with any fonts


def test_png_is_for_print() -> None:
    image = Image.open(
        io.BytesIO(figures.png_bytes(figures.roc([curve("a")], 50_000, figures.PAPER, legend=True)))
    )
    assert image.size[0] > 1200
    assert image.info["dpi"][0] == pytest.approx(300, abs=0.1)


@pytest.mark.parametrize(
    ("non_members", "ticks"), [(0, "0.1%"), (500, "0.1%"), (57_504, "0.001%"), (10**9, "0.0001%")]
)
def test_axes_end_at_the_decade_of_one_false_positive(non_members: int, ticks: str) -> None:
    figure = figures.roc([], non_members, figures.PAGE, legend=False)
    first = figures.inline_svg(figure, "x", "").split("</text>")[0]
    assert first.endswith(f">{ticks}")


@pytest.mark.parametrize(
    ("inside", "outside"),
    [([1, 2, 3], [-1, -2]), ([], [1, 2]), ([], []), ([5], [5]), ([1e4] * 3, [-1e4] * 3), ([0, 0], [0, 0])],
)
def test_histograms_of_degenerate_values(inside: list[float], outside: list[float]) -> None:
    svg = figures.inline_svg(figures.histogram(outputs(inside, outside), figures.PAGE), "x", "values")
    assert svg.startswith("<svg ")


def test_inline_figures_are_themed_and_keep_to_themselves() -> None:
    svg = figures.inline_svg(figures.roc([curve("a")], 1000, figures.PAGE, legend=False), "mine", 'a "<b>"')
    assert "var(--series-0)" in svg
    assert not re.search("#fe00", svg)
    assert all(found.startswith("mine-") for found in re.findall(r'\bid="([^"]*)"', svg))
    assert all(found.startswith("mine-") for found in re.findall(r'(?:url\(|href=")#([^")]*)', svg))
    assert "http" not in svg
    assert "<style" not in svg
    assert 'aria-label="a &quot;&lt;b&gt;&quot;"' in svg


def test_attacks_look_different() -> None:
    styles = {
        (figures.PAPER.series[rank % len(figures.PAPER.series)], figures.DASHES[rank % len(figures.DASHES)])
        for rank in range(28)
    }
    assert len(styles) == 28
    assert len(figures.PAGE.series) == len(figures.PAPER.series)

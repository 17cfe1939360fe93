"""The written page in headless Chromium: it works when clicked through, complains of nothing, and fits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import browser
import numpy as np
import pytest
from browser import Browser, Tab
from report_stores import EXAMPLES, commit, make_store

import lirastore
from lirastore.report.formats import percent

WIDTHS = {"desktop": (1200, 900), "phone": (390, 844), "paper": (718, 1000)}
TAB, ENTER, SPACE, RIGHT, DOWN = ("Tab", 9), ("Enter", 13), (" ", 32), ("ArrowRight", 39), ("ArrowDown", 40)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = browser.find()
    if executable is None:
        reason = f"no Chromium is installed: looked for {', '.join(browser.NAMES)}"
        if os.environ.get("LIRASTORE_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with browser.running(executable, tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def page(varied: lirastore.Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied.report(tmp_path_factory.mktemp("browser") / "report.html")


@pytest.fixture(params=["desktop", "phone"])
def tab(request: pytest.FixtureRequest, chromium: Browser, page: Path) -> Iterator[Tab]:
    """The page, ready; afterwards nothing may have gone wrong in it."""
    with opened(chromium, page, request.param) as made:
        yield made


class opened:
    """A tab with a page whose script has started; its problems fail the test at the end."""

    def __init__(
        self, chromium: Browser, page: Path, device: str, theme: str = "light", at: str = ""
    ) -> None:
        self._tab = Tab(chromium, *WIDTHS[device], theme)
        self._tab.open(page, at)

    def __enter__(self) -> Tab:
        self._tab.until("document.documentElement.dataset.ready === 'true'")
        return self._tab

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            fits(self._tab)
            assert self._tab.problems() == []
        self._tab.ask("localStorage.clear()")
        self._tab.close()


def fits(tab: Tab) -> None:
    wide = """[...document.querySelectorAll("body *")]
        .filter((e) => !e.closest(".scroll, nav, svg") && e.getBoundingClientRect().right > WIDTH + 1)
        .map((e) => e.outerHTML.slice(0, 120))""".replace("WIDTH", str(tab.width))
    assert tab.ask("document.scrollingElement.scrollWidth") <= tab.width, tab.ask(wide)


def text(tab: Tab, selector: str) -> str:
    return str(tab.ask(f"document.querySelector({selector!r}).innerText"))


def style(tab: Tab, selector: str, name: str) -> str:
    return str(tab.ask(f"getComputedStyle(document.querySelector({selector!r})).{name}"))


# --- how it looks -------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_it_opens_without_complaint_fits_and_can_be_read(
    chromium: Browser, page: Path, device: str, theme: str
) -> None:
    with opened(chromium, page, device, theme) as tab:
        tab.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        fits(tab)
        assert tab.ask(CONTRAST) == []
        assert tab.ask(UNLABELLED) == []


# Texts whose contrast with what is behind them is below 4.5 (WCAG 2.2 AA), with their contrast.
CONTRAST = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => colour.slice(0, 3)
    .map((part) => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.getClientRects().length) continue;
    if (element.closest(".hidden, .skip, script, option")) continue;
    const looks = getComputedStyle(element);
    const [a, b] = [rgb(element.closest("svg") ? looks.fill : looks.color), behind(element)].map(luminance);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.add(`${contrast.toFixed(2)} ${element.tagName} ${element.textContent}`);
  }
  return [...found];
})()"""

# What can be operated and has no name.
UNLABELLED = """[...document.querySelectorAll("button, input, select, a, [tabindex='0'], svg[role=img]")]
  .filter((e) => !(e.ariaLabel || e.innerText?.trim() || e.labels?.length || e.textContent.trim()))
  .map((e) => e.outerHTML.slice(0, 120))"""


def test_the_theme_follows_the_system_until_it_is_chosen_and_is_remembered(
    chromium: Browser, page: Path
) -> None:
    with opened(chromium, page, "desktop", "dark") as tab:
        dark = style(tab, "body", "backgroundColor")
        tab.prefer("light")
        light = style(tab, "body", "backgroundColor")
        assert dark != light
        tab.click("#theme")
        assert style(tab, "body", "backgroundColor") == dark
        tab.reload()
        tab.until("document.documentElement.dataset.ready === 'true'")
        assert style(tab, "body", "backgroundColor") == dark
        assert tab.ask("document.querySelector('#theme').ariaLabel") == "Switch to the light theme"
        tab.click("#theme")
        assert style(tab, "body", "backgroundColor") == light


def test_on_paper_it_is_light_and_without_controls(chromium: Browser, page: Path) -> None:
    with opened(chromium, page, "paper", "dark") as tab:
        tab.prefer("dark", media="print")
        assert style(tab, "body", "backgroundColor") == "rgb(255, 255, 255)"
        assert style(tab, ".controls", "display") == style(tab, "#theme", "display") == "none"


def test_without_script_everything_essential_is_there(chromium: Browser, page: Path) -> None:
    tab = Tab(chromium, *WIDTHS["phone"])
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    tab.call("Page.navigate", url=page.as_uri())
    tab.until("document.readyState === 'complete' && document.querySelector('#record') !== null")
    assert "ask the store" in text(tab, "#lookup")
    assert "9." in text(tab, ".reading") or "%" in text(tab, ".reading")
    assert style(tab, ".lookup", "display") == style(tab, "#theme", "display") == "none"
    tab.click("#draw-0")  # by style alone
    assert style(tab, "#roc-plot .curve.n0", "display") == "none"
    fits(tab)
    assert tab.problems() == []
    tab.close()


# --- the ROC ------------------------------------------------------------------------------------


def test_curves_are_drawn_as_ticked(tab: Tab) -> None:
    assert style(tab, "#roc-plot .curve.n0", "display") != "none"
    tab.click("#draw-0")
    assert style(tab, "#roc-plot .curve.n0", "display") == "none"
    last = tab.ask("document.querySelectorAll('#roc-plot .curve').length") - 1
    assert style(tab, f"#roc-plot .curve.n{last}", "display") == "none"
    tab.click(".more summary")
    tab.click(f"#draw-{last}")
    assert style(tab, f"#roc-plot .curve.n{last}", "display") != "none"


@pytest.fixture(scope="module")
def lead_curve(varied: lirastore.Store) -> list[tuple[float, float]]:
    """FPR and TPR of the strongest attack."""
    return varied.sql(
        "select r.fpr, r.tpr from roc as r where r.attack = "
        "(select m.attack from metrics as m order by m.tpr_at_0_1pct desc, m.auc desc limit 1)"
    ).fetchall()


def test_the_curves_are_read_where_one_points_and_where_one_chooses(
    tab: Tab, lead_curve: list[tuple[float, float]]
) -> None:
    def reading() -> str:
        return text(tab, ".r0 td b")

    def expected(rate: float) -> str:
        return percent(max(tpr for fpr, tpr in lead_curve if fpr <= rate))

    before = reading()
    assert before == expected(0.001)
    tab.ask("document.querySelector('#roc-fpr').value = ''")
    tab.click("#roc-fpr")
    tab.type("10")
    assert reading() == expected(0.1) != before
    assert tab.ask("Number(document.querySelector('#roc-slider').value)") == pytest.approx(-1)
    tab.point("#roc-plot svg", 0.97, 0.4)  # nearly at 100%
    pointed = reading()
    assert float(pointed.rstrip("%")) > float(expected(0.1).rstrip("%"))
    tab.point("#metrics", 0.5, 0.01)
    assert reading() == expected(0.1)
    tab.click("#roc-plot svg", 0.97, 0.4)
    tab.point("#metrics", 0.5, 0.01)
    assert reading() == pointed
    assert tab.ask("document.querySelector('.r0 td small').textContent").endswith("FPR")


def test_precision_depends_on_how_many_are_members(tab: Tab) -> None:
    before = text(tab, ".r0 td:nth-of-type(2)")
    tab.ask("document.querySelector('#roc-prior').value = ''")
    tab.click("#roc-prior")
    tab.type("0.1")
    after = text(tab, ".r0 td:nth-of-type(2)")
    assert float(after.strip("≥ %")) < float(before.strip("≥ %"))


def test_the_slider_obeys_the_keyboard(tab: Tab) -> None:
    tab.ask("document.querySelector('#roc-slider').focus()")
    before = tab.ask("Number(document.querySelector('#roc-fpr').value)")
    tab.press(*RIGHT)
    assert tab.ask("Number(document.querySelector('#roc-fpr').value)") > before
    assert tab.ask("document.activeElement.matches(':focus-visible')")
    assert style(tab, "#roc-slider", "outlineStyle") == "solid"


# --- tables -------------------------------------------------------------------------------------


def test_tables_are_sorted_by_a_press_on_a_heading(tab: Tab) -> None:
    values = "[...document.querySelector('#metrics tbody').rows].map((row) => row.cells[1].dataset.value)"
    tab.click("#metrics th:nth-child(2) .sorter")
    down = [float(value) for value in tab.ask(values)]
    assert down == sorted(down, reverse=True)
    tab.ask("document.querySelector('#metrics th:nth-child(2) .sorter').focus()")
    tab.press(*ENTER)
    up = [float(value) for value in tab.ask(values)]
    assert up == sorted(down)
    assert tab.ask("document.querySelector('#metrics [aria-sort]').ariaSort") == "ascending"


def test_exact_intervals_are_shown_when_asked_for(tab: Tab) -> None:
    assert style(tab, "#metrics .exact", "display") == "none"
    tab.click("#exact-intervals")
    assert style(tab, "#metrics .exact", "display") == "block"


def test_classes_are_shown_as_any_attack_sees_them(tab: Tab, varied: lirastore.Store) -> None:
    tab.click("#classes th:nth-child(2) .sorter")
    tab.ask(
        """(() => { const s = document.querySelector("#class-attack"); s.value = "loss";
        s.dispatchEvent(new Event("change")); })()"""
    )
    assert "loss (paper)" in text(tab, "#class-caption")
    rates = varied.sql("select tpr_at_0_1pct from metrics_by_class where attack = 'loss'").fetchall()
    shown = tab.ask(
        "[...document.querySelectorAll('#class-rows tr')].map((row) => row.cells[1].dataset.value)"
    )
    expected = sorted((rate for (rate,) in rates), reverse=True)
    assert [float(value) for value in shown] == pytest.approx(expected, rel=1e-4)
    assert tab.ask("document.querySelectorAll('#class-rows svg').length") == len(rates)


# --- examples -----------------------------------------------------------------------------------


def test_an_example_is_found_by_its_number(tab: Tab, varied: lirastore.Store) -> None:
    tab.click("#lookup-query")
    tab.type("17")
    tab.until("document.querySelector('#lookup-count').textContent.includes('example 17')")
    tab.press(*ENTER)
    tab.until("document.querySelector('#lookup-card h3').textContent === 'Example 17'")
    card = text(tab, "#lookup-card")
    label = int(varied.labels[17])
    assert f"labelled {label}" in card
    assert "Memorization" in card and "Rank within a model" in card
    assert "was_member(MODEL, 17)" in card
    ((detected, held),) = varied.sql(
        "select round(e.detected * 8), 8 from exposure as e where e.attack = 'loss' and e.example = 17"
    ).fetchall()
    rows = "[...document.querySelectorAll('#lookup-card tbody tr')]"
    seen = tab.ask(f"{rows}.find((row) => row.cells[0].innerText.startsWith('loss')).cells[1].innerText")
    assert seen == f"{detected:.0f} of {held}"
    assert tab.ask("location.hash") == "#example-17"
    assert tab.ask("document.querySelectorAll('#lookup-card .bars').length") == 2
    assert tab.ask(PAINTED)


# Whether the picture of the example has more than one colour, so that it was cut out of the sheet.
PAINTED = """(() => {
  const canvas = document.querySelector("#lookup-card canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(data).size > 2;
})()"""


def test_the_picture_is_that_of_the_example(chromium: Browser, page: Path, varied: lirastore.Store) -> None:
    for example in (3, 44):
        with opened(chromium, page, "desktop", at=f"#example-{example}") as tab:
            tab.until(f"document.querySelector('#lookup-card h3')?.textContent === 'Example {example}'")
            pixels = tab.ask(
                """(() => { const c = document.querySelector("#lookup-card canvas");
                return [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]; })()"""
            )
            picture = varied.logits.preview([example])
            assert picture is not None
            assert np.array_equal(np.reshape(pixels, (8, 6, 4))[..., :3], picture[0])


def test_a_class_is_listed_most_exposed_first(tab: Tab, varied: lirastore.Store) -> None:
    tab.click("#lookup-query")
    tab.type("class 1")
    members = int((varied.labels == 1).sum())
    tab.until(f"document.querySelector('#lookup-count').textContent.startsWith('{members} of class 1')")
    assert tab.ask("document.querySelectorAll('#lookup-results li').length") == members
    tab.press(*DOWN)
    tab.press(*DOWN)
    chosen = tab.ask("document.activeElement.innerText")
    tab.press(*ENTER)
    number = chosen.split()[0].lstrip("#")
    tab.until(f"document.querySelector('#lookup-card h3').textContent === 'Example {number}'")
    assert tab.ask("document.querySelector('#lookup-results [aria-current]').innerText") == chosen


def test_what_is_not_there_is_said(tab: Tab) -> None:
    tab.ask("document.querySelector('#lookup-query').focus()")
    for typed, says in {
        "99999": "Example 99999 is not here.",
        "class 77": "No example of class 77 here.",
        "<b>x": "Type an example’s number",
        "#2": "example 2",
    }.items():
        tab.ask("document.querySelector('#lookup-query').select()")
        tab.type(typed)
        assert text(tab, "#lookup-count").startswith(says)
        assert tab.ask("document.querySelectorAll('#lookup-results li').length") == (typed == "#2")


def test_more_results_come_when_asked_for(tab: Tab) -> None:
    count = "document.querySelectorAll('#lookup-results li').length"
    first = tab.ask(count)
    assert first < EXAMPLES
    tab.click("#lookup-more")
    assert tab.ask(count) == EXAMPLES
    assert tab.ask("document.querySelector('#lookup-more').hidden")


def test_the_gallery_and_the_address_lead_to_an_example(tab: Tab) -> None:
    number = tab.ask("document.querySelectorAll('.gallery a')[2].dataset.example")
    tab.click(".gallery li:nth-child(3) a")
    tab.until(f"document.querySelector('#lookup-card h3').textContent === 'Example {number}'")
    tab.click(".gallery li:nth-child(1) a")
    tab.until(f"document.querySelector('#lookup-card h3').textContent !== 'Example {number}'")
    tab.ask("history.back()")
    tab.until(f"document.querySelector('#lookup-card h3').textContent === 'Example {number}'")


def test_a_class_leads_to_its_examples(tab: Tab, varied: lirastore.Store) -> None:
    tab.click("#class-rows tr:nth-child(2) a")
    tab.until("document.querySelector('#lookup-query').value === 'class 1'")
    members = int((varied.labels == 1).sum())
    assert tab.ask("document.querySelectorAll('#lookup-results li').length") == members
    tab.until("document.querySelector('#lookup-card p').textContent === 'labelled 1'")


def test_everything_can_be_reached_by_keyboard(tab: Tab) -> None:
    reached = set()
    for _ in range(400):
        tab.press(*TAB)
        reached.add(tab.ask("document.activeElement.id || document.activeElement.className"))
        if "lookup-query" in reached:
            break
    assert {"theme", "draw-0", "roc-slider", "sorter", "class-attack", "lookup-query"} <= reached


# --- other pages --------------------------------------------------------------------------------


def test_hostile_names_run_nothing(chromium: Browser, tmp_path: Path) -> None:
    hostile = (
        """</script><script>document.title = "gone"</script><img src=x onerror="document.title = 'gone'">"""
    )
    store = make_store(tmp_path / "s.lira", name=hostile)
    commit(store, range(8))
    store.attack("loss", progress=False)
    with opened(chromium, store.report(tmp_path / "r.html"), "phone") as tab:
        assert hostile in tab.ask("document.title")
        assert text(tab, "h1") == hostile


def test_a_page_before_any_attack_complains_of_nothing(chromium: Browser, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.lira")
    with opened(chromium, store.report(tmp_path / "r.html"), "phone") as tab:
        tab.click("#theme")


def test_where_everybody_is_a_member_there_is_no_curve_but_a_search(
    chromium: Browser, tmp_path: Path
) -> None:
    everybody = np.ones((2, EXAMPLES), bool)
    store = make_store(tmp_path / "s.lira", models=2, membership=everybody, preview=False)
    commit(store, range(2))
    store.attack("loss", bootstrap=False, progress=False)
    with opened(chromium, store.report(tmp_path / "r.html", png=tmp_path / "r.png"), "phone") as tab:
        assert tab.ask("document.querySelector('#roc')") is None
        tab.until("document.querySelector('#lookup-card h3') !== null")


def test_the_watchers_see_what_goes_wrong(chromium: Browser, page: Path, tmp_path: Path) -> None:
    """The page's policy holds, and what it stops, errors, requests and overflow would all be noticed."""
    spoiled = tmp_path / "spoiled.html"
    spoil = (
        "<script>document.title = 'gone'</script><img src='https://example.invalid/x.png'>"
        "<p style='width: 3000px'>wide</p><div id=late>late</div>"
    )
    spoiled.write_text(page.read_text("utf-8").replace("<main", f"{spoil}<main"), "utf-8")
    tab = Tab(chromium, *WIDTHS["phone"])
    tab.open(spoiled)
    tab.until("document.documentElement.dataset.ready === 'true'")
    assert tab.ask("document.title") != "gone"
    found = "\n".join(tab.problems())
    assert "script-src" in found and "img-src" in found and "style-src" in found
    tab.ask("setTimeout(() => { throw new Error('noticed'); })")
    tab.ask("console.warn('warned')")
    tab.ask("new Promise((done) => setTimeout(done, 20))")
    found = "\n".join(tab.problems())
    assert "noticed" in found and "warned" in found
    tab.ask("document.documentElement.style.setProperty('--muted', '#bbb')")
    assert tab.ask(CONTRAST)
    tab.ask("document.querySelector('#late').style.width = '3000px'")
    with pytest.raises(AssertionError, match="late"):
        fits(tab)
    tab.close()

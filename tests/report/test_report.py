"""The whole page: self-contained, escaped, honest about what is missing; nothing in the store is touched."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import numpy as np
import pytest
from report_stores import EXAMPLES, MODELS, commit, make_store

import lirastore
from lirastore import catalog, results
from lirastore.errors import InputError, MissingDependency, ResultError
from lirastore.report import data, write_report
from lirastore.report.formats import percent

VOID = {"meta", "img", "br", "hr"}


class Page(HTMLParser):
    """What a test asks about a page; complains about tags that do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text("utf-8")
        self.ids: list[str] = []
        self.references: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.alternatives: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.references += (values.get("aria-labelledby") or "").split()
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            if value := values.get(name):
                self.references.append(value[1:]) if value.startswith("#") else self.addresses.append(value)
        for value in values.values():
            self.references += re.findall(r"url\(#([^)]*)\)", value or "")
        if tag == "img":
            self.alternatives.append(values.get("alt") or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def report(store: lirastore.Store, tmp_path: Path) -> Page:
    return Page(store.report(tmp_path / "report.html"))


@pytest.fixture(scope="module")
def page(attacked: lirastore.Store, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return report(attacked, tmp_path_factory.mktemp("page"))


# --- self-contained -----------------------------------------------------------------------------


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    without_pictures = re.sub("base64,[A-Za-z0-9+/=]*", "", page.source)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", without_pictures)
    assert "script" not in page.tags
    assert "default-src 'none'" in page.source


def test_ids_are_unique_and_references_resolve(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    assert {"roc", "metrics", "exposed", "outputs", "record"} <= set(page.ids)


def test_pictures_say_what_they_show(page: Page) -> None:
    assert page.alternatives
    assert all(re.fullmatch(r"Example \d+, labelled \d", text) for text in page.alternatives)


def test_the_page_is_small(page: Page) -> None:
    assert len(page.source) < 1_000_000


# --- what it says -------------------------------------------------------------------------------


def test_numbers_are_those_of_the_views(attacked: lirastore.Store, page: Page) -> None:
    rows = attacked.sql("select attack, auc, tpr_at_10pct from metrics").fetchall()
    assert {row[0] for row in rows} == {"loss", "lira_online"}
    for attack, auc, rate in rows:
        assert attack in page.text
        assert f"{auc:.3f}" in page.text
        assert f"{100 * rate:.1f}%" in page.text
    assert attacked.logits.set_digest() in page.text
    assert "leaky pictures" in page.text


def test_rates_finer_than_the_data_stay_without_an_interval(attacked: lirastore.Store, page: Page) -> None:
    non_members = int((~attacked.membership).sum())
    assert non_members * 0.001 < 1  # so 0.1% and finer have no interval
    assert f"{non_members:,} scored pairs" in page.text
    assert page.source.count("<small>no interval</small>") == 2 * 3
    assert "<td>–</td>" not in page.source
    (rates,) = attacked.sql(
        "select tpr_at_0_1pct, tpr_at_0_01pct from metrics where attack = 'lira_online'"
    ).fetchall()
    for rate in rates:
        assert f"<td>{percent(rate)}<small>no interval</small></td>" in page.source
    assert "too little data" in page.text


def test_non_members_are_those_that_an_attack_has_scored(tmp_path: Path) -> None:
    attackable = np.arange(EXAMPLES) % 3 == 0
    store = make_store(tmp_path / "s.lira", attackable=attackable)
    commit(store, range(MODELS - 2))
    store.attack("loss", progress=False)
    count = int((~store.membership[: MODELS - 2])[:, attackable].sum())
    commit(store, [MODELS - 2, MODELS - 1])  # from now on the store has more, and the attack not
    assert f"{count:,} scored pairs" in report(store, tmp_path).text
    store.attack("lira_online", progress=False)
    both = int((~store.membership)[:, attackable].sum())
    assert f"{count:,} to {both:,} scored pairs" in report(store, tmp_path).text


def test_the_scores_are_sorted_once_and_the_views_say_the_same(attacked: lirastore.Store) -> None:
    def answers(connection: duckdb.DuckDBPyConnection) -> list[object]:
        return [
            connection.execute(f"from {name}").fetchall()
            for name in ("metrics", "roc", "_ranked order by all")
        ]

    with attacked.connect() as connection:
        before = answers(connection)
        data._sort_once(connection)
        assert answers(connection) == before
        connection.execute("create or replace macro _points(by_model) as table select error('sorted again')")
        assert answers(connection) == before


def test_limits_hold_and_what_goes_wrong_is_named(
    attacked: lirastore.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = catalog.ask

    def ask(store: object, questions: object, **limits: int) -> object:
        asked.append(limits)
        return real(store, questions, **limits)

    monkeypatch.setattr(catalog, "ask", ask)
    write_report(attacked.logits, tmp_path / "r.html", memory=300 * 2**20, threads=1)
    assert asked == [{"memory": 300 * 2**20, "threads": 1}]
    with pytest.raises(InputError, match="at least 1"):
        write_report(attacked.logits, tmp_path / "r.html", memory=0)


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.lira")
    commit(store, range(MODELS))
    store.attack("loss", progress=False)
    (file,) = results.current(store.logits.lira)["loss"].files(store.logits.lira)
    data = bytearray(file.read_bytes())
    data[50 : len(data) // 2] = b"\xff" * (len(data) // 2 - 50)
    file.write_bytes(data)
    with pytest.raises(ResultError, match=file.name):
        report(store, tmp_path)


def test_the_leaky_examples_are_the_exposed_ones(page: Page) -> None:
    shown = [int(found) for found in re.findall(r"Example (\d+),", " ".join(page.alternatives))]
    assert all(example < 15 for example in shown[:10])


def test_an_attack_on_fewer_models_is_called_stale(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.lira")
    commit(store, range(MODELS - 2))
    store.attack("loss", progress=False)
    assert "stale" not in report(store, tmp_path).text
    commit(store, [MODELS - 2])
    text = report(store, tmp_path).text
    assert "loss is stale: it was computed from 6 models" in text
    assert f"7 committed of {MODELS} planned" in text


# --- what may be missing ------------------------------------------------------------------------


@pytest.mark.parametrize("models", [0, 3])
def test_before_any_attack_it_says_what_to_do(tmp_path: Path, models: int) -> None:
    store = make_store(tmp_path / "s.lira")
    commit(store, range(models))
    page = report(store, tmp_path)
    assert "lirastore attack STORE --all" in page.text
    assert f"{MODELS - models} of the planned models are missing" in page.text
    assert set(page.references) <= set(page.ids)
    store.report(tmp_path / "r.html", png=tmp_path / "r.png", svg=tmp_path / "r.svg")


def test_a_store_without_pictures(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.lira", preview=False)
    commit(store, range(MODELS))
    store.attack("lira_online", progress=False)
    page = report(store, tmp_path)
    assert not page.alternatives
    assert "Most exposed, no. 1" in page.text


# --- what comes from others ---------------------------------------------------------------------


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    hostile = """</title><script>alert(1)</script><img src=x onerror=y> $style ${title} "'&"""
    store = make_store(tmp_path / "s.lira", name=hostile)
    commit(store, range(MODELS))
    store.attack("loss", progress=False)
    page = report(store, tmp_path)
    assert hostile in page.text
    assert "script" not in page.tags
    assert "x" not in page.addresses


def test_the_store_is_only_read(attacked: lirastore.Store, tmp_path: Path) -> None:
    def digests() -> dict[Path, str]:
        files = (path for path in attacked.path.rglob("*") if path.is_file())
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = digests()
    report(attacked, tmp_path)
    assert digests() == before


# --- files --------------------------------------------------------------------------------------


def test_figures_for_papers_lie_beside(attacked: lirastore.Store, tmp_path: Path) -> None:
    attacked.report(tmp_path / "r.html", png=tmp_path / "roc.png", svg=tmp_path / "roc.svg")
    assert (tmp_path / "roc.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "roc.svg").read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "roc.png", "roc.svg"]


def test_a_report_that_fails_leaves_the_old_one(
    attacked: lirastore.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "report.html"
    output.write_text("old")
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        attacked.report(output)
    assert output.read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("target", ["missing/report.html", "."])
def test_impossible_places_are_refused(attacked: lirastore.Store, tmp_path: Path, target: str) -> None:
    with pytest.raises(InputError):
        attacked.report(tmp_path / target)


def test_without_matplotlib_the_remedy_is_named(
    attacked: lirastore.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependency, match=r"lirastore\[report\]"):
        write_report(attacked.logits, tmp_path / "report.html")


def test_pyplot_and_its_state_stay_out(attacked: lirastore.Store, tmp_path: Path) -> None:
    program = f"""
import sys, lirastore
import lirastore.report
assert "matplotlib" not in sys.modules
lirastore.open({str(attacked.path)!r}).report({str(tmp_path / "r.html")!r})
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=120)

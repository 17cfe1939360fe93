"""The whole page: self-contained, escaped, honest about what is missing; nothing in the store is touched."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from report_stores import EXAMPLES, MODELS, commit, make_store

import lirastore
from lirastore import catalog, results
from lirastore.errors import InputError, MissingDependency, ResultError
from lirastore.report import bounds, gather, lookup, numbers, write_report
from lirastore.report.content import Bound
from lirastore.report.formats import percent

VOID = {"meta", "img", "br", "hr", "input", "wbr"}


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
        self.inline: dict[str, list[str]] = {"style": [], "script": []}
        self.policy = ""
        self.styled: list[str] = []
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
        self.styled += [value or "" for name, value in attrs if name == "style" or name.startswith("on")]
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values.get("content") or ""
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
        if self._open and self._open[-1] in self.inline:
            self.inline[self._open[-1]].append(data)
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    @property
    def data(self) -> Any:
        """What the page's script works with."""
        return json.loads(next(text for text in self.inline["script"] if text.startswith("{")))


def report(store: lirastore.Store, tmp_path: Path) -> Page:
    return Page(store.report(tmp_path / "report.html"))


@pytest.fixture(scope="module")
def page(attacked: lirastore.Store, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return report(attacked, tmp_path_factory.mktemp("page"))


# --- self-contained -----------------------------------------------------------------------------


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    without_data = re.sub("[A-Za-z0-9+/=]{60,}", "", page.source).replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]|@import|url\(|\bimport\b|fetch\(|eval\(|innerHTML", without_data)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & page.tags


def test_nothing_but_the_pages_own_style_and_scripts_may_run(page: Page) -> None:
    policy = dict(part.split(" ", 1) for part in page.policy.split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data:"
    assert "unsafe" not in page.policy
    for kind, allowed in (("style", policy["style-src"]), ("script", policy["script-src"])):
        texts = [text for text in page.inline[kind] if not text.startswith("{")]
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert allowed.split() == [f"'sha256-{value}'" for value in hashes]
    assert not page.styled  # which such a policy would forbid


def test_ids_are_unique_and_references_resolve(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    sections = {"roc", "paper", "power", "metrics", "classes", "exposed", "lookup", "outputs", "record"}
    assert sections <= set(page.ids)


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
    metrics = page.source[page.source.index('id="metrics"') : page.source.index('id="classes"')]
    assert metrics.count("<small>no interval</small>") == 2 * 3
    (rates,) = attacked.sql(
        "select tpr_at_0_1pct, tpr_at_0_01pct from metrics where attack = 'lira_online'"
    ).fetchall()
    for rate in rates:
        assert f">{percent(rate)}<small>no interval</small></td>" in metrics
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
        numbers.sort_once(connection)
        assert answers(connection) == before
        connection.execute("create or replace macro _points(source) as table select error('sorted again')")
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
    assert "loss: stale, computed from 6 models" in text
    assert f"7 committed of {MODELS} planned" in text


# --- tables -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full(varied: lirastore.Store, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return report(varied, tmp_path_factory.mktemp("full"))


def test_published_values_stand_beside_measured_ones(varied: lirastore.Store, full: Page) -> None:
    assert varied.sql("select distinct data_set from paper_table where data_set is not null").fetchall() == [
        ("cifar10",)
    ]
    paper = full.source[full.source.index('id="paper"') : full.source.index('id="ablation"')]
    assert "Published, CIFAR-10" in paper
    lira = next(row for row in paper.split("<tr>") if "<b>LiRA</b>" in row)
    (measured,) = varied.sql("select balanced_accuracy from metrics where attack = 'lira_online'").fetchall()
    for text in ("8.4%", "2.2%", "63.8%", percent(measured[0])):
        assert f">{text}" in lira
    assert "Not run here: Shokri et al." in full.text


def test_the_ablation_says_what_each_step_adds(full: Page) -> None:
    ablation = full.source[full.source.index('id="ablation"') : full.source.index('id="power"')]
    steps = re.findall(r"<b>(LOSS|\+ [^<]*)</b>", ablation)
    assert steps[:3] == ["LOSS", "+ logit scaling", "+ multiple queries"]
    assert len(steps) == 13
    assert ablation.count("not run") == 3


def test_presets_are_named_in_every_table_of_attacks(full: Page) -> None:
    attack_rows = re.findall(r"<tr[^>]*><th[^>]*>(?:(?!</tr>).)*?</th>", full.source)
    named = [row for row in attack_rows if re.search(r"<b>(lira|loss|watson|ye|ablation)", row)]
    assert len(named) > 20
    assert all("paper" in row for row in named)


def test_power_is_drawn_per_attack_and_queries(full: Page) -> None:
    power = full.source[full.source.index('id="power"') : full.source.index('id="metrics"')]
    assert re.findall("<span>([^<]*)</span>", power) == [
        "1 query, 4 to 6 models, paper",
        "2 queries, 4 to 6 models, paper",
    ]
    assert power.count("<circle") == 4


def test_without_power_it_says_how_to_get_it(page: Page) -> None:
    assert "lirastore attack STORE lira_online --models 4,8,16,32,64" in page.text


def test_bounds_stand_with_what_they_need_and_refusals_with_their_reason(varied: lirastore.Store) -> None:
    found = gather.gather(varied.logits)
    given = [
        Bound("loss", "one_run", model, None, 40, 30, epsilon, delta, 0.95, "coins are fair", None)
        for model, epsilon, delta in ((None, 0.125, 0.0), (None, 0.0625, 1e-5), (3, 9.875, 0.0))
    ]
    refused = [
        Bound(row.attack, "one_run", None, None, None, None, None, None, 0.95, "coins are fair", "use `--x`")
        for row in found.attacks[:2]
    ]
    section = bounds.bounds(replace(found, bounds=(*given, *refused)))
    assert section is not None
    cells = re.findall(r">([^<]+)</td>", section)
    assert cells == ["0.12", "0.06", "40", "30", "–"]
    assert section.count("coins are fair") == 1
    assert f"{found.attacks[0].attack}, {found.attacks[1].attack}: use <code>--x</code>." in section
    assert "9.88" not in section
    assert bounds.bounds(replace(found, bounds=())) is None


def test_what_does_not_fit_is_left_out_and_named(
    varied: lirastore.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "PACKED", 1)
    monkeypatch.setattr(lookup, "PICTURED", 4000)
    page = report(varied, tmp_path)
    examples = page.data["examples"]
    assert [attack["name"] for attack in examples["attacks"]] == [page.data["roc"]["attacks"][0]["name"]]
    assert 0 < examples["sheet"]["count"] < EXAMPLES
    assert f"Pictures are of the {examples['sheet']['count']} most exposed" in page.text
    assert "Attacks that are left out here: " in page.text


def test_only_the_most_exposed_are_held_of_very_many(
    varied: lirastore.Store, full: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "LOOKED_UP", 30)
    page = report(varied, tmp_path)
    assert (page.data["examples"]["count"], page.data["examples"]["total"]) == (30, EXAMPLES)
    assert f"the 30 most exposed of {EXAMPLES} examples" in page.text
    assert "most exposed of" not in full.text


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


def test_a_store_without_labels_or_logits(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.lira", labels=np.full(EXAMPLES, -1), classes=None, preview=False)
    for model in range(MODELS):
        phi = np.random.default_rng(model).normal(size=(EXAMPLES, 2)).astype(np.float32)
        with store.writer(model=model) as writer:
            writer.write(scaled_logit=phi, examples=slice(0, EXAMPLES))
    store.attack("lira_online", progress=False)
    page = report(store, tmp_path)
    assert "classes" not in page.ids
    assert "without a label" in page.text


def test_results_may_outlive_the_models(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.lira")
    commit(store, range(MODELS))
    store.attack("loss", progress=False)
    store.discard(range(MODELS))
    assert "loss: stale, computed from 8 models" in report(store, tmp_path).text


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
    assert page.source.count("alert(1)") == page.source.count("alert(1)&lt;/script&gt;") > 0
    assert "x" not in page.addresses
    assert page.source.count("</script>") == 3


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


def test_without_matplotlib_figures_for_papers_are_refused_at_once(
    attacked: lirastore.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependency, match=r"lirastore\[report\]"):
        write_report(attacked.logits, tmp_path / "report.html", png=tmp_path / "roc.png")
    assert not list(tmp_path.iterdir())


def test_the_page_needs_no_other_package_and_pyplot_stays_out(
    attacked: lirastore.Store, tmp_path: Path
) -> None:
    program = f"""
import sys, lirastore
store = lirastore.open({str(attacked.path)!r})
store.report({str(tmp_path / "r.html")!r})
assert not {{"matplotlib", "PIL"}} & set(sys.modules)
store.report({str(tmp_path / "r.html")!r}, svg={str(tmp_path / "r.svg")!r})
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=120)

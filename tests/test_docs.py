"""docs/attacks.md and docs/sql.md say what the code says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lirastore import catalog
from lirastore.attacks import presets

DOCS = Path(__file__).parent.parent / "docs"
SCRIPT = DOCS / "make_attacks.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_attacks", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def headings(text: str) -> list[str]:
    return re.findall(r"^### `(.*)`$", text, re.MULTILINE)


def test_the_committed_pages_are_what_the_script_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, SCRIPT, tmp_path], check=True, timeout=120)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["attacks.md", "sql.md"]
    for name in written:
        committed, fresh = (DOCS / name).read_text(), (tmp_path / name).read_text()
        assert committed == fresh, f"docs/{name} is out of date: make docs"


def test_it_says_how_it_is_called() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "make_attacks.py FOLDER" in done.stderr


def test_every_attack_and_preset_has_one_entry(script: ModuleType) -> None:
    page = script.attacks_page()
    others = [name for name in presets.PRESETS if name != presets.DEFAULT]
    assert sorted(headings(page)) == sorted([*presets.attacks(presets.DEFAULT), *others])
    for name in others:
        entry = page.partition(f"### `{name}`\n")[2].partition("\n## ")[0].partition("\n### ")[0]
        assert all(f"`{attack}`" in entry for attack in presets.attacks(name)), name


def test_every_score_states_its_direction() -> None:
    for preset in presets.PRESETS:
        for attack in presets.attacks(preset).values():
            if attack.kind == "scores":
                assert re.search(r"igher\s+(always\s+)?means\s+member", attack.doc), (preset, attack.name)


def entry(page: str, name: str) -> str:
    return re.split(r"^#", page.partition(f"### `{name}`\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["loss", "merlin", "ye_population", "ablation_global_phi_all"], "Models: the target alone"),
        (["shokri", "morgan", "modified_entropy", "quantile"], "Models: the models of the other folds"),
        (["long"], "Models: the models of the other folds; 1 OUT besides the target"),
        (["lira_online"], "Models: 2 IN and 2 OUT besides the target"),
        (["influence"], "Models: all models"),
        (["memorization"], "Models: all models; 1 IN and 1 OUT"),
        (["merlin"], "Data: auxiliary array `merlin`, or queries named `noise(σ)#k`"),
        (
            ["morgan"],
            "Data: `scaled_logit` (stored, or of `logits`); auxiliary array `merlin`, or queries named "
            "`noise(σ)#k`",
        ),
    ],
)
def test_the_models_and_the_data_that_an_attack_needs(
    script: ModuleType, names: list[str], line: str
) -> None:
    page = script.attacks_page()
    for name in names:
        assert f"- {line}" in entry(page, name).splitlines(), name


def test_every_attack_states_which_models_it_reads(script: ModuleType) -> None:
    page = script.attacks_page()
    for name, attack in presets.attacks(presets.DEFAULT).items():
        (models,) = re.findall(r"^- Models: (.*)$", entry(page, name), re.MULTILINE)
        assert (models == "the target alone") is attack.separate, name


def test_every_view_and_macro_has_one_entry_with_all_its_columns(script: ModuleType) -> None:
    found = catalog.describe()
    assert sorted(headings(script.sql_page())) == sorted(each.signature for each in found)
    for each in found:
        _, columns = script.split_comment(each.comment)
        names = [name for line, _ in columns for name in line.split(", ")]
        assert names == [name for name, _ in each.columns], each.name


def test_every_link_of_the_pages_leads_to_a_heading(script: ModuleType) -> None:
    for page in script.pages().values():
        anchors = {script.link(title) for title in re.findall(r"^##+ (.*)$", page, re.MULTILINE)}
        links = re.findall(r"\[[^\]]*\]\(#[^)]*\)", page.replace("\n  ", " "))
        assert links
        assert set(links) <= anchors


def test_text_is_not_taken_for_markup(script: ModuleType) -> None:
    assert script.escape("a*b*c <i> μ_in Σ_{c} `x*_y` ‖_2 ~1") == r"a\*b\*c \<i> μ_in Σ\_{c} `x*_y` ‖\_2 \~1"
    lead = "word " * 22 + "words."
    assert script.wrap(f"{lead} + logit scaling") == f"{lead}\n\\+ logit scaling"
    for start in ("+ 1", "- 1", "# 1", "> 1", "12. x", "3) x"):
        assert re.match(r"\\[-+#>] |\d+\\[.)] ", script.wrap(start)), start
    assert script.table(("a", "b"), [("`x|y`", "z")]) == "| a | b |\n| --- | --- |\n| `x\\|y` | z |"


def test_paragraphs_and_lists_stay_apart(script: ModuleType) -> None:
    text = """First line
    goes on.

    * one
      and more;
    * two."""
    assert script.prose(text) == "First line goes on.\n\n- one and more;\n- two."


def test_lines_about_columns_are_told_from_prose(script: ModuleType) -> None:
    comment = "What it is.\n\nn: how many.\n\n  a, b  both\n        of them\n  c     one"
    assert script.split_comment(comment) == (
        "What it is.\n\nn: how many.\n",
        [("a, b", "both of them"), ("c", "one")],
    )

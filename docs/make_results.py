"""Writes down what a store of a pipeline measured: python docs/make_results.py STORE LOG FILE.md

STORE: a trained and attacked store (`lirastore train`, then `lirastore attack --all`); it is only read. LOG:
what `lirastore train` said on stderr. FILE.md: the table of the paper beside its published values, the
ablation, the models, and the end of the log.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import lirastore

PAPER = """
    select "row", attack, tpr_at_0_1pct, tpr_at_0_1pct_boot_lo, tpr_at_0_1pct_boot_hi,
           tpr_at_0_001pct, balanced_accuracy,
           published_tpr_at_0_1pct, published_tpr_at_0_001pct, published_balanced_accuracy
    from paper_table where preset = 'paper'
"""
AUC = "select attack, auc from metrics"
MODELS = """
    select count(*) as n, avg(examples_in) as examples_in, avg(train_accuracy) as train_accuracy,
           avg(test_accuracy) as test_accuracy, sum(seconds) as seconds,
           string_agg(distinct device, '; ') as device,
           string_agg(distinct metadata ->> '$.git_revision', '; ') as revision,
           string_agg(distinct metadata ->> '$.versions', '; ') as versions,
           (select parameters ->> '$.equal_counts' from attacks where attack = 'lira_online') as equal_counts
    from models
"""
ABLATION = """
    select chain, adds, attack, tpr_at_0_1pct, tpr_at_0_1pct_boot_lo, tpr_at_0_1pct_boot_hi,
           published_tpr_at_0_1pct
    from ablation_table
"""


def main(path: Path, log: Path, output: Path) -> None:
    """Writes `output`."""
    store = lirastore.open(path)
    parts = [
        f"# {store.info.name}",
        _facts(store),
        "## The paper's table",
        "TPR with 95% bootstrap intervals over examples; in brackets what the paper published (256 models).",
        _paper(store),
        "## The paper's ablation, TPR at 0.1% FPR",
        _ablation(store),
        "## The end of the training log",
        "\n".join(f"    {line}" for line in log.read_text(encoding="utf-8").splitlines()[-2:]),
    ]
    output.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _facts(store: lirastore.Store) -> str:
    (found,) = store.sql(MODELS).df().to_dict("records")
    training = store.info.training or {}
    versions = re.sub(r'[{}"]', "", found["versions"]).replace(":", " ").replace(",", ", ")
    settings = ", ".join(f"{name} {value}" for name, value in training["settings"].items())
    accuracy = f"mean training accuracy {found['train_accuracy']:.1%}, test {found['test_accuracy']:.1%}"
    return "\n".join(
        [
            f"* n = {found['n']} models × {store.info.examples:,} examples (each in half of the models) × "
            f"{len(store.info.augmentations)} queries; seed {store.info.design['seed']}",
            f"* pipeline `{training['pipeline']}`, recipe `{training['recipe']}`: {settings}",
            f"* {accuracy}; {found['seconds']:,.0f} s of training and inference, all models together",
            "* attacks with equal counts of IN and OUT models: "
            + ("yes (`--equal-counts`)" if found["equal_counts"] == "true" else "no"),
            f"* {found['device']}; {versions}; revision {found['revision']}",
        ]
    )


def _paper(store: lirastore.Store) -> str:
    auc = dict(store.sql(AUC).fetchall())
    rows = [
        [
            row["row"],
            f"`{row['attack']}`",
            _at_0_1pct(row),
            f"{_rate(row['tpr_at_0_001pct'], 3)}{_published(row['published_tpr_at_0_001pct'], 2)}",
            f"{_rate(row['balanced_accuracy'], 1)}{_published(row['published_balanced_accuracy'], 1)}",
            f"{auc[row['attack']]:.3f}",
        ]
        for row in store.sql(PAPER).df().to_dict("records")
    ]
    head = ["row", "attack", "TPR at 0.1% FPR", "TPR at 0.001% FPR", "balanced accuracy", "AUC"]
    return _table(head, rows)


def _ablation(store: lirastore.Store) -> str:
    rows = [
        [row["chain"], row["adds"], f"`{row['attack']}`", _at_0_1pct(row)]
        for row in store.sql(ABLATION).df().to_dict("records")
    ]
    return _table(["chain", "adds", "attack", "TPR at 0.1% FPR"], rows)


def _at_0_1pct(row: dict[str, Any]) -> str:
    rates = [_rate(row[f"tpr_at_0_1pct{end}"]) for end in ("", "_boot_lo", "_boot_hi")]
    return "{} [{}, {}]".format(*rates) + _published(row["published_tpr_at_0_1pct"], 2)


def _rate(value: float, digits: int = 2) -> str:
    return "–" if value != value else f"{value:.{digits}%}"


def _published(value: float, digits: int) -> str:
    return "" if value != value else f" ({_rate(value, digits)})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))

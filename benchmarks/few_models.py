"""How well does LiRA do with few shadow models, by the kind of variance?

    python benchmarks/few_models.py                      digits, 96 models, K = 4, 8, 16, 32, 64
    python benchmarks/few_models.py --store STORE.lira   a store that exists already
    python benchmarks/few_models.py --models 12 --shadows 4 8

Trains its own models on scikit-learn's digits, as `lirastore demo` does (half a minute; takes the extra
lirastore[demo]), every one of which is then a target beside K others, K/2 of them IN and K/2 OUT for every
example: equal counts. `lirastore attack --models K` does that, and the view `power` has the rates:

    example   a variance per example
    global    one variance, pooled over all examples
    shrunk    per example, drawn towards the typical one

Prints a table, and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import lirastore
from lirastore.pipelines import digits

VARIANCES = {"example": "", "global": "_fixed", "shrunk": "_shrunk"}
SIDES = ("lira_online", "lira_offline")
RATES = ("auc", "tpr_at_1pct", "tpr_at_0_1pct", "tpr_at_0_1pct_boot_lo", "tpr_at_0_1pct_boot_hi")


def measured(store: lirastore.Store, shadows: list[int]) -> list[dict[str, Any]]:
    """A row per attack, variance and K."""
    names = {f"{side}{suffix}": (side, kind) for side in SIDES for kind, suffix in VARIANCES.items()}
    store.attack(*names, models=shadows, queries=["all"], progress=False)
    asked = ", ".join(map(str, shadows))
    chosen = f"preset = 'paper' and models in ({asked}) and queries = (select max(queries) from power)"
    found = store.sql(
        f"select attack, models, {', '.join(RATES)} from power where {chosen} order by attack, models"
    ).fetchall()
    return [
        dict(zip(("attack", "variance", "models", *RATES), (*names[name], *rest), strict=True))
        for name, *rest in found
        if name in names
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for people: one line per K, three columns per variance."""
    lines = []
    for side in SIDES:
        lines.append(f"{side:12}" + "".join(f"{kind:^36}" for kind in VARIANCES))
        lines.append(
            f"{'models':>12}" + "".join(f"{'AUC':>9}{'1% FPR':>9}{'0.1% FPR':>18}" for _ in VARIANCES)
        )
        for models in sorted({row["models"] for row in rows}):
            cells = [_cells(_row(rows, side, kind, models)) for kind in VARIANCES]
            lines.append(f"{models:12}" + "".join(cells))
        lines.append("")
    return "\n".join(lines)


def _row(rows: list[dict[str, Any]], side: str, kind: str, models: int) -> dict[str, Any]:
    (row,) = (row for row in rows if (row["attack"], row["variance"], row["models"]) == (side, kind, models))
    return row


def _cells(row: dict[str, Any]) -> str:
    low, high = row["tpr_at_0_1pct_boot_lo"], row["tpr_at_0_1pct_boot_hi"]
    interval = "" if low is None else f" ({100 * low:.1f}–{100 * high:.1f})"
    tail = f"{100 * row['tpr_at_0_1pct']:.2f}{interval}"
    return f"{row['auc']:9.4f}{100 * row['tpr_at_1pct']:9.2f}{tail:>18}"


def trained(folder: Path, args: argparse.Namespace) -> lirastore.Store:
    """The digits of the demo, with as many models as asked for."""
    store = digits.prepare(
        folder / "digits.lira", models=args.models, label_noise=args.label_noise, seed=args.seed
    )
    digits.train(store)
    return store


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", type=Path, help="instead of training models")
    parser.add_argument("--models", type=int, default=96, help="to train (default: 96)")
    parser.add_argument("--shadows", type=int, nargs="+", default=[4, 8, 16, 32, 64], metavar="K")
    parser.add_argument("--label-noise", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where the JSON goes (default: after the table)")
    return parser.parse_args()


def main() -> None:
    args = parse()
    with tempfile.TemporaryDirectory(prefix="few-models-") as folder:
        store = lirastore.open(args.store) if args.store else trained(Path(folder), args)
        models, examples = len(store.logits.committed()), store.info.examples
        rows = measured(store, args.shadows)
    sys.stdout.write(f"{models} models × {examples} examples; TPR in %, with its bootstrap interval\n\n")
    sys.stdout.write(table(rows))
    text = json.dumps({"store": {"models": models, "examples": examples}, "rows": rows}, indent=1)
    if args.json:
        args.json.write_text(text + "\n")
    else:
        sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()

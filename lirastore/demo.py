"""The whole way on real handwritten digits: train, stream, attack, query, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lirastore import catalog, diagnostics

if TYPE_CHECKING:
    from lirastore.pipelines import digits

# Whose rates are printed for clean and for wrong labels apart.
GROUPED = ("loss", "lira_offline", "lira_online", "lira_online_shrunk")
# Which attacks are asked how they would do with fewer shadow models, where there are enough to ask.
FEW = ("lira_online", "lira_online_shrunk")
FEW_MODELS = (4, 8, 16, 32)

TABLE = """
    select "row",
           attack,
           printf('%.1f%%', 100 * balanced_accuracy) as "balanced accuracy",
           printf('%.2f%%', 100 * tpr_at_0_1pct) as "TPR at 0.1% FPR",
           printf('%.2f to %.2f%%', 100 * tpr_at_0_1pct_boot_lo, 100 * tpr_at_0_1pct_boot_hi)
               as "95% interval"
    from paper_table where preset is not null
"""


def run(directory: Path, *, models: int = 64, label_noise: float = 0.1, seed: int = 0) -> None:
    """Makes `directory`/digits.lira and `directory`/report.html; prints the paper's table on stdout.

    What is there already is kept: committed models are not trained again, attacks that are up to date not
    computed again. Raises MissingDependency without torch or scikit-learn, InputError when the
    store there holds another experiment.
    """
    from lirastore.pipelines import digits

    started = time.monotonic()
    store = digits.prepare(directory / "digits.lira", models=models, label_noise=label_noise, seed=seed)
    wrong = digits.randomised(store).mean()
    diagnostics.say(
        f"{store.info.examples} digits, {wrong:.1%} of them with a wrong label, drawn at random; "
        f"{models} shadow models"
    )
    digits.train(store)
    able, refused = store.attacks()
    for name, why in refused.items():
        diagnostics.say(f"skipped {name}: {why}")
    store.attack(*able)
    few = [count for count in FEW_MODELS if 2 * count <= models]
    if few:
        store.attack(*FEW, models=few)
    catalog.write(store.sql(TABLE), form="table", output=None)
    click.echo()
    _print_groups([row for row in digits.summary(store) if row.attack in GROUPED])
    report = store.report(directory / "report.html")
    diagnostics.say(f"done in {time.monotonic() - started:.0f} s; next:")
    diagnostics.say(f"  open {report}")
    diagnostics.say(f"  lirastore query {store.path} \"from most_exposed('lira_online', 10)\"")


def _print_groups(groups: Sequence[digits.GroupRates]) -> None:
    """The TPRs of clean and of randomised labels apart: wrong labels can only be remembered."""
    click.echo(
        "TPR among members by kind of label (one threshold for both, that of the FPR over all examples):"
    )
    click.echo(f"{'attack':<20}{'labels':<12}{'members':>9}{'at 1% FPR':>12}{'at 0.1% FPR':>14}")
    for row in groups:
        rates = f"{row.tpr_at_1pct:>11.2%} {row.tpr_at_0_1pct:>13.2%}"
        click.echo(f"{row.attack:<20}{row.labels:<12}{row.members:>9} {rates}")

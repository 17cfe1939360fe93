"""The command line: each command parses, makes one library call, and prints.

stdout is data, stderr everything else; exit codes are in `diagnostics`. Heavy packages are imported by
the commands that use them, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from lirastore import __version__, diagnostics
from lirastore.errors import name_some
from lirastore.parameters import BYTES, HOURS, MODELS, NAMES, PRESETS, QUERIES, SETTING, SHADOWS, SHARD
from lirastore.selection import Selection

if TYPE_CHECKING:
    from lirastore.experiment import Store

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)

store_argument = click.argument("path", metavar="STORE", type=PATH)
memory_option = click.option(
    "--memory", type=BYTES, help="Memory budget, e.g. 2GiB. [default: a quarter of the machine's]"
)
threads_option = click.option("--threads", type=click.IntRange(min=1), help="[default: one per core]")
quiet_option = click.option("--quiet", is_flag=True, help="No progress on stderr.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, package_name="lirastore")
def cli() -> None:
    """Membership-inference experiments, stored once and attacked for ever.

    A first look, on real handwritten digits:  lirastore demo

    \b
    Your own:
      lirastore train STORE --pipeline cifar   or stream logits from your own training loop (see the README)
      lirastore ingest STORE LOGDIR            or import what another tool left behind
      lirastore attack STORE lira_online       every model as target, leave-one-out
      lirastore query  STORE metrics           SQL over scores, metrics and ROCs
      lirastore report STORE -o report.html

    Answers go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed (the message says why
    and what to do), 2 the command was not understood, 130 interrupted, 143 terminated.
    """


def main() -> NoReturn:
    """The `lirastore` program."""
    diagnostics.run(cli)


def _open(path: Path) -> Store:
    from lirastore.experiment import open

    return open(path)


@cli.command()
@store_argument
@click.option(
    "--models", type=click.IntRange(min=2), required=True, help="How many shadow models are planned."
)
@click.option("--labels", type=FILE, required=True, help="A .npy file, (E,) integers.")
@click.option("--classes", type=click.IntRange(min=2), required=True)
@click.option(
    "--augmentations", type=NAMES, required=True, help="How many queries per example, or names: identity,flip"
)
@click.option(
    "--design",
    type=click.Choice(["balanced", "bernoulli", "carlini"]),
    default="balanced",
    show_default=True,
    help="How each model's training set is drawn.",
)
@click.option(
    "--keep-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option("--name", default="", help="What the data set is called in reports.")
@click.option(
    "--preview", type=FILE, help="A .npy file, (E, height, width, channel) uint8: pictures for reports."
)
def init(path: Path, labels: Path, preview: Path | None, **plan: Any) -> None:
    """Plan a store: shapes, and which examples each model is to train on."""
    from lirastore.experiment import create
    from lirastore.importers.npyfile import open_npy

    label = open_npy(labels).load()
    with nullcontext() if preview is None else open_npy(preview).slices() as pictures:
        store = create(path, labels=label, preview=pictures, **plan)
    click.echo(store.path)


@cli.command()
@store_argument
@click.option(
    "--pipeline",
    metavar="NAME",
    help="cifar, digits, wikitext, or the path of a file of your own. [default: the one that made STORE]",
)
@click.option("--recipe", help="How models are trained: paper, fast or cpu (cifar), paper or cpu (wikitext).")
@click.option("--plan", type=click.IntRange(min=2), help="How many models. [default: the recipe's]")
@click.option("--seed", type=click.IntRange(min=0), help="[default: 0]")
@click.option("--dataset", type=click.Choice(["CIFAR-10", "CIFAR-100"]), help="[default: CIFAR-10]")
@click.option(
    "--queries", type=click.IntRange(min=1), help="1, 2, 18 or 162 (cifar). [default: the recipe's]"
)
@click.option("--tokens", is_flag=True, default=None, help="Store every token's probability, too (wikitext).")
@click.option(
    "--set", "changes", type=SETTING, multiple=True, help="Another value in the recipe: --set epochs=5"
)
@click.option("--data", type=PATH, help="The directory of the data set's files. [default: data]")
@click.option("--download", is_flag=True, default=None, help="Fetch what --data lacks (cifar).")
@click.option(
    "--unchecked",
    is_flag=True,
    default=None,
    help="Take files whose checksums are not the official ones (cifar). They are unpickled: trust them.",
)
@click.option("--models", type=MODELS, help="Train only these: 0:64, or 3,17,40:48. [default: all]")
@click.option("--shard", type=SHARD, help="Train every nth of them only. [default: torchrun's rank, or all]")
@click.option("--device", help="cpu, cuda, cuda:1. [default: a GPU if there is one]")
@click.option("--together", type=click.IntRange(min=1), help="How many models at a time. [default: 1]")
@quiet_option
def train(
    path: Path,
    pipeline: str | None,
    changes: tuple[tuple[str, Any], ...],
    quiet: bool,
    **given: Any,
) -> None:
    """Train shadow models and stream their logits into STORE.

    \b
    lirastore train c10.lira --pipeline cifar --recipe fast --data DIR      makes STORE, trains its 64 models
    lirastore train c10.lira --data DIR                                     goes on where that was stopped
    lirastore train c10.lira --data DIR --shard 3/8                         the fourth of eight such jobs

    STORE is made if absent; its recipe is part of it. Models that are committed are skipped, each is
    committed as soon as it is trained, and a job may be ended at any time.
    """
    from lirastore import training

    def options(*names: str) -> dict[str, Any]:
        return {name: given[name] for name in names if given[name] is not None}

    planned = {**dict(changes), **options("recipe", "seed", "dataset", "queries", "tokens")}
    trained = training.train(
        path,
        pipeline,
        planned=planned | ({} if given["plan"] is None else {"models": given["plan"]}),
        files=options("data", "download", "unchecked"),
        running={**options("models", "shard", "device", "together"), "progress": not quiet},
    )
    if not trained:
        diagnostics.say("nothing was left to train")
    click.echo(path)


@cli.command()
@store_argument
@click.argument("source", type=PATH)
@click.option("--format", default="auto", show_default=True, help="auto, or one of the names below.")
@click.option(
    "--epoch",
    type=click.IntRange(min=0),
    help="Which saved epoch (carlini). [default: the latest, the same of all]",
)
@click.option(
    "--labels",
    type=FILE,
    help="A .npy file, (E,) integers (lira-pytorch, lira-analysis, leakpro, privacy-meter).",
)
@click.option(
    "--membership", type=FILE, help="A .npy file, (M, E) bool, or JSON: who was trained on what (leakpro)."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    help="Of the stored logits. [default: float16 if the source's are, else float32]",
)
@click.option(
    "--name",
    help="The data set, which published values go by, such as CIFAR-10. [default: what SOURCE and the "
    "directories above it are called]",
)
@click.option(
    "--allow-missing", is_flag=True, help="Leave models that SOURCE lacks uncommitted instead of refusing."
)
@quiet_option
def ingest(path: Path, source: Path, quiet: bool, **options: Any) -> None:
    """Import somebody else's outputs from SOURCE into STORE.

    \b
    carlini           a log directory of tensorflow/privacy research/mi_lira_2021
    lira-pytorch      a --savedir of orientino/lira-pytorch, and --labels
    lira-analysis     an experiment of najeebjebreel/lira_analysis, and --labels
    misleading-evals  an experiment of ethz-spylab/misleading-privacy-evals (needs torch)
    privacy-meter     a log_dir of privacytrustlab/ml_privacy_meter 2
    leakpro           an output_dir of aidotse/LeakPro, --membership and --labels
    npz               one .npz, or a directory of model-*.npz: logits, membership, label

    STORE is made if absent. Everything's structure is checked before the first write; an interrupted
    import carries on where it stopped. Models that are in STORE already are compared with SOURCE by samples
    of their values.
    """
    from lirastore import importers

    diagnostics.say(str(importers.ingest(source, path, progress=not quiet, **options)))
    click.echo(path)


@cli.command()
@store_argument
@click.argument("names", metavar="[NAME | FILE.py:FUNCTION]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every named attack that the store has the data for.")
@click.option(
    "--signal", help="A new variant: scaled_logit, loss, hinge, confidence, … (with --test and --name)"
)
@click.option("--test", help="global, out-mean, in-out-mean, out-rank, gaussian-out or gaussian-in-out")
@click.option(
    "--queries", type=QUERIES, help="first or all; with --models a list, such as 1,2,all. [default: all]"
)
@click.option("--variance", type=click.Choice(["example", "global", "shrunk"]), help="[default: example]")
@click.option("--centre", type=click.Choice(["mean", "median"]), help="[default: mean]")
@click.option("--name", help="What a new variant, or the one attack given, is to be called.")
@click.option(
    "--models",
    type=SHADOWS,
    help="With so many shadow models only, half of them IN: 4,8,16. Results go to the view `power`.",
)
@click.option(
    "--preset",
    type=click.Choice(PRESETS),
    default="paper",
    show_default=True,
    help="Whose numerics.",
)
@click.option("--equal-counts", is_flag=True, help="As many IN as OUT shadow models for every example.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the choices made by --equal-counts and --models, and of folds.",
)
@click.option("--skip-unattackable", is_flag=True, help="Leave out examples with too few IN or OUT models.")
@click.option(
    "--no-bootstrap", "bootstrap", flag_value=False, default=True, help="Leave out intervals and bounds on ε."
)
@click.option(
    "--force", is_flag=True, help="Compute again even if up to date. Functions of files always are."
)
@memory_option
@threads_option
@quiet_option
def attack(path: Path, names: tuple[str, ...], everything: bool, quiet: bool, **given: Any) -> None:
    """Score every committed model as target, leave-one-out.

    Higher scores always mean member. With several attacks the data is read once. Results are then in the
    views: lirastore query STORE metrics
    """
    store, selection = _open(path), Selection.of(names, everything, given)
    options = {**selection.limits, **selection.options}
    attacks = selection.attacks(store)
    warned: dict[str, list[str]] = {}
    for done in store.attack(*attacks, progress=not quiet, **options):
        click.echo(f"{done.attack}\t{done.run}")
        for warning in done.warnings:
            warned.setdefault(warning, []).append(done.attack)
    for warning, which in warned.items():
        diagnostics.warn(f"{name_some(which)}: {warning}")


@cli.command()
@store_argument
@click.argument("sql", metavar="[NAME | SQL]", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    help="[default: by the extension of -o, else table]",
)
@click.option("-o", "--output", type=FILE, help="Write to a file instead of stdout.")
@memory_option
@threads_option
def query(path: Path, sql: str | None, form: str | None, output: Path | None, **limits: Any) -> None:
    """Answer one read-only SQL statement; without any, list what there is to ask.

    \b
    lirastore query STORE metrics
    lirastore query STORE "from tpr_at_fpr(0.001)"
    lirastore query STORE "from most_exposed('lira_online', 20)"
    lirastore query STORE "select * from scores where example = 17" --format csv
    """
    from lirastore import catalog

    store = _open(path)
    if sql is None:
        if output is not None or form is not None:
            raise click.UsageError("-o and --format need a NAME or SQL")
        catalog.write_listing(sys.stdout)
        return
    with store.sql(sql, **limits) as answer:
        catalog.write(answer, form=form, output=output)
    for warning in answer.warnings:
        diagnostics.warn(warning)


@cli.command()
@store_argument
@click.option("-o", "--output", type=FILE, required=True, help="The HTML file.")
@click.option("--png", type=FILE, help="Also the ROC alone, 300 dpi.")
@click.option("--svg", type=FILE, help="Also the ROC alone, as vectors.")
@memory_option
@threads_option
def report(path: Path, output: Path, **options: Any) -> None:
    """Write one self-contained HTML file: ROC, metrics, most exposed examples."""
    click.echo(_open(path).report(output, **options))


@cli.command()
@store_argument
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(path: Path, as_json: bool) -> None:
    """What is committed, pending and stale. Writes nothing."""
    found = _open(path).status()
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    click.echo(f"models     {found.committed} of {found.models} committed")
    if found.pending:
        click.echo(f"pending    {name_some(found.pending)}")
    if found.stale_attempts:
        click.echo(
            f"attempts   {found.stale_attempts} stale (lirastore gc removes those silent for 24 hours)"
        )
    for ran in found.attacks:
        stale = "   stale: models came or went since" if ran.stale else ""
        click.echo(f"attack     {ran.name} ({ran.models} models){stale}")


@cli.command()
@store_argument
@quiet_option
def verify(path: Path, quiet: bool) -> None:
    """Check every digest; exit 1 naming each damaged model."""
    report = _open(path).verify(progress=not quiet)
    for line in report.lines():
        click.echo(line)
    if not report.ok:
        raise click.exceptions.Exit(diagnostics.FAILED)


@cli.command()
@store_argument
@click.option(
    "--older-than",
    type=HOURS,
    default="24h",
    show_default=True,
    help="How long an attempt or an old run must have been silent: 90m, 24h, 7d; a run ten minutes at least.",
)
def gc(path: Path, older_than: Any) -> None:
    """Remove stale attempts, trash, and runs that no attack points at."""
    for line in _open(path).gc(older_than=older_than).lines():
        click.echo(line)


@cli.command()
@store_argument
@click.option("--models", type=MODELS, required=True, help="Ids and ranges: 3,17,40:48")
def discard(path: Path, models: list[int]) -> None:
    """Withdraw bad models; they can be trained again."""
    _open(path).discard(models)
    click.echo(f"discarded {len(models)}")


@cli.command()
@store_argument
@click.argument("file", metavar="FILE.npz", type=FILE)
def export(path: Path, file: Path) -> None:
    """Write the committed models as FILE.npz, which must not exist: the form that `ingest` reads."""
    click.echo(_open(path).export(file))


@cli.command()
@click.argument("directory", metavar="[DIR]", type=PATH, default=Path("demo"))
@click.option("--models", type=click.IntRange(min=4), default=64, show_default=True)
@click.option(
    "--label-noise",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Share of the labels made random before training.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def demo(directory: Path, **options: Any) -> None:
    """The whole way on real handwritten digits, in about a minute.

    Trains shadow models on scikit-learn's 1,797 digits, 10% of them with labels made random, streams their
    logits into DIR/digits.lira, attacks them, prints the metrics and writes DIR/report.html.
    """
    from lirastore.demo import run

    run(directory, **options)

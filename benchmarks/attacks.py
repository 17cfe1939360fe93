"""How long does each attack take over an experiment that is stored already, and how much memory?

    python benchmarks/attacks.py                         64 models × 50,000 examples × 2 queries × 10 classes
    python benchmarks/attacks.py --attack rmia quantile  these alone
    python benchmarks/attacks.py --all                   everything in one run, alone
    python benchmarks/attacks.py --models 8 --examples 500 --population 50 --repeats 1

Makes its own experiment, Merlin's aggregate included, through the public writer. Rows:

    <attack>          each attack that the store has the data for, by itself
    --all             all of them in one run, as `lirastore attack STORE --all` shares passes over the data
    rmia, population  rmia over a second store, which holds a population

Each row is a fresh process. It runs once, and its peak memory so far (VmHWM) stands beside what the plan
projected; then it runs `--repeats` times: the seconds are the median of those, with a warm page cache,
process start and imports left out, and so is the evaluation that follows an attack. Prints a table, writes
JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import (
    fresh_process,
    machine,
    make_store,
    options,
    parser,
    publish,
    seconds,
    shape,
    shape_line,
    work_folder,
)

import lirastore
from lirastore import attacks, engine
from lirastore.memory import human, peak_rss

ALL = "--all"
WITH_POPULATION = "rmia"


@dataclass(frozen=True)
class Row:
    """A line of the table: what is run on which store."""

    name: str
    store: Path
    attacks: tuple[str, ...]


# --- what is run ---------------------------------------------------------------------------------


def rows(folder: Path, args: argparse.Namespace, able: list[str]) -> Iterator[Row]:
    """The rows that were asked for, everything by default; makes each store when it is needed."""
    store = folder / "store.lira"
    chosen = args.attack if args.attack or args.all else able
    yield from (Row(name, store, (name,)) for name in chosen)
    if args.all or not args.attack:
        yield Row(ALL, store, tuple(able))
    if WITH_POPULATION in chosen and args.population:
        second = make_store(folder / "population.lira", args, population=args.population)
        yield Row(f"{WITH_POPULATION}, population", second.path, (WITH_POPULATION,))


def measure(row: Row, args: argparse.Namespace) -> dict[str, Any]:
    """The row, and what its process found."""
    found = fresh_process(__file__, args, row.store, *row.attacks)
    print(line(row.name, found), flush=True)
    return {"row": row.name, "attacks": row.attacks, **found}


def child(path: str, names: list[str], args: argparse.Namespace) -> None:
    """What that process does."""
    store = lirastore.open(path)
    chosen = [attacks.named(name) for name in names]
    plan = engine.plan(store.logits, chosen, options(args))
    first = seconds(lambda: engine.run(store.logits, chosen, options(args)))
    peak = peak_rss()
    warm = [seconds(lambda: engine.run(store.logits, chosen, options(args))) for _ in range(args.repeats)]
    found = {
        "median": statistics.median(warm),
        "seconds": warm,
        "first": first,
        "peak": peak,
        "projected": plan.projected,
        "passes": len(plan.passes),
        "threads": plan.threads,
        "bytes_to_read": plan.bytes_to_read,
        "scratch": plan.scratch,
    }
    print(json.dumps(found))


# --- the report ----------------------------------------------------------------------------------


def benchmark(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Everything, as a JSON document; prints each row when it is known."""
    able, skipped = make_store(folder / "store.lira", args, merlin=True).attacks()
    report = {"shape": shape(args), "population": args.population, "skipped": skipped}
    print(f"{shape_line(report)}\n\n{HEADER}")
    return {
        **report,
        "rows": [measure(row, args) for row in rows(folder, args, able)],
        "machine": machine(args),
    }


HEADER = f"{'attack':28} {'seconds':>9} {'passes':>7} {'peak memory':>12} {'projected':>12}"


def line(name: str, found: dict[str, Any]) -> str:
    """A row for people."""
    return (
        f"{name:28} {found['median']:9.3f} {found['passes']:7} "
        f"{human(found['peak']):>12} {human(found['projected']):>12}"
    )


def footer(report: dict[str, Any]) -> str:
    """What is below the rows: which attacks the store has no data for."""
    return "\n".join(["", *(f"not run: {name}: {why}" for name, why in report["skipped"].items())])


def main() -> None:
    command = parser(__doc__, repeats=3)
    command.add_argument(
        "--attack", nargs="+", metavar="NAME", default=[], help="rows (default: every attack)"
    )
    command.add_argument("--all", action="store_true", help="the row of all attacks in one run")
    command.add_argument("--population", type=int, default=10_000, help="points; 0: without (default: 10000)")
    command.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = command.parse_args()
    if args.child:
        child(args.child[0], args.child[1:], args)
        return
    for name in args.attack:
        attacks.named(name)  # an error now, not after the data has been made
    with work_folder(args) as folder:
        report = benchmark(folder, args)
    publish(report, footer(report), args)


if __name__ == "__main__":
    main()

"""What the benchmarks share: an experiment that is made up, fresh processes, what the numbers depend on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import lirastore
from lirastore import engine
from lirastore.kernels import scaled_logit

SIZES = ("models", "examples", "queries", "classes")
BATCH = 4096
NOISE_QUERIES = 100  # of which the made-up Merlin values are a share


# --- the experiment ------------------------------------------------------------------------------


def make_store(
    path: Path,
    args: argparse.Namespace,
    *,
    merlin: bool = False,
    population: int | None = None,
    seen: Callable[[int, np.ndarray], None] = lambda model, logits: None,
) -> lirastore.Store:
    """A store of `args.models` × … , in which members are a little surer than the others.

    merlin: it holds the share of noise queries with a larger loss. population: and φ of so many points that
    no model was trained on. seen: is given each model's logits.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, args.classes, args.examples)
    store = lirastore.create(
        path,
        labels=labels,
        classes=args.classes,
        models=args.models,
        augmentations=args.queries,
        seed=0,
        signals=[("merlin", ("model", "example"))] if merlin else [],
        population=population,
    )
    member, hardness = store.membership, rng.normal(4, 2, args.examples).astype(np.float32)
    for model in range(args.models):
        rng = np.random.default_rng([1, model])
        logits = model_logits(rng, labels, hardness + member[model], args.queries, args.classes)
        seen(model, logits)
        with store.writer(model) as writer:
            for start in range(0, args.examples, BATCH):
                rows = slice(start, min(start + BATCH, args.examples))
                shares = {"merlin": merlin_shares(rng, member[model, rows])} if merlin else {}
                writer.write(logits[rows], examples=rows, **shares)
            if population is not None:
                writer.write_population(population_phi(rng, population, args.classes))
    return store


def model_logits(
    rng: np.random.Generator, labels: np.ndarray, margin: np.ndarray, queries: int, classes: int
) -> np.ndarray:
    """(E, A, C) float32: noise, and `margin` (E,) on the label's logit."""
    logits = rng.standard_normal((len(labels), queries, classes), dtype=np.float32)
    logits[np.arange(len(labels)), :, labels] += margin[:, None]
    return logits


def merlin_shares(rng: np.random.Generator, member: np.ndarray) -> np.ndarray:
    """(e,) float32 in [0, 1]: of members' noise queries a few more have a larger loss."""
    return (rng.binomial(NOISE_QUERIES, 0.5 + 0.05 * member) / NOISE_QUERIES).astype(np.float32)


def population_phi(rng: np.random.Generator, points: int, classes: int) -> np.ndarray:
    """(Z,) float32: as hard as the examples, to every model the same points, and members of none."""
    fixed = np.random.default_rng(2)
    labels, hardness = fixed.integers(0, classes, points), fixed.normal(4, 2, points).astype(np.float32)
    return scaled_logit(model_logits(rng, labels, hardness, 1, classes), labels)[:, 0]


@contextmanager
def work_folder(args: argparse.Namespace) -> Iterator[Path]:
    """A temporary folder for the data, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="benchmark-", dir=args.work))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


# --- running -------------------------------------------------------------------------------------


def timed(function: Callable[[], object], repeats: int) -> list[float]:
    """Wall seconds of `repeats` calls, after one that is not counted."""
    function()
    return [seconds(function) for _ in range(repeats)]


def seconds(function: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def options(args: argparse.Namespace, source: Any = None) -> engine.Options:
    """Everything anew, and nothing on stderr."""
    return engine.Options(memory=args.memory, threads=args.threads, source=source, force=True, progress=False)


def fresh_process(script: str, args: argparse.Namespace, *what: object) -> dict[str, Any]:
    """What `script --child WHAT…` prints as JSON, in a process of its own with the same budget."""
    command = [sys.executable, str(Path(script).resolve()), "--repeats", str(args.repeats)]
    for name in ("memory", "threads"):
        if getattr(args, name) is not None:
            command += [f"--{name}", str(getattr(args, name))]
    finished = subprocess.run(
        [*command, "--child", *map(str, what)], check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(finished.stdout))


# --- the command line and the report -------------------------------------------------------------


def parser(doc: str | None, repeats: int) -> argparse.ArgumentParser:
    """The options that the benchmarks share."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in zip(SIZES, (64, 50_000, 2, 10), strict=True):
        made.add_argument(f"--{name}", type=int, default=default)
    made.add_argument("--repeats", type=int, default=repeats, help=f"timed runs (default: {repeats})")
    made.add_argument("--memory", type=int, help="budget in bytes")
    made.add_argument("--threads", type=int)
    made.add_argument("--work", type=Path, help="where the data goes (default: a temporary folder)")
    made.add_argument("--json", type=Path, help="where the JSON goes (default: stdout, after the table)")
    return made


def shape(args: argparse.Namespace) -> dict[str, int]:
    """models, examples, queries, classes."""
    return {name: getattr(args, name) for name in SIZES}


def shape_line(report: dict[str, Any]) -> str:
    """The same for people."""
    return " × ".join(f"{value:,} {name}" for name, value in report["shape"].items())


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": args.threads or os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("lirastore", "numpy", "dask", "pyarrow", "scipy")},
        "repeats": args.repeats,
    }


def publish(report: dict[str, Any], table: str, args: argparse.Namespace) -> None:
    """Prints the table, and puts the JSON where it was asked for."""
    text = json.dumps(report, indent=1)
    print(table)
    if args.json:
        args.json.write_text(text + "\n")
    else:
        print(text)

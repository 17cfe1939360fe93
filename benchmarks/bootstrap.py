"""How long does it take to evaluate an attack's scores, in how much memory, and do the intervals cover?

Makes its own scores: a row per shape (models × examples), each in a process of its own, once for the
bootstrap intervals alone and once for everything that an attack is followed by. `--coverage N` simulates N
experiments whose truth is known. `--shapes 4x200 --repeats 1` makes it a toy.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import common
import numpy as np
from scipy.stats import norm

from lirastore import evaluation, results, store
from lirastore.engine.parts import PartWriter
from lirastore.evaluation import Block, running
from lirastore.evaluation.bootstrap import bootstrap
from lirastore.evaluation.resampling import Resamples
from lirastore.memory import human, peak_rss

ATTACK, RUN = "made_up", "run"
PART_ROWS, BATCH_ROWS = 1_000_000, 32_768
COLUMNS = ("model", "example", "score", "member")
WHAT = ("intervals", "everything")

# (models, examples, spread of the examples' hardness, rate)
EXPERIMENTS = [
    (8, 300, 0.0, "tpr_at_1pct"),
    (8, 300, 3.0, "tpr_at_1pct"),
    (8, 1000, 1.0, "tpr_at_1pct"),
    (64, 1000, 1.0, "tpr_at_0_1pct"),
]
SHIFT = 1.5


# --- data ----------------------------------------------------------------------------------------


def make_scores(path: Path, models: int, examples: int) -> None:
    """A store with scores in parts as the engine writes them."""
    rng = np.random.default_rng(0)
    member = rng.random((models, examples)) < 0.5
    made = store.create(path, labels=np.zeros(examples, int), membership=member, augmentations=1)
    for model in range(models):
        with made.writer(model) as writer:
            writer.write(scaled_logit=np.zeros(examples, np.float32), examples=slice(None))
    objects, step = {}, max(1, PART_ROWS // models)
    for first in range(0, examples, step):
        part = results.part_path("scores", ATTACK, RUN, first)
        file = results.results_folder(made.lira) / part
        file.parent.mkdir(parents=True, exist_ok=True)
        with PartWriter(file) as rows:
            for start in range(first, min(first + step, examples), max(1, BATCH_ROWS // models)):
                stop = min(start + max(1, BATCH_ROWS // models), first + step, examples)
                rows.append(batch(rng, member, start, stop))
            objects[part] = rows.publish({}).object
    results.publish(made.lira, document(made, objects))


def batch(rng: np.random.Generator, member: np.ndarray, start: int, stop: int) -> dict[str, np.ndarray]:
    """The rows of examples [start, stop): these differ in hardness, and members stand out a little."""
    inside = member[:, start:stop].T
    score = rng.normal(size=(stop - start, 1)) + rng.normal(size=inside.shape) * np.where(inside, 1.5, 1)
    models = len(member)
    return {
        "model": np.tile(np.arange(models), stop - start),
        "example": np.repeat(np.arange(start, stop), models),
        "score": (score + 0.3 * inside).ravel(),
        "member": inside.ravel(),
    }


def document(made: store.LogitStore, objects: dict[str, results.PartObject]) -> results.Result:
    return results.Result(
        attack=ATTACK, run=RUN, kind="scores", columns=COLUMNS, parts=tuple(objects), objects=objects,
        preset="paper", models=tuple(made.committed().tolist()), set_digest=made.set_digest(),
        parameters={}, equal_counts=False, seed=0, seconds=0.0, bytes_read=0,
        finished_at="2026-01-01T00:00:00+00:00", library_version="0",
    )  # fmt: skip


# --- one shape, in a fresh process ---------------------------------------------------------------


def child(path: str, what: str, args: argparse.Namespace) -> None:
    """Evaluates again and again; prints the seconds of each time, and by how much memory grew at most."""
    made = store.open_store(Path(path))
    result = results.current(made.lira)[ATTACK]
    if what == "intervals":
        running.EVALUATORS = {"intervals": running.EVALUATORS["intervals"]}
    began = peak_rss()
    spent = [common.seconds(lambda: evaluate(made, result, args)) for _ in range(args.repeats)]
    print(json.dumps({"seconds": spent, "grown": peak_rss() - began}))


def evaluate(made: store.LogitStore, result: results.Result, args: argparse.Namespace) -> None:
    shutil.rmtree(results.results_folder(made.lira) / "evaluation", ignore_errors=True)
    evaluation.evaluate(made, [result], progress=False, threads=args.threads, memory=args.memory)


def measure(folder: Path, models: int, examples: int, args: argparse.Namespace) -> dict[str, Any]:
    path = folder / f"{models}x{examples}.lira"
    make_scores(path, models, examples)
    row = {what: common.fresh_process(__file__, args, path, what) for what in WHAT}
    shutil.rmtree(path)
    return {"models": models, "examples": examples, **row}


# --- coverage ------------------------------------------------------------------------------------


def coverage(experiments: int, models: int, examples: int, spread: float, rate: str) -> dict[str, Any]:
    """How many of the experiments' intervals of one rate hold its true TPR.

    Non-members score N(0, 1 + spread²) over all examples, members so much more: the truth is a normal tail.
    """
    rng = np.random.default_rng(0)
    drawing = Resamples(running.REPLICATES, 0, budget=10**9, threads=1)
    level = evaluation.OPERATING_POINTS[rate]
    truth = float(norm.cdf(SHIFT / np.hypot(1, spread) - norm.isf(level)))
    below = above = 0
    for _ in range(experiments):
        member = rng.random((examples, models)) < 0.5
        score = spread * rng.normal(size=(examples, 1)) + rng.normal(size=member.shape) + SHIFT * member
        lo, hi = interval(score, member, drawing, rate)
        below, above = below + (hi < truth), above + (truth < lo)
    return {
        "models": models, "examples": examples, "spread": spread, "rate": rate, "truth": truth,
        "experiments": experiments, "covered": experiments - below - above, "below": below, "above": above,
    }  # fmt: skip


def interval(score: np.ndarray, member: np.ndarray, drawing: Resamples, rate: str) -> list[float]:
    """That of one experiment, whose scores are in memory."""
    example = np.repeat(np.arange(len(score)), score.shape[1])
    block = Block(0, example, score.ravel(), member.ravel())
    evaluator = bootstrap(len(score), score.size, drawing)
    while True:
        try:
            step = next(evaluator)
        except StopIteration as ended:
            return ended.value[rate]
        step.merge(step.work(block))


# --- the report ----------------------------------------------------------------------------------


def table(report: dict[str, Any]) -> str:
    """The document for people."""
    lines = ["shape                 scores   " + "".join(f"{what:>12}    memory" for what in WHAT)]
    for row in report["rows"]:
        cells = [cell(row[what]) for what in WHAT]
        scores = row["models"] * row["examples"]
        lines.append(f"{row['models']:>5} × {row['examples']:<9,} {scores:>10,}   {''.join(cells)}")
    for row in report["coverage"]:
        share = row["covered"] / row["experiments"]
        lines.append(
            f"{row['rate']} of {row['models']} × {row['examples']:,}, hardness {row['spread']}: truth "
            f"{row['truth']:.4f} in {share:.1%} of {row['experiments']} intervals of 95%"
        )
    return "\n".join(lines)


def cell(found: dict[str, Any]) -> str:
    return f"{statistics.median(found['seconds']):10.2f} s {human(found['grown']):>9}"


def shapes(text: str) -> list[tuple[int, int]]:
    """256x50000,64x1797"""
    pairs = [tuple(int(size) for size in shape.split("x")) for shape in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise argparse.ArgumentTypeError(f"{text}: expected MODELSxEXAMPLES, …")
    return pairs


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shapes", type=shapes, default="256x50000,64x50000,64x1797")
    parser.add_argument("--coverage", type=int, default=0, metavar="N", help="simulated experiments")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=int, help="budget in bytes")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--work", type=Path, help="where the data goes (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="where the JSON goes (default: stdout, after the table)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.child:
        child(*args.child, args)
        return
    with common.work_folder(args) as folder:
        rows = [measure(folder, *shape, args) for shape in args.shapes]
    covered = [coverage(args.coverage, *experiment) for experiment in EXPERIMENTS if args.coverage]
    report = {"rows": rows, "coverage": covered, "machine": common.machine(args)}
    common.publish(report, table(report), args)


if __name__ == "__main__":
    main()

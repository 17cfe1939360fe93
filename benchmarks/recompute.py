"""How long does a new attack take over an experiment that is stored already?

    python benchmarks/recompute.py                       64 models × 50,000 examples × 2 queries × 10 classes
    python benchmarks/recompute.py --models 8 --examples 500 --repeats 1

Makes its own experiment through the public writer, then times, in one process with a warm page cache and
process start left out:

    logits          lira_online for all targets, from the logits
    scaled_logit    the same, from the stored scaled logits
    plain           ONE target, in numpy as it is usually written: load every model, softmax, masks, scores
    read logits     buffered reads of the objects that `logits` reads, on one thread; also of scaled_logit
    stages          where the time of `logits` goes, on one thread

Peak memory is that of fresh processes, beside what the plan projected. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
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
    timed,
    work_folder,
)

import lirastore
from lirastore import attacks, engine
from lirastore.engine.blocks import Job, Watch, read_signals
from lirastore.engine.parts import PartWriter
from lirastore.memory import human, peak_rss
from lirastore.results import Result

ATTACK = "lira_online"
SOURCES = ("logits", "scaled_logit")


# --- data ----------------------------------------------------------------------------------------


def make_data(folder: Path, args: argparse.Namespace) -> lirastore.Store:
    """A store and, for the plain code, one .npy file of logits per model."""
    store = make_store(
        folder / "store.lira",
        args,
        seen=lambda model, logits: np.save(folder / f"logits-{model:03d}.npy", logits),
    )
    np.save(folder / "labels.npy", store.labels)
    np.save(folder / "keep.npy", store.membership)
    return store


# --- the plain code ------------------------------------------------------------------------------


def plain_one_target(folder: Path, models: int, target: int = 0) -> np.ndarray:
    """(E,) float64 scores of one target: Carlini et al.'s online attack, as research code writes it."""
    labels = np.load(folder / "labels.npy")
    keep = np.load(folder / "keep.npy")
    phi = np.stack(
        [plain_phi(np.load(folder / f"logits-{model:03d}.npy"), labels) for model in range(models)]
    )
    others = np.arange(models) != target
    shadow, inside = phi[others], keep[others][:, :, None]
    mean_in = np.mean(shadow, axis=0, where=inside)
    mean_out = np.mean(shadow, axis=0, where=~inside)
    std_in = np.std(shadow, axis=0, where=inside) + 1e-30
    std_out = np.std(shadow, axis=0, where=~inside) + 1e-30
    scores = log_normal(phi[target], mean_in, std_in) - log_normal(phi[target], mean_out, std_out)
    return scores.mean(axis=1)


def plain_phi(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """log(p_y / (1 − p_y)) through a float64 softmax, as in the paper's published code."""
    shifted = logits - logits.max(axis=2, keepdims=True)
    exponentials = np.exp(shifted.astype(np.float64))
    probabilities = exponentials / exponentials.sum(axis=2, keepdims=True)
    rows = np.arange(len(labels))
    true = probabilities[rows, :, labels]
    probabilities[rows, :, labels] = 0
    wrong = probabilities.sum(axis=2)
    return np.log(true + 1e-45) - np.log(wrong + 1e-45)


def log_normal(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Log-density of N(mean, std²)."""
    return -0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)


# --- timing --------------------------------------------------------------------------------------


def attack_all(store: lirastore.Store, source: str, args: argparse.Namespace) -> Result:
    """All targets, computed anew."""
    return engine.run(store.logits, [attacks.named(ATTACK)], options(args, source))[0]


def read_objects(store: lirastore.Store, array: str) -> int:
    """Reads every object of an array through one buffer; returns the bytes."""
    buffer = bytearray(1 << 20)
    total = 0
    for path in (store.path / array / "c").rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while size := file.readinto(buffer):
                    total += size
    return total


def stages(store: lirastore.Store, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Seconds per stage of `lira_online` from the logits, on one thread, stage after stage."""
    attack = attacks.named(ATTACK)
    plan = engine.plan(store.logits, [attack], options(args, "logits"))
    models = store.logits.committed()
    job = Job(
        store.logits, models, store.logits.membership(models), store.logits.labels(), None, plan.grid,
        equal_counts=False, even_counts=True, seed=0, preset="paper",
    )  # fmt: skip
    spent = dict.fromkeys(("read and check", "kernel", "moments and scores", "parquet"), 0.0)
    for span in plan.blocks:
        spent["read and check"] += seconds(lambda span=span: _read(job, plan, span))
        began = time.perf_counter()
        signals, _ = read_signals(job, plan.readings, Watch(), *span)
        spent["kernel"] += time.perf_counter() - began
        began = time.perf_counter()
        tiles = [job.block(signals, span[0], *tile) for tile in plan.grid.tiles(*span)]
        scores = [attack.function(block) for block in tiles]
        spent["moments and scores"] += time.perf_counter() - began
        spent["parquet"] += seconds(lambda tiles=tiles, scores=scores: _write(folder, tiles, scores))
    spent["kernel"] -= spent["read and check"]
    return spent


def _read(job: Job, plan: engine.Plan, span: tuple[int, int]) -> None:
    for reading in plan.readings:
        for model, low, high in _chunks(job, reading.array.chunk, span):
            job.store.read(reading.array.name, model, low, high)


def _chunks(job: Job, chunk: int, span: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
    for model in job.models.tolist():
        for low in range(span[0] - span[0] % chunk, span[1], chunk):
            yield model, max(low, span[0]), min(low + chunk, span[1])


def _write(folder: Path, tiles: list[attacks.Block], scores: list[np.ndarray]) -> None:
    path = folder / "stage.parquet"
    with PartWriter(path) as writer:
        for block, score in zip(tiles, scores, strict=True):
            writer.append(
                {
                    "model": np.tile(block.models, len(block.examples)),
                    "example": np.repeat(block.examples, len(block.models)),
                    "score": score.T.ravel(),
                    "member": block.member.T.ravel(),
                }
            )
        writer.publish({})
    path.unlink()


# --- memory, in fresh processes ------------------------------------------------------------------


def child(path: str, source: str, args: argparse.Namespace) -> None:
    """What that process does."""
    store = lirastore.open(path)
    plan = engine.plan(store.logits, [attacks.named(ATTACK)], options(args, source))
    attack_all(store, source, args)
    print(json.dumps({"peak": peak_rss(), "projected": plan.projected, "bytes_to_read": plan.bytes_to_read}))


# --- the report ----------------------------------------------------------------------------------


def benchmark(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Everything, as a JSON document."""
    store = make_data(folder, args)
    took = {source: timed(lambda s=source: attack_all(store, s, args), args.repeats) for source in SOURCES}
    took["plain"] = timed(lambda: plain_one_target(folder, args.models), args.repeats)
    for source in SOURCES:
        took[f"read {source}"] = timed(lambda s=source: read_objects(store, s), args.repeats)
    median = {name: statistics.median(values) for name, values in took.items()}
    return {
        "shape": shape(args),
        "seconds": took,
        "median": median,
        "logits_over_plain": median["logits"] / median["plain"],
        "bytes": {source: read_objects(store, source) for source in SOURCES},
        "stages": stages(store, folder, args),
        "memory": {source: fresh_process(__file__, args, store.path, source) for source in SOURCES},
        "agrees_with_plain": agreement(store, folder, args),
        "machine": machine(args),
    }


def agreement(store: lirastore.Store, folder: Path, args: argparse.Namespace) -> float:
    """Largest difference between the plain code's scores of target 0 and those from the logits."""
    result = attack_all(store, "logits", args)
    parts = [pq.read_table(file).filter(pc.field("model") == 0) for file in result.files(store.logits.lira)]
    scores = np.concatenate([part["score"].to_numpy() for part in parts])
    return float(np.abs(scores - plain_one_target(folder, args.models)).max())


def table(report: dict[str, Any]) -> str:
    """The document for people."""
    every = f"{report['shape']['models']} targets"
    targets = {"plain": "1 target"} | dict.fromkeys(SOURCES, every)
    lines = [shape_line(report), ""]
    for name, took in report["median"].items():
        speed = ""
        if name.removeprefix("read ") in SOURCES:
            speed = f"{report['bytes'][name.removeprefix('read ')] / took / 1e9:6.2f} GB/s"
        lines.append(f"{name:20} {took:8.3f} s  {speed:12} {targets.get(name, '')}")
    lines.append(f"{'logits / plain':20} {report['logits_over_plain']:8.2f}    (expected: below 3)")
    lines += ["", "stages of logits, one thread"]
    lines += [f"  {name:18} {took:8.3f} s" for name, took in report["stages"].items()]
    lines += ["", "peak memory of a fresh process"]
    lines += [
        f"  {source:18} {human(found['peak'])} of {human(found['projected'])} projected"
        for source, found in report["memory"].items()
    ]
    lines.append(f"\nlargest difference from the plain scores: {report['agrees_with_plain']:.1e}")
    return "\n".join(lines)


def main() -> None:
    command = parser(__doc__, repeats=5)
    command.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = command.parse_args()
    if args.child:
        child(*args.child, args)
        return
    with work_folder(args) as folder:
        report = benchmark(folder, args)
    publish(report, table(report), args)


if __name__ == "__main__":
    main()

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
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

import lirastore
from lirastore import attacks, engine
from lirastore.engine.blocks import Job, Watch, read_signals
from lirastore.engine.parts import PartWriter
from lirastore.memory import human, peak_rss
from lirastore.results import Result

ATTACK = "lira_online"
BATCH = 4096
SOURCES = ("logits", "scaled_logit")


# --- data ----------------------------------------------------------------------------------------


def make_data(folder: Path, args: argparse.Namespace) -> lirastore.Store:
    """A store and, for the plain code, one .npy file of logits per model; members are a little surer."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, args.classes, args.examples)
    store = lirastore.create(
        folder / "store.lira",
        labels=labels,
        classes=args.classes,
        models=args.models,
        augmentations=args.queries,
        seed=0,
    )
    member = store.membership
    np.save(folder / "labels.npy", labels)
    np.save(folder / "keep.npy", member)
    hardness = rng.normal(4, 2, args.examples).astype(np.float32)
    for model in range(args.models):
        logits = model_logits(np.random.default_rng([1, model]), labels, hardness + member[model], args)
        np.save(folder / f"logits-{model:03d}.npy", logits)
        with store.writer(model) as writer:
            for start in range(0, args.examples, BATCH):
                stop = min(start + BATCH, args.examples)
                writer.write(logits[start:stop], examples=slice(start, stop))
    return store


def model_logits(
    rng: np.random.Generator, labels: np.ndarray, margin: np.ndarray, args: argparse.Namespace
) -> np.ndarray:
    """(E, A, C) float32: noise, and `margin` on the label's logit."""
    logits = rng.standard_normal((args.examples, args.queries, args.classes), dtype=np.float32)
    logits[np.arange(args.examples), :, labels] += margin[:, None]
    return logits


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


def timed(function: Callable[[], object], repeats: int) -> list[float]:
    """Wall seconds of `repeats` calls, after one that is not counted."""
    function()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return seconds


def attack_all(store: lirastore.Store, source: str, args: argparse.Namespace) -> Result:
    """All targets, computed anew."""
    return engine.run(store.logits, [attacks.named(ATTACK)], options(source, args))[0]


def options(source: Any, args: argparse.Namespace) -> engine.Options:
    return engine.Options(memory=args.memory, threads=args.threads, source=source, force=True, progress=False)


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
    plan = engine.plan(store.logits, [attack], options("logits", args))
    models = store.logits.committed()
    job = Job(
        store.logits, models, store.logits.membership(models), store.logits.labels(), None, plan.grid,
        equal_counts=False, seed=0, preset="paper",
    )  # fmt: skip
    spent = dict.fromkeys(("read and check", "kernel", "moments and scores", "parquet"), 0.0)
    for span in plan.blocks:
        spent["read and check"] += _seconds(lambda span=span: _read(job, plan, span))
        began = time.perf_counter()
        signals, _ = read_signals(job, plan.readings, Watch(), *span)
        spent["kernel"] += time.perf_counter() - began
        began = time.perf_counter()
        tiles = [job.block(signals, span[0], *tile) for tile in plan.grid.tiles(*span)]
        scores = [attack.function(block) for block in tiles]
        spent["moments and scores"] += time.perf_counter() - began
        spent["parquet"] += _seconds(lambda tiles=tiles, scores=scores: _write(folder, tiles, scores))
    spent["kernel"] -= spent["read and check"]
    return spent


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


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


def measure_memory(store: lirastore.Store, source: str, args: argparse.Namespace) -> dict[str, int]:
    """Peak resident bytes of a fresh process that attacks from `source`, and what its plan projected."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(store.path), source]
    for name in ("memory", "threads"):
        if getattr(args, name):
            command += [f"--{name}", str(getattr(args, name))]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(finished.stdout))


def child(path: str, source: str, args: argparse.Namespace) -> None:
    """What that process does."""
    store = lirastore.open(path)
    plan = engine.plan(store.logits, [attacks.named(ATTACK)], options(source, args))
    attack_all(store, source, args)
    print(json.dumps({"peak": peak_rss(), "projected": plan.projected, "bytes_to_read": plan.bytes_to_read}))


# --- the report ----------------------------------------------------------------------------------


def benchmark(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Everything, as a JSON document."""
    store = make_data(folder, args)
    seconds = {source: timed(lambda s=source: attack_all(store, s, args), args.repeats) for source in SOURCES}
    seconds["plain"] = timed(lambda: plain_one_target(folder, args.models), args.repeats)
    for source in SOURCES:
        seconds[f"read {source}"] = timed(lambda s=source: read_objects(store, s), args.repeats)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "shape": {name: getattr(args, name) for name in ("models", "examples", "queries", "classes")},
        "seconds": seconds,
        "median": median,
        "logits_over_plain": median["logits"] / median["plain"],
        "bytes": {source: read_objects(store, source) for source in SOURCES},
        "stages": stages(store, folder, args),
        "memory": {source: measure_memory(store, source, args) for source in SOURCES},
        "agrees_with_plain": agreement(store, folder, args),
        "machine": machine(args),
    }


def agreement(store: lirastore.Store, folder: Path, args: argparse.Namespace) -> float:
    """Largest difference between the plain code's scores of target 0 and those from the logits."""
    result = attack_all(store, "logits", args)
    parts = [pq.read_table(file).filter(pc.field("model") == 0) for file in result.files(store.logits.lira)]
    scores = np.concatenate([part["score"].to_numpy() for part in parts])
    return float(np.abs(scores - plain_one_target(folder, args.models)).max())


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": args.threads or os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("lirastore", "numpy", "dask", "pyarrow")},
        "repeats": args.repeats,
    }


def table(report: dict[str, Any]) -> str:
    """The document for people."""
    shape, median = report["shape"], report["median"]
    lines = [" × ".join(f"{value:,} {name}" for name, value in shape.items()), ""]
    for name, seconds in median.items():
        speed = ""
        if name.removeprefix("read ") in SOURCES:
            speed = f"{report['bytes'][name.removeprefix('read ')] / seconds / 1e9:6.2f} GB/s"
        targets = "1 target" if name == "plain" else f"{shape['models']} targets" if name in SOURCES else ""
        lines.append(f"{name:20} {seconds:8.3f} s  {speed:12} {targets}")
    lines.append(f"{'logits / plain':20} {report['logits_over_plain']:8.2f}    (expected: below 3)")
    lines += ["", "stages of logits, one thread"]
    lines += [f"  {name:18} {seconds:8.3f} s" for name, seconds in report["stages"].items()]
    lines += ["", "peak memory of a fresh process"]
    lines += [
        f"  {source:18} {human(found['peak'])} of {human(found['projected'])} projected"
        for source, found in report["memory"].items()
    ]
    lines.append(f"\nlargest difference from the plain scores: {report['agrees_with_plain']:.1e}")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("models", 64), ("examples", 50_000), ("queries", 2), ("classes", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=5)
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
    folder = Path(tempfile.mkdtemp(prefix="recompute-", dir=args.work))
    try:
        report = benchmark(folder, args)
    finally:
        shutil.rmtree(folder)
    text = json.dumps(report, indent=1)
    print(table(report))
    if args.json:
        args.json.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()

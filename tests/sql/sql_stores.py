"""Small real stores, and results such as the engine leaves them, for the tests of SQL."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lirastore import evaluation, results, store

SCORES = ("model", "example", "score", "member")


def make_store(
    path, members, *, committed=None, metadata: Mapping[int, Mapping[str, Any]] | None = None, **plan
):
    """A signal-only store with these training sets (M, E), its models written and committed."""
    members = np.asarray(members, dtype=bool)
    models, examples = members.shape
    labels = plan.pop("labels", np.arange(examples) % 10)
    made = store.create(path, labels=labels, membership=members, augmentations=1, **plan)
    for model in range(models) if committed is None else committed:
        write_model(made, model, (metadata or {}).get(model))
    return made


def write_model(made, model, metadata=None):
    with made.writer(model, metadata=metadata) as writer:
        writer.write(scaled_logit=np.zeros(made.info.examples, np.float32), examples=slice(None))


def put_scores(made, attack, scores, *, examples_per_part=50, keep=None, **document):
    """Publishes scores (K, E) of the committed models as the current result of `attack`.

    keep (K, E) bool: which of them there are.
    """
    parts = score_parts(made, scores, examples_per_part, keep)
    return publish(made, attack, "scores", SCORES, parts, **document)


def put_power(made, attack, models, queries, scores, *, examples_per_part=50, **document):
    """Likewise as the result of `attack` with so many shadow models and queries."""
    limits = {"attack": attack, "models": models, "queries": queries}
    parts = score_parts(made, scores, examples_per_part)
    name = f"{attack}__k{models}_q{queries}"
    return publish(made, name, "power", SCORES, parts, parameters=limits, **document)


def score_parts(made, scores, examples_per_part, keep=None):
    models = made.committed()
    member = made.membership(models)
    scores = np.broadcast_to(np.asarray(scores, dtype=np.float64), member.shape)
    kept = np.ones(member.shape, bool) if keep is None else np.asarray(keep)
    parts = {}
    for first in range(0, member.shape[1], examples_per_part):
        block = slice(first, first + examples_per_part)
        example, model = np.nonzero(kept[:, block].T)
        where = model, example + first
        parts[first] = pa.table(
            dict(zip(SCORES, (models[model], where[1], scores[where], member[where]), strict=True))
        )
    return parts


def put_memorization(made, p_in, p_out):
    columns = ("example", "p_correct_in", "p_correct_out", "memorization")
    values = (np.arange(len(p_in)), np.asarray(p_in), np.asarray(p_out), np.subtract(p_in, p_out))
    table = pa.table(dict(zip(columns, values, strict=True)))
    return publish(made, "memorization", "examples", columns, {0: table})


def put_influence(made, rows):
    """rows: (example, other, influence)."""
    columns = ("example", "other", "influence")
    table = pa.table(dict(zip(columns, map(np.array, zip(*rows, strict=True)), strict=True)))
    return publish(made, "influence", "pairs", columns, {0: table})


def put_evaluation(made, result, **intervals):
    """Stores an evaluation of a result, with these intervals (lo, hi) or None by metric."""
    evaluation.write(
        made.lira,
        evaluation.Evaluation(result.attack, result.run, 1000, 0, 0.5, {"intervals": intervals}),
    )


def publish(made, attack, kind, columns: Sequence[str], parts: Mapping[int, pa.Table], **document):
    run = uuid.uuid4().hex[:8]
    objects = {}
    for first, table in parts.items():
        name = results.part_path(kind, attack, run, first)
        file = results.results_folder(made.lira) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file, compression="zstd")
        data = file.read_bytes()
        objects[name] = results.PartObject(table.num_rows, len(data), hashlib.sha256(data).hexdigest())
    values = {
        "preset": "paper", "models": tuple(made.committed().tolist()), "set_digest": made.set_digest(),
        "parameters": {"signal": "scaled_logit"}, "equal_counts": False, "seed": 0, "seconds": 0.5,
        "bytes_read": 1234, "finished_at": "2026-01-01T00:00:00+00:00", "library_version": "0.1.0",
        **document,
    }  # fmt: skip
    result = results.Result(
        attack=attack,
        run=run,
        kind=kind,
        columns=tuple(columns),
        parts=tuple(objects),
        objects=objects,
        **values,
    )
    results.publish(made.lira, result)
    return result

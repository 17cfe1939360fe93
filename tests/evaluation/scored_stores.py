"""Scores of kinds that go wrong easily, alone and in small real stores."""

from __future__ import annotations

import hashlib
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lirastore import results, store
from lirastore.evaluation.stream import Block

COLUMNS = ("model", "example", "score", "member")


def scores(kind, examples, models, seed=0):
    """(E, M) float64 score and bool member; those of members are higher, but for kind "null"."""
    rng = np.random.default_rng(seed)
    member = rng.random((examples, models)) < 0.5
    score = rng.normal(size=(examples, models)) + member
    if kind == "null":
        score -= member
    if kind == "hard":  # the scores of an example are all but alike
        score = 3 * rng.normal(size=(examples, 1)) + 0.1 * score
    if kind == "ties":
        score = np.round(2 * score) / 2
    if kind == "two":
        score = (score > 1.5).astype(np.float64)
    if kind == "constant":
        score[:] = 3.25
    if kind == "atom":  # as of a rank among few: the strongest and the weakest tie
        score = score.clip(0.2, 2.2)
    if kind == "skewed":
        score = np.exp(4 * score)
    if kind == "separated":
        score += 20 * member
    if kind == "extreme":
        special = [1.7e308, -1.7e308, 5e-324, -5e-324, 0.0, -0.0, 1.0, np.nextafter(1, 2)]
        score = np.where(rng.random(score.shape) < 0.5, rng.choice(special, size=score.shape), score)
    return score, member


def blocks_of(score, member, size=1000):
    """(E, M) as the stream gives them: by (example, model), in blocks that break off anywhere."""
    example = np.repeat(np.arange(len(score)), score.shape[1])
    for start in range(0, score.size, size):
        rows = slice(start, start + size)
        yield Block(start, example[rows], score.ravel()[rows], member.ravel()[rows])


def make_store(path, examples, models):
    """A signal-only store with `models` committed models."""
    members = np.random.default_rng(5).random((models, examples)) < 0.5
    made = store.create(path, labels=np.arange(examples) % 10, membership=members, augmentations=1)
    for model in range(models):
        with made.writer(model) as writer:
            writer.write(scaled_logit=np.zeros(examples, np.float32), examples=slice(None))
    return made


def put(made, attack, score, *, kind="scores", member=None, keep=None, rows=150, **document):
    """Publishes scores (E, M) as the current result of `attack`, in two parts with row groups of `rows`.

    keep (E, M) bool: which of them there are.
    """
    models = made.committed()
    member = made.membership(models).T if member is None else member
    run, objects = uuid.uuid4().hex[:8], {}
    kept = np.ones(score.shape, bool) if keep is None else keep
    for first, stop in ((0, len(score) // 2), (len(score) // 2, len(score))):
        example, model = np.nonzero(kept[first:stop])
        where = example + first, model
        table = pa.table(
            dict(zip(COLUMNS, (models[model], where[0], score[where], member[where]), strict=True))
        )
        name = results.part_path(kind, attack, run, first)
        file = results.results_folder(made.lira) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file, row_group_size=rows)
        data = file.read_bytes()
        objects[name] = results.PartObject(table.num_rows, len(data), hashlib.sha256(data).hexdigest())
    values = {
        "preset": "paper", "models": tuple(models.tolist()), "set_digest": made.set_digest(),
        "parameters": {}, "equal_counts": False, "seed": 0, "seconds": 0.5, "bytes_read": 1234,
        "finished_at": "2026-01-01T00:00:00+00:00", "library_version": "0.1.0", **document,
    }  # fmt: skip
    found = results.Result(
        attack=attack, run=run, kind=kind, columns=COLUMNS, parts=tuple(objects), objects=objects, **values
    )
    results.publish(made.lira, found)
    return found

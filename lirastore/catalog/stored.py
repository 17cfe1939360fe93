"""Schema `stored`: what the store and its results say, as tables, and the results' files as views."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lirastore import evaluation, results
from lirastore.attacks import presets
from lirastore.catalog.limits import literal
from lirastore.catalog.values import json_value
from lirastore.datasets import dataset_key
from lirastore.errors import ResultError
from lirastore.evaluation.epsilon import COLUMNS as EPSILON_COLUMNS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from lirastore.evaluation import Evaluation
    from lirastore.results import Result
    from lirastore.store import LogitStore

__all__ = ["checked", "define_tables", "define_views", "pattern", "read_files"]

Columns = Mapping[str, str]

_SCORES = {"model": "bigint", "example": "bigint", "score": "double", "member": "boolean"}
_MEMORIZATION = {
    "example": "bigint",
    "p_correct_in": "double",
    "p_correct_out": "double",
    "memorization": "double",
}
_INFLUENCE = {"example": "bigint", "other": "bigint", "influence": "double"}
_LIMITS = {"name": "varchar", "attack": "varchar", "models": "bigint", "queries": "bigint"}


def checked(store: LogitStore) -> dict[str, Result]:
    """The current results by name, every file of which is there and has the size that its document states."""
    found = results.current(store.lira)
    for result in found.values():
        for part, file in zip(result.parts, result.files(store.lira), strict=True):
            _check(result, part, file)
    return found


def _check(result: Result, part: str, file: Path) -> None:
    expected = result.objects[part].bytes
    try:
        size = file.stat().st_size
    except OSError as error:
        raise ResultError(f"{file} of attack {result.attack}: {error.strerror}; {_again(result)}") from error
    if size != expected:
        raise ResultError(
            f"{file} of attack {result.attack} has {size} bytes, not {expected}; {_again(result)}"
        )


def _again(result: Result) -> str:
    return f"run the attack again with `lirastore attack STORE {' '.join(result.arguments)} --force`"


# --- tables ---------------------------------------------------------------------------------------


def define_tables(connection: DuckDBPyConnection, store: LogitStore, found: Mapping[str, Result]) -> None:
    """Makes schema `stored` with tables info, models, examples, attacks, power, intervals and epsilon."""
    evaluated = _evaluated(store, found)
    connection.execute("create schema stored")
    for name, table, columns in (
        ("info", _info(store), "*"),
        ("models", _models(store), "* replace (members::bit as members, metadata::json as metadata)"),
        ("examples", _examples(store), "*"),
        ("attacks", _attacks(store, found), "* replace (parameters::json as parameters)"),
        ("power", _power(found), "*"),
        ("intervals", _intervals(evaluated), "*"),
        ("epsilon", _epsilon(evaluated), "*"),
    ):
        connection.register("_incoming", table)
        connection.execute(f"create table stored.{name} as select {columns} from _incoming")
        connection.unregister("_incoming")


def _info(store: LogitStore) -> pa.Table:
    """One row: the data set's name, and which of the paper's it is."""
    name = store.info.name
    return pa.table(
        {"name": pa.array([name], pa.string()), "dataset": pa.array([dataset_key(name)], pa.string())}
    )


def _models(store: LogitStore) -> pa.Table:
    """One row per committed model; its membership row as bits, the first example first.

    Read row by row: all rows together are eight times the bits.
    """
    commits = store.commits()
    members = [np.packbits(store.membership([model])[0]).tobytes() for model in commits]
    return pa.table(
        {
            "model": pa.array(list(commits), pa.int64()),
            "committed_at": pa.array(
                [_utc(commit.committed_at) for commit in commits.values()], pa.timestamp("us")
            ),
            "metadata": pa.array([_json(commit.metadata) for commit in commits.values()], pa.string()),
            "members": pa.array(members, pa.binary()),
        }
    )


def _examples(store: LogitStore) -> pa.Table:
    labels = store.labels()
    attackable = store.attackable()
    return pa.table(
        {
            "example": np.arange(len(labels), dtype=np.int64),
            "label": np.asarray(labels, dtype=np.int64),
            "attackable": pa.array(np.ones(len(labels), dtype=bool) if attackable is None else attackable),
        }
    )


def _attacks(store: LogitStore, found: Mapping[str, Result]) -> pa.Table:
    """One row per result of any kind; of kind "power", `attack` is the result's own name."""
    stale = results.stale(store)
    rows = found.values()
    parameters = [
        {**result.parameters, "equal_counts": result.equal_counts, "seed": result.seed} for result in rows
    ]
    return pa.table(
        {
            "attack": pa.array([result.attack for result in rows], pa.string()),
            "kind": pa.array([result.kind for result in rows], pa.string()),
            "preset": pa.array([result.preset for result in rows], pa.string()),
            "named": pa.array([_named(result) for result in rows], pa.string()),
            "models": pa.array([len(result.models) for result in rows], pa.int64()),
            "stale": pa.array([result.attack in stale for result in rows], pa.bool_()),
            "seconds": pa.array([result.seconds for result in rows], pa.float64()),
            "bytes_read": pa.array([result.bytes_read for result in rows], pa.int64()),
            "parameters": pa.array([_json(value) for value in parameters], pa.string()),
        }
    )


def _named(result: Result) -> str | None:
    """The attack of the result's preset that it is: by its name, or under another one by what it computes."""
    if result.preset not in presets.PRESETS:
        return None
    known = presets.attacks(result.preset)
    if result.attack in known:
        return result.attack
    own = {key: value for key, value in result.parameters.items() if key != "separate"}
    return next((name for name, attack in known.items() if dict(attack.parameters) == own), None)


def _power(found: Mapping[str, Result]) -> pa.Table:
    """One row per result of kind "power": its own name, and which attack it is with how many models."""
    rows = [result for result in found.values() if result.kind == "power"]
    return pa.table(
        {
            "name": pa.array([result.attack for result in rows], pa.string()),
            "attack": pa.array([result.parameters["attack"] for result in rows], pa.string()),
            "preset": pa.array([result.preset for result in rows], pa.string()),
            "models": pa.array([result.parameters["models"] for result in rows], pa.int64()),
            "queries": pa.array([result.parameters["queries"] for result in rows], pa.int64()),
        }
    )


def _evaluated(store: LogitStore, found: Mapping[str, Result]) -> dict[str, Evaluation]:
    """The evaluations of the current runs, by the results' own names."""
    made = {
        name: evaluation.read(store.lira, result)
        for name, result in found.items()
        if result.kind in evaluation.KINDS
    }
    return {name: document for name, document in made.items() if document is not None}


def _intervals(evaluated: Mapping[str, Evaluation]) -> pa.Table:
    """One row per metric of each evaluated run; `attack` is the result's own name.

    NULL: the data resolve no interval, which is other than that none has been computed.
    """
    rows = [
        (name, metric, *(ends or (None, None)))
        for name, made in evaluated.items()
        for metric, ends in made.intervals.items()
    ]
    kinds = {"attack": pa.string(), "metric": pa.string(), "lo": pa.float64(), "hi": pa.float64()}
    return pa.table(
        {name: pa.array([row[n] for row in rows], kind) for n, (name, kind) in enumerate(kinds.items())}
    )


def _epsilon(evaluated: Mapping[str, Evaluation]) -> pa.Table:
    """One row per ε bound, or refusal of one, of a current run."""
    rows = [
        {"attack": name, **row}
        for name, made in evaluated.items()
        for row in made.sections.get("epsilon", ())
    ]
    kinds = {"varchar": pa.string(), "bigint": pa.int64(), "double": pa.float64()}
    columns = [("attack", pa.string()), *((name, kinds[kind]) for name, kind in EPSILON_COLUMNS.items())]
    return pa.Table.from_pylist(rows, schema=pa.schema(columns))


def _utc(text: str) -> datetime:
    """A moment without its zone, as DuckDB's TIMESTAMP has it."""
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _json(value: Any) -> str:
    """In strict JSON: NaN and infinity, which Python's reader lets in, become null."""
    return json.dumps(json_value(value), ensure_ascii=False)


# --- views over the results' files ----------------------------------------------------------------


def read_files(store: LogitStore, found: Mapping[str, Result]) -> list[Path]:
    """The files that the views of `define_views` read."""
    chosen = [result for some in _chosen(found).values() for result in some]
    return [file for result in chosen for file in result.files(store.lira)]


def define_views(connection: DuckDBPyConnection, store: LogitStore, found: Mapping[str, Result]) -> None:
    """Makes the views scores, power_scores, memorization and influence of schema `stored`."""
    chosen = _chosen(found)
    for view, constants, columns in (
        ("scores", {"attack": "varchar"}, _SCORES),
        ("power_scores", _LIMITS, _SCORES),
        ("memorization", {}, _MEMORIZATION),
        ("influence", {}, _INFLUENCE),
    ):
        connection.execute(_union(view, constants, columns, chosen[view], store.lira))


def _chosen(found: Mapping[str, Result]) -> dict[str, list[Result]]:
    """The results that each view shows."""

    def of(kind: str, name: str | None = None) -> list[Result]:
        return [result for result in found.values() if result.kind == kind and name in (None, result.attack)]

    return {
        "scores": of("scores"),
        "power_scores": of("power"),
        "memorization": of("examples", "memorization"),
        "influence": of("pairs", "influence"),
    }


def _union(view: str, constants: Columns, columns: Columns, found: Sequence[Result], lira: Path) -> str:
    """A view over the parts of some results, typed even if there are none.

    What is the same for a whole result, its `constants`, is a constant of its branch, so that a filter on it
    leaves out the others' files.
    """
    nulls = [f"null::{kind} as {name}" for name, kind in {**constants, **columns}.items()]
    branches = [f"select {', '.join(nulls)} where false"]
    for result in found:
        if result.parts:
            said = [f"{_constant(result, name)}::{kind} as {name}" for name, kind in constants.items()]
            read = [f"p.{column}::{kind} as {column}" for column, kind in columns.items()]
            source = f"read_parquet({_list(map(pattern, result.files(lira)))}, hive_partitioning = false)"
            branches.append(f"select {', '.join(said + read)} from {source} as p")
    return f"create view stored.{view} as\n" + "\nunion all ".join(branches)


def _constant(result: Result, name: str) -> str:
    """A column that is the same in all rows of a result, as SQL."""
    if result.kind != "power" or name == "name":
        return literal(result.attack)
    return literal(str(result.parameters[name]))


def pattern(file: Path) -> str:
    """The pattern that matches this file alone: DuckDB expands any * ? [ in a path."""
    return re.sub(r"([*?\[])", r"[\1]", str(file.absolute()))


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(literal(text) for text in texts) + "]"

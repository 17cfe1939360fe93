"""Writes an answer as a table for people, or as csv, json or parquet for programs; in bounded memory.

csv has a header, NULL as an empty field, and numbers as they read back exactly. json is an array of objects,
one to a line; NaN and infinity, which JSON lacks, are null, and JSON values stay JSON. parquet keeps types.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, cast

import pyarrow as pa
from pyarrow import csv, parquet

from lirastore.catalog.table import write_table
from lirastore.catalog.values import json_value
from lirastore.errors import InputError
from lirastore.store.fsio import replacing

if TYPE_CHECKING:
    from lirastore.catalog.gate import QueryResult

__all__ = ["FORMATS", "write"]


def write(answer: QueryResult, *, form: str | None = None, output: Path | None = None) -> None:
    """Writes an answer to the file `output`, which appears whole or not at all, or to stdout.

    form: `table`, `csv`, `json` or `parquet`; by default what the extension of `output` says, else `table`.
    Raises InputError for another form or parquet on a terminal, QueryError or ResultError from the answer.
    """
    chosen = form or _form_of(output)
    if chosen not in FORMATS:
        raise InputError(f"format {chosen!r}: expected one of {', '.join(FORMATS)}")
    writer = FORMATS[chosen]
    if output is not None:
        with _opened(output) as file:
            writer(answer, file)
        return
    if chosen == "parquet" and sys.stdout.isatty():
        raise InputError("parquet is not for a terminal: name a file with -o, or redirect stdout")
    sys.stdout.flush()
    writer(answer, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def _form_of(output: Path | None) -> str:
    extension = "" if output is None else output.suffix.lower().removeprefix(".")
    return extension if extension in FORMATS else "table"


def _opened(path: Path) -> AbstractContextManager[BinaryIO]:
    """The file; a pipe or a device, such as /dev/stdout, stays what it is."""
    return path.open("wb") if path.exists() and not path.is_file() else replacing(path)


# --- the forms ------------------------------------------------------------------------------------


def _write_table(answer: QueryResult, sink: BinaryIO) -> None:
    terminal = sys.stdout.isatty() and sink is sys.stdout.buffer
    text = _Utf8(sink)
    write_table(answer, cast(TextIO, text), width=shutil.get_terminal_size().columns if terminal else None)


class _Utf8:
    """Enough of a text stream over a binary one; unlike TextIOWrapper it never closes what it writes to."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink

    def write(self, text: str) -> int:
        return self._sink.write(text.encode())


def _write_csv(answer: QueryResult, sink: BinaryIO) -> None:
    schema: pa.Schema | None = None
    options = csv.WriteOptions(include_header=False)
    sink.write(",".join(_quoted(name) for name in answer.columns).encode() + b"\n")
    for batch in answer.batches():
        columns = [_flat(column) for column in batch.columns]
        schema = schema or pa.schema([(f"c{n}", column.type) for n, column in enumerate(columns)])
        csv.write_csv(pa.record_batch(columns, schema=schema), sink, options)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(sign in name for sign in ',"\r\n') else name


def _write_json(answer: QueryResult, sink: BinaryIO) -> None:
    names = _distinct(answer.columns)
    sink.write(b"[")
    separator = b"\n"
    for batch in answer.batches():
        columns = [
            _json_values(column, kind) for column, kind in zip(batch.columns, answer.types, strict=True)
        ]
        for row in zip(*columns, strict=True):
            text = json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, allow_nan=False)
            sink.write(separator + text.encode())
            separator = b",\n"
    sink.write(b"\n]\n")


def _write_parquet(answer: QueryResult, sink: BinaryIO) -> None:
    names = _distinct(answer.columns)
    writer: parquet.ParquetWriter | None = None
    try:
        for batch in answer.batches():
            table = pa.table([_storable(column) for column in batch.columns], names=names)
            writer = writer or parquet.ParquetWriter(sink, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


FORMATS: dict[str, Callable[[QueryResult, BinaryIO], None]] = {
    "table": _write_table,
    "csv": _write_csv,
    "json": _write_json,
    "parquet": _write_parquet,
}


# --- values ---------------------------------------------------------------------------------------


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, repeated ones numbered: a, a_1."""
    found: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" if number else name for number in itertools.count())
        found.append(next(candidate for candidate in numbered if candidate not in found))
    return found


def _flat(column: pa.Array) -> pa.Array:
    """What csv can hold: numbers, times and text as they are, anything else as JSON text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    if pa.types.is_nested(kind):
        values = (json_value(value) for value in column.to_pylist())
        return pa.array(
            [None if v is None else json.dumps(v, ensure_ascii=False) for v in values], pa.string()
        )
    if pa.types.is_binary(kind) or pa.types.is_interval(kind):
        return pa.array([json_value(value) for value in column.to_pylist()], pa.string())
    return column


def _storable(column: pa.Array) -> pa.Array:
    """What Parquet can hold: everything but intervals, which become text."""
    return _flat(column) if pa.types.is_interval(column.type) else column


def _json_values(column: pa.Array, kind: str) -> list[Any]:
    values = column.to_pylist()
    if kind == "JSON":
        return [None if value is None else json.loads(value) for value in values]
    return [json_value(value) for value in values]

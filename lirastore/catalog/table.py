"""An answer as a table for people: aligned, no wider than the terminal, saying what it leaves out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import pyarrow as pa

from lirastore.catalog.values import json_value

if TYPE_CHECKING:
    from lirastore.catalog.gate import QueryResult

__all__ = ["MOST_ROWS", "write_table"]

MOST_ROWS = 1000  # a person reads no more; the other formats write everything
_GAP = "  "


def write_table(
    answer: QueryResult, stream: TextIO, *, width: int | None = None, most_rows: int = MOST_ROWS
) -> None:
    """Writes the first `most_rows` rows of an answer, and how many there are in all.

    width: columns of the terminal. What is wider is broken into panels, each of which repeats the first
    column, and a cell wider than the terminal is cut; None: one line per row however long.
    """
    rows, total, numeric = _take(answer, most_rows)
    columns: list[list[str]] = []
    limit = width if width is None or len(answer.columns) == 1 else width // 2  # of the first column
    for n, name in enumerate(answer.columns):
        columns.append(_column(name, [row[n] for row in rows], n in numeric, limit))
        limit = width and width - len(columns[0][0]) - len(_GAP)
    for number, panel in enumerate(_panels(columns, width)):
        stream.write("\n" if number else "")
        for line in zip(*panel, strict=True):
            stream.write(_GAP.join(line).rstrip() + "\n")
    stream.write(_footer(len(rows), total))


def _footer(shown: int, total: int) -> str:
    if shown < total:
        return f"({shown:,} of {total:,} rows shown; --format csv, json or parquet writes all)\n"
    return f"({total:,} row{'' if total == 1 else 's'})\n"


def _take(answer: QueryResult, most: int) -> tuple[list[tuple[str, ...]], int, set[int]]:
    """The first rows as text, the number of all rows, and which columns hold numbers."""
    rows: list[tuple[str, ...]] = []
    total = 0
    numeric: set[int] = set()
    for batch in answer.batches():
        numeric = {n for n, field in enumerate(batch.schema) if _is_number(field.type)}
        wanted = batch.slice(0, most - len(rows)).columns
        rows += zip(*([_cell(value) for value in column.to_pylist()] for column in wanted), strict=True)
        total += batch.num_rows
    return rows, total, numeric


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple | dict):
        return json.dumps(json_value(value), ensure_ascii=False)
    # Text from a foreign file could hold a newline, or sequences that a terminal obeys.
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(json_value(value)))


def _column(name: str, cells: Sequence[str], number: bool, limit: int | None) -> list[str]:
    """A column's lines, all of one width: its name, a rule, its cells."""
    lines = [name, *cells]
    width = max(map(len, lines))
    if limit is not None and width > limit:
        width = limit
        lines = [line if len(line) <= width else line[: width - 1] + "…" for line in lines]
    lines.insert(1, "-" * width)
    return [line.rjust(width) if number else line.ljust(width) for line in lines]


def _panels(columns: Sequence[list[str]], width: int | None) -> Iterator[list[list[str]]]:
    """The columns in groups that fit the width; each group starts with the first column."""
    first, *rest = columns
    panel = [first]
    for column in rest:
        used = sum(len(c[0]) + len(_GAP) for c in panel) + len(column[0])
        if width is not None and len(panel) > 1 and used > width:
            yield panel
            panel = [first]
        panel.append(column)
    yield panel

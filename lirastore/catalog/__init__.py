"""SQL over a store: views and macros from `lirastore.queries`, answered by DuckDB.

`connect` gives an ordinary connection with the views, for notebooks; `query` answers one read-only statement;
`describe` lists what there is; `write` prints an answer; `warnings` says what a reader of it should know.
"""

from __future__ import annotations

from lirastore.catalog.connect import connect
from lirastore.catalog.describe import Definition, describe, write_listing
from lirastore.catalog.gate import QueryResult, query
from lirastore.catalog.notices import warnings
from lirastore.catalog.output import FORMATS, write

__all__ = [
    "FORMATS",
    "Definition",
    "QueryResult",
    "connect",
    "describe",
    "query",
    "warnings",
    "write",
    "write_listing",
]

"""SQL over a store: views and macros from `lirastore.queries`, answered by DuckDB.

`connect` gives an ordinary connection with the views, for notebooks; `ask` puts this library's own
questions; `query` answers one read-only statement; `describe` lists what there is; `write` prints an answer.
"""

from __future__ import annotations

from lirastore.catalog.connect import ask, connect
from lirastore.catalog.describe import Definition, describe, write_listing
from lirastore.catalog.gate import QueryResult, query
from lirastore.catalog.limits import literal
from lirastore.catalog.output import FORMATS, write
from lirastore.catalog.points import HEADLINE, OPERATING_POINTS

__all__ = [
    "FORMATS",
    "HEADLINE",
    "OPERATING_POINTS",
    "Definition",
    "QueryResult",
    "ask",
    "connect",
    "describe",
    "literal",
    "query",
    "write",
    "write_listing",
]

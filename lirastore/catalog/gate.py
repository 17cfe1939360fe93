"""Read-only SQL: one SELECT, on a connection that can reach the results' files and nothing else.

Several barriers, because none suffices. DuckDB may read the exact result files only, and its configuration
is locked; but whatever it may read it may also write, so nothing that writes may run. A statement's type
does not tell: DuckDB 2 lets a CTE of a SELECT hold INSERT, UPDATE, DELETE or COPY TO, and has table functions
that run SQL given as text. Hence the statement's tree is looked through: every query in it must be one that
reads, every table function one that is listed here.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lirastore.catalog.connect import define
from lirastore.catalog.describe import Definition, definitions, describe, needed
from lirastore.catalog.failures import translated
from lirastore.catalog.limits import limited, literal
from lirastore.catalog.notices import NOTICED, warnings
from lirastore.catalog.stored import pattern
from lirastore.catalog.worker import Worker
from lirastore.errors import MissingDependency, QueryError

if TYPE_CHECKING:
    import pandas as pd
    from duckdb import DuckDBPyConnection, DuckDBPyRelation, Statement

    from lirastore.store import LogitStore

__all__ = ["QueryResult", "query"]

BATCH_ROWS = 100_000

_QUERIES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_TABLE_FUNCTIONS = frozenset(
    {
        "duckdb_columns",
        "duckdb_functions",
        "duckdb_tables",
        "duckdb_types",
        "duckdb_views",
        "generate_series",
        "histogram",
        "histogram_values",
        "json_each",
        "json_tree",
        "pragma_table_info",
        "range",
        "repeat",
        "unnest",
    }
)
# What says that a statement asks what there is: of tables and functions, of nodes and schemas.
_INTROSPECTION = ("duckdb_", "pragma_", "show", "information_schema", "pg_", "sqlite_")
_SHORTHAND = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*(?P<call>\(.*\))?\s*;?\s*", re.DOTALL)


def query(
    store: LogitStore, sql: str, *, memory: int | None = None, threads: int | None = None
) -> QueryResult:
    """Answers one read-only statement over the views: a SELECT, FROM-first, DESCRIBE, SUMMARIZE, PIVOT … IN.

    A view's name, or the call of a macro, stands for all of its rows. Rows are computed as they are read, so
    take the result in a `with` block or read it to the end. memory: limit in bytes (default: a quarter of the
    machine's); more is spilled to a temporary folder that is removed afterwards.

    Raises QueryError for anything else or a mistake in it, DamagedStore or ResultError for damaged files;
    reading the result may also raise MemoryBudgetError.
    """
    with ExitStack() as undo:
        connection = limited(
            memory, threads, autoinstall_known_extensions=False, autoload_known_extensions=False
        )
        undo.callback(connection.close)
        with translated(store, ()):
            statement, tree = _admitted(connection, _expanded(sql))
        files = define(connection, store, _wanted(tree))
        _lock(connection, files)
        worker = Worker(connection)
        undo.callback(worker.close)
        with translated(store, files):
            relation = connection.sql(statement)
            notices = worker.run(lambda: warnings(connection, tree))
        return QueryResult(store, files, relation, notices, worker, undo.pop_all())


class QueryResult:
    """The answer to a query, to be read once, in any one of the ways below; reading it to the end closes it.

    columns, types: names and DuckDB types of the columns. warnings: what its reader should know, one line
    each: attacks that are out of date or have not run, rates that are finer than the data resolves. Reading
    raises QueryError for an error in a value, ResultError for a damaged file of results.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    warnings: tuple[str, ...]

    def __init__(
        self,
        store: LogitStore,
        files: Sequence[Path],
        relation: DuckDBPyRelation,
        warnings: tuple[str, ...],
        worker: Worker,
        resources: ExitStack,
    ) -> None:
        self._store = store
        self._files = files
        self._relation: DuckDBPyRelation | None = relation
        self.warnings = warnings
        self._run = worker.run
        self._finish = weakref.finalize(self, resources.close)
        self.columns = tuple(relation.columns)
        self.types = tuple(str(kind) for kind in relation.types)

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Arrow record batches of about `rows` rows, computed as they are taken, in bounded memory.

        At least one, so that the types are known: that of an empty answer is empty.
        """
        with self._reading() as relation:
            reader = self._run(lambda: relation.to_arrow_reader(rows))
            batch = self._run(lambda: next(reader, None))
            yield batch if batch is not None else pa.RecordBatch.from_pylist([], schema=reader.schema)
            while batch is not None and (batch := self._run(lambda: next(reader, None))) is not None:
                yield batch

    def arrow(self) -> pa.Table:
        """Everything as one pyarrow.Table."""
        with self._reading() as relation:
            return self._run(relation.to_arrow_table)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Everything as tuples of Python values."""
        with self._reading() as relation:
            return self._run(relation.fetchall)

    def df(self) -> pd.DataFrame:
        """Everything as a pandas.DataFrame. Raises MissingDependency without pandas."""
        try:
            import pandas as pd  # noqa: F401
        except ImportError as error:
            raise MissingDependency("pandas is not installed; pip install pandas, or use .arrow()") from error
        with self._reading() as relation:
            return self._run(relation.df)

    def close(self) -> None:
        """Ends the query, if it is not at its end, and removes its temporary files."""
        self._relation = None
        self._finish()

    def __enter__(self) -> QueryResult:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _reading(self) -> Iterator[DuckDBPyRelation]:
        if self._relation is None:
            raise QueryError("this result has been read, or closed; ask again")
        relation, self._relation = self._relation, None
        try:
            with translated(self._store, self._files):
                yield relation
        finally:
            del relation
            self.close()


# --- the connection -------------------------------------------------------------------------------


def _lock(connection: DuckDBPyConnection, files: Sequence[Path]) -> None:
    """Leaves the connection able to read these files and to do nothing else outside itself; for good."""
    names = {name for file in files for name in (str(file.absolute()), pattern(file))}
    connection.execute("set python_enable_replacements = false")
    connection.execute(f"set allowed_paths = [{', '.join(literal(name) for name in sorted(names))}]")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")


# --- the statement --------------------------------------------------------------------------------


def _expanded(sql: str) -> str:
    """The statement meant by a bare name or by the call of a macro: all rows of it."""
    match = _SHORTHAND.fullmatch(sql)
    if match is None or (match["call"] and match["name"].lower() not in _macros()):
        return sql
    return f"from {match['name']}{match['call'] or ''}"


def _macros() -> set[str]:
    return {definition.name for definition in describe() if definition.kind == "macro"}


def _admitted(connection: DuckDBPyConnection, sql: str) -> tuple[Statement, Any]:
    """The one statement, if it only reads, and its tree; the caller runs this object, never the text."""
    statements = connection.extract_statements(sql)
    kinds = [_kind(statement) for statement in statements]
    if kinds != ["SELECT"]:
        got = " and ".join(kinds) or "none"
        raise QueryError(f"expected one SELECT statement, read-only; got {got}.{_hint(sql)}")
    (statement,) = statements
    rows = connection.execute("select json_serialize_sql(?::varchar)", [statement.query]).fetchall()
    try:
        tree = json.loads(rows[0][0])
    except RecursionError as error:
        raise QueryError("this statement is nested too deeply; name parts of it in a WITH") from error
    if tree["error"]:
        raise QueryError(f"this statement cannot be checked: {tree.get('error_message', 'no reason given')}")
    _check_tree(tree, _macros() | _TABLE_FUNCTIONS)
    return statement, tree


def _wanted(tree: Any) -> tuple[Definition, ...]:
    """The views and macros that a statement may refer to: all whose names occur in it, and what these use.

    All there are, if it asks what there is.
    """
    texts = {text.lower() for text in _texts(tree)}
    if any(text.startswith(_INTROSPECTION) for text in texts):
        return definitions()
    named = {definition.name for definition in definitions()} & texts
    return needed({*named, *NOTICED})


def _texts(tree: Any) -> Iterator[str]:
    """Every string within a tree."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict | list):
            pending.extend(node.values() if isinstance(node, dict) else node)


def _kind(statement: Statement) -> str:
    try:
        return statement.type.name
    except ValueError:  # a kind that DuckDB's Python package has no name for, such as UPDATE EXTENSIONS
        return "a statement of another kind"


def _hint(sql: str) -> str:
    if "pivot" in sql.lower():
        return " PIVOT needs its values: PIVOT … ON column IN (…) …"
    return " lirastore.Store.connect() gives a connection without restrictions"


def _check_tree(tree: Any, functions: set[str] | frozenset[str]) -> None:
    """Refuses a statement's tree if any query in it may write, or any table function is not listed."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            _check_node(node, functions)
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _check_node(node: dict[str, Any], functions: set[str] | frozenset[str]) -> None:
    kind = str(node.get("type", ""))
    if ("cte_map" in node or kind.endswith("_NODE")) and kind not in _QUERIES:
        what = kind.removesuffix("_NODE").removesuffix("_QUERY")
        raise QueryError(f"{what} within a SELECT is refused: queries only read")
    if kind == "TABLE_FUNCTION":
        name = str(node.get("function", {}).get("function_name", "")).lower()
        if name not in functions:
            raise QueryError(
                f"table function {name!r} is refused: expected a macro of this store or one of "
                f"{', '.join(sorted(_TABLE_FUNCTIONS))}"
            )

"""Which views and macros a statement asks for, with what arguments: from its syntax tree."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lirastore.catalog.describe import Definition, describe

__all__ = ["Asked", "Reference", "asked"]

Node = Mapping[str, Any]


@dataclass(frozen=True)
class Reference:
    """A view, or the call of a macro; `attack` and `fpr` where an argument of that name is a constant."""

    name: str
    attack: str | None = None
    fpr: float | None = None


@dataclass(frozen=True)
class Asked:
    """What a statement asks for.

    attacks: the constants that a column `attack` is compared with (= or IN); none: it asks for all.
    columns: the columns that are named somewhere; None: there is a star, so that any may be meant.
    """

    references: tuple[Reference, ...]
    attacks: frozenset[str]
    columns: frozenset[str] | None


def asked(tree: Any) -> Asked:
    """Reads the tree of `json_serialize_sql`. What a DESCRIBE describes is not asked for."""
    nodes = list(_nodes(tree))
    columns = {node["column_names"][-1].lower() for node in nodes if node.get("type") == "COLUMN_REF"}
    starred = any(node.get("type") == "STAR" for node in nodes)
    return Asked(
        references=tuple(found for node in nodes if (found := _reference(node))),
        attacks=frozenset(name for node in nodes for name in _compared(node)),
        columns=None if starred else frozenset(columns),
    )


def _nodes(tree: Any) -> Iterator[Node]:
    """Every node, but for tables that are CTEs in spite of a view's name, and comparisons under a NOT."""
    pending: list[tuple[Any, frozenset[str], bool]] = [(tree, frozenset(), False)]
    while pending:
        node, hidden, negated = pending.pop()
        if isinstance(node, list):
            pending += [(item, hidden, negated) for item in node]
        elif isinstance(node, dict) and node.get("show_type") != "DESCRIBE":
            kind = node.get("type")
            for name, query in _ctes(node):
                itself = {name} if query["query_node"]["type"] == "RECURSIVE_CTE_NODE" else set()
                pending.append((query, hidden | itself, False))
                hidden |= {name}
            is_cte = kind == "BASE_TABLE" and _name(node) in hidden
            negated ^= kind == "OPERATOR_NOT"
            if not is_cte and not (negated and kind in ("COMPARE_EQUAL", "COMPARE_IN")):
                yield node
            pending += [(value, hidden, negated) for key, value in node.items() if key != "cte_map"]


def _ctes(node: Node) -> Iterator[tuple[str, Node]]:
    """The CTEs of a query in order: each sees those before it, and itself only if it is recursive."""
    for entry in node.get("cte_map", {}).get("map", []):
        yield entry["key"].lower(), entry["value"]


def _name(table: Node) -> str:
    """The name of a table as a CTE or a view of ours would have it; with another schema it is neither."""
    return str(table["table_name"]).lower() if table["schema_name"].lower() in ("", "main") else ""


def _reference(node: Node) -> Reference | None:
    known = {definition.name: definition for definition in describe()}
    if node.get("type") == "BASE_TABLE" and _name(node) in known:
        return Reference(_name(node))
    if node.get("type") == "TABLE_FUNCTION":
        function = node["function"]
        macro = known.get(function["function_name"].lower())
        return None if macro is None else _call(macro, function["arguments"])
    return None


def _call(macro: Definition, arguments: list[Node]) -> Reference:
    values: dict[str, Any] = {}
    for position, argument in enumerate(arguments):
        if position < len(macro.parameters):
            values[argument["name"].lower() or macro.parameters[position]] = argument["expression"]
    attack, fpr = (_constant(values.get(name, {})) for name in ("attack", "fpr"))
    return Reference(
        macro.name,
        attack=attack if isinstance(attack, str) else None,
        fpr=fpr if isinstance(fpr, float) else None,
    )


def _constant(expression: Node) -> str | float | None:
    """The value of a string or a number that stands there as such."""
    literal = expression.get("literal", {})
    if literal.get("kind") == "STRING":
        return str(literal["text"])
    if literal.get("kind") in ("INTEGER", "NUMERIC"):
        with contextlib.suppress(ValueError):  # 0x10: nobody writes a rate like that
            return float(literal["text"])
    return None


def _compared(node: Node) -> Iterator[str]:
    """The strings that a column `attack` may equal, by this comparison."""
    sides: list[Node] = []
    if node.get("type") == "COMPARE_EQUAL":
        sides = [node["left"], node["right"]]
    elif node.get("type") == "COMPARE_IN":
        sides = node["children"]
    if any(side.get("column_names", [""])[-1].lower() == "attack" for side in sides):
        yield from (value for side in sides if isinstance(value := _constant(side), str))

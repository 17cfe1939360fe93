"""What the SQL files of `lirastore.queries` say of themselves: names, signatures, columns, meanings."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from importlib.resources import files
from typing import Literal, TextIO

__all__ = ["Definition", "definitions", "describe", "needed", "write_listing"]

_HEAD = re.compile(
    r"^create (?P<kind>view|macro) (?P<name>\w+)\s*(?:\((?P<parameters>[^)]*)\))?\s+as\b", re.MULTILINE
)
_COLUMNS = re.compile(r"^  (?P<names>\w+(?:, \w+)*) +(?P<meaning>\S.*)$")


@dataclass(frozen=True)
class Definition:
    """One SQL file. `columns` are pairs (name, meaning) in order, `comment` is the whole leading comment."""

    name: str
    kind: Literal["view", "macro"]
    parameters: tuple[str, ...]
    comment: str
    columns: tuple[tuple[str, str], ...]
    statement: str

    @property
    def signature(self) -> str:
        """How it is called: `metrics`, `most_exposed(attack, n)`."""
        return f"{self.name}({', '.join(self.parameters)})" if self.kind == "macro" else self.name

    @property
    def public(self) -> bool:
        """Whether it is part of the contract; the others are building blocks."""
        return not self.name.startswith("_")


@cache
def definitions() -> tuple[Definition, ...]:
    """Every SQL file, so ordered that each comes after those that it refers to."""
    found = {definition.name: definition for definition in _parsed()}
    return tuple(found[name] for name in TopologicalSorter(_uses()).static_order())


def needed(names: Collection[str]) -> tuple[Definition, ...]:
    """The definitions of these names, and all that they refer to, in an order to make them in."""
    wanted, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += _uses()[name]
    return tuple(definition for definition in definitions() if definition.name in wanted)


@cache
def _uses() -> dict[str, set[str]]:
    """Name of a definition -> the names that it refers to."""
    found = {definition.name: definition for definition in _parsed()}
    return {name: _words(item.statement) & found.keys() - {name} for name, item in found.items()}


def describe() -> list[Definition]:
    """The public views, then the public macros, by name."""
    public = [definition for definition in definitions() if definition.public]
    return sorted(public, key=lambda definition: (definition.kind != "view", definition.name))


def write_listing(stream: TextIO) -> None:
    """Prints what there is to ask: each view and macro with the comment of its SQL file, columns included."""
    for definition in describe():
        summary, *more = definition.comment.splitlines()
        stream.write(f"{definition.signature}  {summary}\n")
        stream.writelines(f"  {line}\n" for line in more if line)
        stream.write("\n")
    stream.write(
        "Ask by a name (metrics), a call (most_exposed('lira_online', 10)), or any SELECT of DuckDB:\n"
        "  select attack, auc from metrics where auc > 0.6\n"
    )


def _parsed() -> Iterator[Definition]:
    folder = files("lirastore.queries")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            yield _parse(file.name, file.read_text(encoding="utf-8"))


def _parse(file: str, statement: str) -> Definition:
    head = _HEAD.search(statement)
    if head is None or f"{head['name']}.sql" != file:
        raise AssertionError(f"queries/{file}: expected a comment, then `create view|macro {file[:-4]} as`")
    lines = [line.removeprefix("--").removeprefix(" ") for line in statement[: head.start()].splitlines()]
    parameters = [name.strip() for name in (head["parameters"] or "").split(",")]
    return Definition(
        name=head["name"],
        kind="view" if head["kind"] == "view" else "macro",
        parameters=tuple(name for name in parameters if name),
        comment="\n".join(lines).strip(),
        columns=tuple(_columns(lines)),
        statement=statement,
    )


def _columns(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if match := _COLUMNS.match(line):
            for name in match["names"].split(", "):
                yield name, match["meaning"]


def _words(statement: str) -> set[str]:
    """Names that a statement may refer to: after FROM or JOIN, and building blocks anywhere."""
    code = re.sub(r"--.*", "", statement)
    return set(re.findall(r"\b(?:from|join)\s+(\w+)", code)) | set(re.findall(r"\b(_\w+)\b", code))

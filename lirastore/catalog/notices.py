"""What someone who reads an answer should know: results that are out of date, rates too fine for the data."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from lirastore import results
from lirastore.catalog.connect import connect
from lirastore.catalog.describe import describe
from lirastore.errors import name_some

if TYPE_CHECKING:
    from lirastore.store import LogitStore

__all__ = ["NAMED_FPRS", "warnings"]

NAMED_FPRS = (0.1, 0.01, 0.001, 0.0001, 0.00001)  # of the columns of views metrics and metrics_by_model

_FROM_STORE = frozenset(
    {"models", "examples", "membership", "attacks"}
)  # nothing in them is computed by attacks
_NUMBER = r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)"
_LEVELS = re.compile(
    rf"\b(?:tpr_at_fpr\s*\(|verdict\s*\([^()]*,)\s*(?:fpr\s*:=\s*)?{_NUMBER}\s*\)", re.IGNORECASE
)

_OF_ATTACK = re.compile(
    r"\b(?:most_exposed|roc_exact|verdict)\s*\(\s*(?:attack\s*:=\s*)?'([^']*)'", re.IGNORECASE
)


def warnings(store: LogitStore, sql: str) -> list[str]:
    """What to warn of beside the answer to `sql`, one line each; only of attacks that it names, if any."""
    names = {word.lower() for word in re.findall(r"\w+", sql)}
    asked = names & ({definition.name for definition in describe()} - _FROM_STORE)
    if not asked:
        return []
    ran = results.current(store.lira).keys()
    quoted = set(re.findall(r"'(\w+)'", sql)) & ran
    return [
        *_absent_lines(sql, asked, ran),
        *_stale_lines(store, quoted),
        *_coarse_lines(store, sql, asked, quoted),
    ]


def _absent_lines(sql: str, asked: Collection[str], ran: Collection[str]) -> Iterator[str]:
    """Attacks that the answer needs and that have not run: why it is empty."""
    wanted = {name for name in _OF_ATTACK.findall(sql) if name not in ran}
    if "memorization" in asked and "memorization" not in ran:
        wanted.add("memorization")
    if wanted or not ran:
        have = f"the attacks that have run are {name_some(sorted(ran))}" if ran else "no attack has run yet"
        which = name_some(sorted(wanted)) or "--all"
        yield f"{have}: `lirastore attack STORE {which}` computes what this asks for"


def _stale_lines(store: LogitStore, quoted: set[str]) -> Iterator[str]:
    for name in results.stale(store):
        if name in quoted or not quoted:
            yield (
                f"{name} is out of date: models were committed or discarded since it ran; "
                f"`lirastore attack STORE {name}` brings it up to date"
            )


def _coarse_lines(store: LogitStore, sql: str, asked: set[str], quoted: set[str]) -> Iterator[str]:
    """FPRs at which fewer than one false positive is expected: their TPRs have no interval."""
    levels = {float(match) for match in _LEVELS.findall(sql)}
    if asked & {"exposure", "most_exposed"}:
        levels.add(0.001)
    pooled = levels | (set(NAMED_FPRS) if "metrics" in asked else set())
    if pooled:
        yield from _too_fine(_nonmembers(store, quoted, "s.attack"), pooled, "")
    if "metrics_by_model" in asked:
        yield from _too_fine(
            _nonmembers(store, quoted, "s.attack, s.model"), set(NAMED_FPRS), " of a single model"
        )


def _nonmembers(store: LogitStore, quoted: set[str], group: str) -> dict[str, int]:
    """The number of non-members of each attack, or of its smallest group."""
    with connect(store) as connection:
        rows = connection.execute(f"""
            select g.attack, min(g.n)
            from (
                select s.attack, count(*) - count(nullif(s.member, false)) as n
                from scores as s group by {group}
            ) as g
            group by g.attack order by g.attack
        """).fetchall()
    return {name: count for name, count in rows if name in quoted or not quoted}


def _too_fine(nonmembers: Mapping[str, int], levels: set[float], where: str) -> Iterator[str]:
    for level in sorted(levels, reverse=True):
        names = [name for name, count in nonmembers.items() if not count or 1 / count > level]
        if names:
            counts = sorted({nonmembers[name] for name in names})
            some = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
            yield (
                f"{level * 100:.6g}% FPR is finer than {some} non-members{where} resolve: TPRs at it have no "
                f"interval ({', '.join(names)})"
            )

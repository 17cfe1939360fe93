"""What someone who reads an answer should know: results that are out of date, rates too fine for the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lirastore.catalog.limits import literal
from lirastore.catalog.points import HEADLINE, OPERATING_POINTS
from lirastore.catalog.references import Asked, Reference, asked
from lirastore.errors import name_some

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["warnings"]

# Nothing in these is computed by attacks, or they say themselves what is stale.
_FROM_STORE = frozenset({"models", "examples", "membership", "attacks"})


@dataclass(frozen=True)
class _Run:
    """A current result, as view `attacks` has it."""

    attack: str
    kind: str
    stale: bool


def warnings(connection: DuckDBPyConnection, tree: Any) -> tuple[str, ...]:
    """What to warn of beside the answer to a statement, one line each; only of attacks that it asks for.

    tree: the statement as `json_serialize_sql` has it. connection: one with the views. Counts the scores of
    these attacks where rates are asked for, which takes milliseconds a million, and sorts nothing.
    """
    question = asked(tree)
    references = [found for found in question.references if found.name not in _FROM_STORE]
    if not references:
        return ()
    rows = connection.execute("select attack, kind, stale from stored.attacks order by attack").fetchall()
    runs = [_Run(*row) for row in rows]
    concerned = {found: _concerned(found, question, runs) for found in references}
    return (
        *_absent_lines(references, runs),
        *_stale_lines({run for found in concerned.values() for run in found}),
        *_coarse_lines(connection, question, concerned),
    )


def _concerned(reference: Reference, question: Asked, runs: Iterable[_Run]) -> list[_Run]:
    """The runs that a view or macro takes its rows from, as far as the statement tells."""
    if reference.name == "memorization":
        return [run for run in runs if run.attack == "memorization" and run.kind == "examples"]
    wanted = question.attacks if reference.attack is None else {reference.attack}
    return [run for run in runs if run.kind == "scores" and (run.attack in wanted or not wanted)]


def _absent_lines(references: Iterable[Reference], runs: Iterable[_Run]) -> Iterator[str]:
    """Attacks that the answer needs and that have not run: why it is empty."""
    ran = sorted(run.attack for run in runs)
    needed = {"memorization" if found.name == "memorization" else found.attack for found in references}
    wanted = sorted(name for name in needed if name is not None and name not in ran)
    if wanted or not ran:
        have = f"the attacks that have run are {name_some(ran)}" if ran else "no attack has run yet"
        which = name_some(wanted) or "--all"
        yield f"{have}: `lirastore attack STORE {which}` computes what this asks for"


def _stale_lines(runs: Iterable[_Run]) -> Iterator[str]:
    for name in sorted(run.attack for run in runs if run.stale):
        yield (
            f"{name} is out of date: models were committed or discarded since it ran; "
            f"`lirastore attack STORE {name}` brings it up to date"
        )


# --- rates ----------------------------------------------------------------------------------------


def _coarse_lines(
    connection: DuckDBPyConnection, question: Asked, concerned: Mapping[Reference, Iterable[_Run]]
) -> Iterator[str]:
    """FPRs at which fewer than one false positive is expected: their TPRs have no interval."""
    for group, where in (("s.attack", ""), ("s.attack, s.model", " of a single model")):
        pairs = {
            (level, run.attack)
            for reference, runs in concerned.items()
            for level in _levels(reference, question)
            if (reference.name == "metrics_by_model") == bool(where)
            for run in runs
        }
        if pairs:
            nonmembers = _nonmembers(connection, {attack for _, attack in pairs}, group)
            yield from _too_fine(nonmembers, pairs, where)


def _levels(reference: Reference, question: Asked) -> Iterator[float]:
    """The FPRs above 0 at which a reference is asked for TPRs or thresholds."""
    if reference.name in ("exposure", "most_exposed"):
        yield OPERATING_POINTS[HEADLINE]
    if reference.name in ("metrics", "metrics_by_model"):
        for column, level in OPERATING_POINTS.items():
            named = {column, f"{column}_lo", f"{column}_hi"}
            if level > 0 and (question.columns is None or named & question.columns):
                yield level
    if reference.fpr is not None:
        yield reference.fpr


def _nonmembers(connection: DuckDBPyConnection, attacks: Iterable[str], group: str) -> dict[str, int]:
    """The number of scored non-members of each attack, or of its smallest group."""
    names = ", ".join(literal(name) for name in sorted(attacks))
    counts = connection.execute(f"""
        select g.attack, min(g.n)
        from (
            select s.attack, count(*) - count(nullif(s.member, false)) as n
            from scores as s where s.attack in ({names}) group by {group}
        ) as g
        group by g.attack order by g.attack
    """)
    return dict(counts.fetchall())


def _too_fine(nonmembers: Mapping[str, int], pairs: set[tuple[float, str]], where: str) -> Iterator[str]:
    for level in sorted({level for level, _ in pairs}, reverse=True):
        counts = {name: count for name, count in nonmembers.items() if (level, name) in pairs}
        coarse = {name: count for name, count in counts.items() if not count or 1 / count > level}
        if coarse:
            low, high = min(coarse.values()), max(coarse.values())
            some = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            yield (
                f"{level * 100:.6g}% FPR is finer than {some} non-members{where} resolve: TPRs at it have no "
                f"interval ({', '.join(coarse)})"
            )

"""What someone who reads an answer should know: results that are out of date, rates too fine for the data.

What a view takes its rows from follows from its name, and which rates it shows from its columns' names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lirastore.catalog.describe import describe
from lirastore.catalog.limits import literal
from lirastore.catalog.points import HEADLINE, OPERATING_POINTS
from lirastore.catalog.references import Asked, Reference, asked
from lirastore.errors import name_some

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["NOTICED", "warnings"]

# The views that `warnings` asks itself.
NOTICED = frozenset({"_pooled_scores", "_power_scores", "_target_scores"})

# Nothing in these is computed by attacks, or they say themselves what is stale.
_FROM_STORE = frozenset({"models", "examples", "membership", "attacks"})

# These show the result of one attack, which is not scores; of that kind.
_OF_ONE_ATTACK = {"memorization": "examples", "influence": "pairs"}

# Their rates are those of single targets.
_BY_TARGET = frozenset({"metrics_by_model", "metrics_over_models"})


@dataclass(frozen=True)
class _Run:
    """A current result; `name` is its own, and other than its attack's if it is of few models (`power`)."""

    name: str
    attack: str
    kind: str
    stale: bool
    evaluated: bool

    @property
    def command(self) -> str:
        """What brings it up to date."""
        return f"lirastore attack STORE {self.attack}{' --models …' if self.kind == 'power' else ''}"


_RUNS = """
    select r.attack, coalesce(p.attack, r.attack), r.kind, r.stale, i.attack is not null
    from stored.attacks as r
    left join stored.power as p on p.name = r.attack
    left join (select distinct v.attack from stored.intervals as v) as i on i.attack = r.attack
    order by r.attack
"""


def warnings(connection: DuckDBPyConnection, tree: Any) -> tuple[str, ...]:
    """What to warn of beside the answer to a statement, one line each; only of attacks that it asks for.

    tree: the statement as `json_serialize_sql` has it. connection: one with the views. Counts the scores of
    these attacks where rates are asked for, which takes milliseconds a million, and sorts nothing.
    """
    question = asked(tree)
    references = [found for found in question.references if found.name not in _FROM_STORE]
    if not references:
        return ()
    runs = [_Run(*row) for row in connection.execute(_RUNS).fetchall()]
    concerned = {found: _concerned(found, question, runs) for found in references}
    return (
        *_absent_lines(references, runs),
        *_stale_lines({run for found in concerned.values() for run in found}),
        *_coarse_lines(connection, question, concerned),
        *_bare_lines(question, concerned),
    )


def _concerned(reference: Reference, question: Asked, runs: Iterable[_Run]) -> list[_Run]:
    """The runs that a view or macro takes its rows from, as far as the statement tells."""
    if reference.name in _OF_ONE_ATTACK:
        kind = _OF_ONE_ATTACK[reference.name]
        return [run for run in runs if run.attack == reference.name and run.kind == kind]
    kind = "power" if reference.name == "power" else "scores"
    wanted = question.attacks if reference.attack is None else {reference.attack}
    return [run for run in runs if run.kind == kind and (run.attack in wanted or not wanted)]


def _absent_lines(references: Iterable[Reference], runs: Iterable[_Run]) -> Iterator[str]:
    """Attacks that the answer needs and that have not run: why it is empty."""
    ran = sorted(run.attack for run in runs if run.kind != "power")
    needed = {found.name if found.name in _OF_ONE_ATTACK else found.attack for found in references}
    wanted = sorted(name for name in needed if name is not None and name not in ran)
    if wanted or not ran:
        have = f"the attacks that have run are {name_some(ran)}" if ran else "no attack has run yet"
        which = name_some(wanted) or "--all"
        yield f"{have}: `lirastore attack STORE {which}` computes what this asks for"


def _stale_lines(runs: Iterable[_Run]) -> Iterator[str]:
    for run in sorted(runs, key=lambda run: run.name):
        if run.stale:
            yield (
                f"{run.name} is out of date: models were committed or discarded since it ran; "
                f"`{run.command}` brings it up to date"
            )


def _bare_lines(question: Asked, concerned: Mapping[Reference, Iterable[_Run]]) -> Iterator[str]:
    """Attacks whose bootstrap intervals are asked for and have not been computed."""
    bare = {
        run
        for reference, runs in concerned.items()
        if any("_boot_" in column for column in _shown(reference, question))
        for run in runs
        if not run.evaluated
    }
    if bare:
        names = sorted(run.name for run in bare)
        yield (
            f"no bootstrap intervals of {name_some(names)} have been computed: "
            f"`{min(run.command for run in bare)}` does so"
        )


def _shown(reference: Reference, question: Asked) -> list[str]:
    """The columns of a view or macro that the statement asks for."""
    columns = next(found.columns for found in describe() if found.name == reference.name)
    return [name for name, _ in columns if question.columns is None or name in question.columns]


# --- rates ----------------------------------------------------------------------------------------


def _coarse_lines(
    connection: DuckDBPyConnection, question: Asked, concerned: Mapping[Reference, Iterable[_Run]]
) -> Iterator[str]:
    """FPRs at which fewer than one false positive is expected: their TPRs have no interval."""
    for by_model, where in ((False, ""), (True, " of a single model")):
        pairs = {
            (level, run)
            for reference, runs in concerned.items()
            for level in _levels(reference, question)
            if (reference.name in _BY_TARGET) == by_model
            for run in runs
        }
        if pairs:
            nonmembers = _nonmembers(connection, {run for _, run in pairs}, by_model)
            yield from _too_fine(nonmembers, {(level, run.name) for level, run in pairs}, where)


def _levels(reference: Reference, question: Asked) -> Iterator[float]:
    """The FPRs above 0 at which a reference is asked for TPRs or thresholds."""
    if reference.name in ("exposure", "most_exposed"):
        yield OPERATING_POINTS[HEADLINE]
    shown = _shown(reference, question)
    for column, level in OPERATING_POINTS.items():
        if level > 0 and any(name == column or name.startswith(f"{column}_") for name in shown):
            yield level
    if reference.fpr is not None:
        yield reference.fpr


def _nonmembers(connection: DuckDBPyConnection, runs: Iterable[_Run], by_model: bool) -> dict[str, int]:
    """The number of scored non-members of each run, by its name, or of its target that has fewest."""
    counts: dict[str, int] = {}
    for kind, source in (("scores", "_target_scores"), ("power", "_power_scores")):
        names = ", ".join(literal(name) for name in sorted(run.name for run in runs if run.kind == kind))
        if names:
            counts |= _counted(connection, source, names, "s.attack, s.model" if by_model else "s.attack")
    return counts


def _counted(connection: DuckDBPyConnection, source: str, names: str, group: str) -> dict[str, int]:
    rows = connection.execute(f"""
        select g.attack, min(g.n)
        from (
            select s.attack, count(*) - count(nullif(s.member, false)) as n
            from {source} as s where s.attack in ({names}) group by {group}
        ) as g
        group by g.attack order by g.attack
    """)
    return dict(rows.fetchall())


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

"""What someone who reads an answer should know: results that are out of date, rates too fine for the data.

What a view takes its rows from follows from its name, and which rates it shows from its columns' names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
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

# These have rows of attacks that have not run. By which view, and the data sets of the published values.
_TABLES = {
    "paper_table": (
        "_paper_rows",
        {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "wikitext103": "WikiText-103"},
    ),
    "ablation_table": ("_ablation_rows", {"cifar10": "CIFAR-10"}),
}

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
    names = sorted({found.name for found in references if found.name in _TABLES})
    tables = {name: _rows(connection, name, question) for name in names}
    concerned = {found: _concerned(found, question, runs, tables) for found in references}
    return (
        *_absent_lines([found for found in references if found.name not in tables], runs),
        *_empty_lines(tables.values()),
        *_unpublished_lines(connection, question, tables),
        *_stale_lines({run for found in concerned.values() for run in found}),
        *_coarse_lines(connection, question, concerned),
        *_bare_lines(question, concerned),
        *_unbounded_lines(connection, concerned),
    )


def _rows(connection: DuckDBPyConnection, table: str, question: Asked) -> list[tuple[str, bool]]:
    """(attack, whether it has run) of the rows of one of the `_TABLES` that the statement asks for."""
    sql = f"select r.attack, r.preset is not null from {_TABLES[table][0]} as r order by r.place, r.attack"
    rows = connection.execute(sql).fetchall()
    return [row for row in rows if row[0] in question.attacks or not question.attacks]


def _concerned(
    reference: Reference,
    question: Asked,
    runs: Iterable[_Run],
    tables: Mapping[str, Iterable[tuple[str, bool]]],
) -> list[_Run]:
    """The runs that a view or macro takes its rows from, as far as the statement tells."""
    if reference.name in tables:
        shown = {attack for attack, ran in tables[reference.name] if ran}
        return [run for run in runs if run.kind == "scores" and run.name in shown]
    if reference.name in _OF_ONE_ATTACK:
        kind = _OF_ONE_ATTACK[reference.name]
        return [run for run in runs if run.attack == reference.name and run.kind == kind]
    kind = "power" if reference.name == "power" else "scores"
    wanted = question.attacks if reference.attack is None else {reference.attack}
    return [run for run in runs if run.kind == kind and (run.attack in wanted or not wanted)]


def _absent_lines(references: Sequence[Reference], runs: Iterable[_Run]) -> Iterator[str]:
    """Attacks that the answer needs and that have not run: why it is empty."""
    if not references:
        return
    ran = sorted(run.attack for run in runs if run.kind != "power")
    needed = {found.name if found.name in _OF_ONE_ATTACK else found.attack for found in references}
    wanted = sorted(name for name in needed if name is not None and name not in ran)
    if wanted or not ran:
        have = f"the attacks that have run are {name_some(ran)}" if ran else "no attack has run yet"
        yield f"{have}: `{_command(wanted or ['--all'])}` computes what this asks for"


def _empty_lines(tables: Iterable[Iterable[tuple[str, bool]]]) -> Iterator[str]:
    """Of the tables of which every attack has a row: which have not run."""
    for rows in tables:
        empty = [attack for attack, ran in rows if not ran]
        names = list(dict.fromkeys(empty))
        if empty:
            which = "1 row is" if len(empty) == 1 else f"{len(empty)} rows are"
            yield (
                f"{which} empty because {name_some(names)} {'has' if len(names) == 1 else 'have'} not run: "
                f"`{_command(names)}` (or --all) fills what the store has the data for"
            )


def _unpublished_lines(
    connection: DuckDBPyConnection, question: Asked, tables: Iterable[str]
) -> Iterator[str]:
    """Why the columns of published values, where they are asked for, are empty."""
    for table in tables:
        known = _TABLES[table][1]
        shown = _shown(Reference(table), question)
        ((name, key),) = connection.execute("select i.name, i.dataset from stored.info as i").fetchall()
        if key not in known and any(column.startswith("published_") for column in shown):
            *others, last = known.values()
            listed = f"{', '.join(others)} and {last}" if others else last
            called = f"is called '{name}'" if name else "has no name"
            yield f"no published values: they are for {listed}, and the store's data set {called}"


def _stale_lines(runs: Iterable[_Run]) -> Iterator[str]:
    for group in _by_kind(run for run in runs if run.stale):
        names = [run.name for run in group]
        are, they, them = ("is", "it", "it") if len(names) == 1 else ("are", "they", "them")
        yield (
            f"{name_some(names)} {are} out of date: models were committed or discarded since {they} ran; "
            f"`{_rerun(group)}` brings {them} up to date"
        )


def _by_kind(runs: Iterable[_Run]) -> Iterator[list[_Run]]:
    """The runs by name, those of few models apart: it is another command that computes them."""
    ordered = sorted(runs, key=lambda run: run.name)
    for few in (False, True):
        group = [run for run in ordered if (run.kind == "power") == few]
        if group:
            yield group


def _rerun(group: Sequence[_Run]) -> str:
    """The command that computes these runs again, as `_by_kind` groups them."""
    names = sorted({run.attack for run in group})
    return _command(names) + (" --models …" if group[0].kind == "power" else "")


def _command(names: Sequence[str], most: int = 8) -> str:
    return f"lirastore attack STORE {' '.join(names[:most])}{' …' if len(names) > most else ''}"


def _bare_lines(question: Asked, concerned: Mapping[Reference, Iterable[_Run]]) -> Iterator[str]:
    """Attacks whose bootstrap intervals are asked for and have not been computed."""
    bare = {
        run
        for reference, runs in concerned.items()
        if any("_boot_" in column for column in _shown(reference, question))
        for run in runs
        if not run.evaluated
    }
    for group in _by_kind(bare):
        names = [run.name for run in group]
        yield f"no bootstrap intervals of {name_some(names)} have been computed: `{_rerun(group)}` does so"


def _unbounded_lines(
    connection: DuckDBPyConnection, concerned: Mapping[Reference, Iterable[_Run]]
) -> Iterator[str]:
    """Attacks that view epsilon_lower_bound says nothing of."""
    asked = {
        run.name for found, runs in concerned.items() if found.name == "epsilon_lower_bound" for run in runs
    }
    if asked:
        bounded = connection.execute("select distinct b.attack from stored.epsilon as b").fetchall()
        names = sorted(asked - {attack for (attack,) in bounded})
        if names:
            yield (
                f"there are no bounds of {name_some(names)}: run `lirastore attack STORE --all`: bounds are "
                "computed with the intervals"
            )


def _shown(reference: Reference, question: Asked) -> list[str]:
    """The columns of a view or macro that the statement asks for."""
    return [name for name in _columns(reference) if question.columns is None or name in question.columns]


def _columns(reference: Reference) -> list[str]:
    return [name for found in describe() if found.name == reference.name for name, _ in found.columns]


# --- rates ----------------------------------------------------------------------------------------


def _coarse_lines(
    connection: DuckDBPyConnection, question: Asked, concerned: Mapping[Reference, Iterable[_Run]]
) -> Iterator[str]:
    """FPRs at which fewer than one false positive is expected: what is said there means little."""
    for by_model, bounded in product((False, True), (True, False)):
        pairs = {
            (level, run)
            for reference, runs in concerned.items()
            for level in _levels(reference, question)
            if (reference.name in _BY_TARGET, _has_intervals(reference)) == (by_model, bounded)
            for run in runs
        }
        if pairs:
            nonmembers = _nonmembers(connection, {run for _, run in pairs}, by_model)
            yield from _too_fine(
                nonmembers,
                {(level, run.name) for level, run in pairs},
                " of a single model" if by_model else "",
                "TPRs at it have no interval" if bounded else "what is realised there is a count of few",
            )


def _has_intervals(reference: Reference) -> bool:
    return any(name.endswith("_lo") for name in _columns(reference))


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


def _too_fine(
    nonmembers: Mapping[str, int], pairs: Collection[tuple[float, str]], where: str, so: str
) -> Iterator[str]:
    for level in sorted({level for level, _ in pairs}, reverse=True):
        counts = {name: count for name, count in nonmembers.items() if (level, name) in pairs}
        coarse = {name: count for name, count in counts.items() if not count or 1 / count > level}
        if coarse:
            low, high = min(coarse.values()), max(coarse.values())
            some = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            yield (
                f"{level * 100:.6g}% FPR is finer than {some} non-members{where} resolve: {so} "
                f"({name_some(list(coarse))})"
            )

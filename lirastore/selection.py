"""Which attacks a command line means: by name, by file, all that can run, a new variant, with limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import click

from lirastore import diagnostics

if TYPE_CHECKING:
    from lirastore.attacks import Attack
    from lirastore.experiment import Store

__all__ = ["Selection"]


@dataclass(frozen=True)
class Selection:
    """What `lirastore attack` was told of the attacks; `options` are those that it runs them with.

    `queries` are a coordinate of a new variant, or with `models` a list of limits.
    """

    names: tuple[str, ...]
    everything: bool
    signal: str | None
    test: str | None
    variance: str | None
    centre: str | None
    name: str | None
    models: list[int] | None
    queries: list[int | str] | None
    options: Mapping[str, Any]

    @classmethod
    def of(cls, names: tuple[str, ...], everything: bool, given: Mapping[str, Any]) -> Selection:
        """Of the command's parameters; those that do not choose attacks become `options`."""
        own = {item.name for item in fields(cls)} - {"names", "everything", "options"}
        chosen = {key: value for key, value in given.items() if key in own}
        options = {key: value for key, value in given.items() if key not in own}
        return cls(names, everything, **chosen, options=options)

    @property
    def limits(self) -> dict[str, Any]:
        """The arguments `models` and `queries` of `Store.attack`; none without --models."""
        if self.models is None:
            return {}
        if self.everything:
            raise click.UsageError("--models is for attacks given by name; leave out --all")
        return {"models": self.models, "queries": self.queries or ["all"]}

    def attacks(self, store: Store) -> list[str | Attack]:
        """What is to be run. Raises click.UsageError for what cannot be meant, or if nothing is chosen."""
        chosen: list[str | Attack] = list(self.names)
        coordinates = self._coordinates()
        if self.signal or self.test or coordinates:
            chosen.append(self._variant(coordinates))
        elif self.name:
            chosen = [self._renamed(self.name)]
        if self.everything:
            chosen += [able for able in self._runnable(store) if able not in self.names]
        if not chosen and not self.everything:
            raise click.UsageError(self._what_can_run(store))
        return chosen

    def _coordinates(self) -> dict[str, str]:
        given = {"variance": self.variance, "centre": self.centre, "queries": self._query_coordinate()}
        return {key: value for key, value in given.items() if value}

    def _query_coordinate(self) -> str | None:
        if self.queries is None or self.models is not None:
            return None
        if self.queries not in (["first"], ["all"]):
            asked = ",".join(map(str, self.queries))
            raise click.UsageError(
                f"--queries {asked}: a new variant takes `first` or `all`; numbers of queries, and lists, "
                "go with --models"
            )
        return str(self.queries[0])

    def _variant(self, coordinates: dict[str, Any]) -> Attack:
        from lirastore.attacks import compose

        if not (self.name and self.signal and self.test):
            raise click.UsageError("a new variant needs all of --name, --signal and --test")
        if self.options["preset"] != "paper":
            raise click.UsageError(
                f"--preset {self.options['preset']} is for named attacks; a new variant states its own "
                "numerics"
            )
        return compose(_free(self.name), signal=self.signal, test=self.test, **coordinates)

    def _renamed(self, name: str) -> Attack:
        from lirastore.attacks import resolve

        if len(self.names) != 1:
            raise click.UsageError(f"--name {name} is for one attack, or for a variant (--signal and --test)")
        attack = resolve(self.names[0], preset=self.options["preset"])
        if attack.kind != "scores":
            raise click.UsageError(
                f"--name {name}: {attack.name} scores no targets, and the views show its results under its "
                "own name only; leave out --name"
            )
        return replace(attack, name=_free(name))

    def _feasible(self, store: Store) -> tuple[list[str], dict[str, str]]:
        kept = ("preset", "equal_counts", "skip_unattackable")
        return store.attacks(**{key: self.options[key] for key in kept})

    def _runnable(self, store: Store) -> list[str]:
        able, skipped = self._feasible(store)
        for why in dict.fromkeys(skipped.values()):
            names = [name for name in skipped if skipped[name] == why]
            diagnostics.say(f"skipped {', '.join(names)}: {why}")
        return able

    def _what_can_run(self, store: Store) -> str:
        able, skipped = self._feasible(store)
        lines = ["which attack? This store has the data for: " + ", ".join(able) + "; or --all."]
        lines += [f"Not for {name}: {why}" for name, why in skipped.items()]
        return "\n".join(lines)


def _free(name: str) -> str:
    """A name that is no built-in attack's: its results would pass for that attack's."""
    from lirastore.attacks import registered

    if name in registered():
        raise click.UsageError(f"--name {name} is a named attack; choose another name for the variant")
    return name

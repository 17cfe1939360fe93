"""What a run is of: the store as it was when it began, and what makes two runs the same work."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lirastore import __version__
from lirastore.errors import MissingData, ModelNotCommitted, name_some
from lirastore.results import Result

if TYPE_CHECKING:
    from lirastore.attacks import Attack
    from lirastore.engine.planning import Options, Plan
    from lirastore.moments import EqualCounts
    from lirastore.store import LogitStore

__all__ = ["Snapshot", "identity", "run_id", "up_to_date"]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The store as it was when the run began; (M,) models, (M, E) member, (E,) labels and attackable.

    even_counts: how equal counts are to be taken, by the design that the membership shows.
    equal_counts: the same if the run takes them, else False.
    """

    models: np.ndarray[Any, Any]
    digests: Mapping[int, str]
    set_digest: str
    member: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    attackable: np.ndarray[Any, Any] | None
    even_counts: EqualCounts
    equal_counts: EqualCounts

    @classmethod
    def take(cls, store: LogitStore, options: Options) -> Snapshot:
        models, digest = store.committed(), store.set_digest()
        while not np.array_equal(models, again := store.committed()):  # a commit came in between
            models, digest = again, store.set_digest()
        if not len(models):
            raise MissingData(f"{store.path} has no committed model yet; train or ingest models first")
        member, attackable = store.membership(models), store.attackable()
        even: EqualCounts = "fixed" if _fixed_counts(store, member, attackable) else True
        equal = even if options.equal_counts else False
        return cls(models, _digests(store), digest, member, store.labels(), attackable, even, equal)

    def counts_of(self, attack: Attack) -> EqualCounts:
        """How many models an attack takes into its statistics."""
        return self.even_counts if attack.equal_counts else self.equal_counts

    def check_unchanged(self, store: LogitStore) -> None:
        """Raises ModelNotCommitted if a model was withdrawn meanwhile, even if it was written again: some
        blocks may have been read before and others after. Models that were added do not matter.
        """
        now = _digests(store)
        changed = [model for model in self.models.tolist() if now.get(model) != self.digests.get(model)]
        if changed:
            raise ModelNotCommitted(
                f"models {name_some(changed)} of {store.path} were discarded or written again while the "
                "attack ran; its results were not published: run it again"
            )


def _fixed_counts(
    store: LogitStore, member: np.ndarray[Any, Any], attackable: np.ndarray[Any, Any] | None
) -> bool:
    """Whether every example is in the same number of models, of the committed or of the planned ones."""
    return _same_counts(member, attackable) or (
        len(member) < store.info.models
        and _same_counts(store.membership(np.arange(store.info.models)), attackable)
    )


def _same_counts(member: np.ndarray[Any, Any], attackable: np.ndarray[Any, Any] | None) -> bool:
    n_in = np.count_nonzero(member, axis=0)
    used = n_in if attackable is None else n_in[attackable]
    return used.size > 0 and bool((used == used[0]).all())


def _digests(store: LogitStore) -> dict[int, str]:
    return {model: commit.digest for model, commit in store.commits().items()}


def identity(attack: Attack, snapshot: Snapshot, options: Options) -> dict[str, Any]:
    """The fields of a result that decide whether it is up to date, if the attack is `described`."""
    return {
        "attack": attack.name,
        "kind": attack.kind,
        "parameters": _stamped(attack),
        "preset": str(attack.parameters.get("preset", options.preset)),
        "set_digest": snapshot.set_digest,
        "equal_counts": options.equal_counts or attack.equal_counts or attack.kind == "power",
        "seed": options.seed,
        "options": {"source": options.source, "skip_unattackable": options.skip_unattackable},
        "library_version": __version__,
    }


def _stamped(attack: Attack) -> dict[str, Any]:
    """The parameters as JSON has them, with `separate` if the attack is."""
    own: dict[str, Any] = json.loads(json.dumps(dict(attack.parameters)))
    return {**own, "separate": True} if attack.separate else own


def up_to_date(attack: Attack, result: Result | None, identity: Mapping[str, Any], lira: Path) -> bool:
    """Whether a result is what the attack would give, and its parts are there, of the size they had.

    Never of an attack that is not `described`: nothing tells whether its function still does what it did.
    """
    if result is None or not attack.described:
        return False
    if any(getattr(result, key) != value for key, value in identity.items()):
        return False
    sizes = [part.bytes for part in result.objects.values()]
    return all(
        file.is_file() and file.stat().st_size == size
        for file, size in zip(result.files(lira), sizes, strict=True)
    )


def run_id(attack: Attack, identity: Mapping[str, Any], plan: Plan, replaces: str | None) -> str:
    """The same for the same work cut the same way, so that an interrupted run finds its parts again.

    A forced run is told apart by the run that it `replaces`, whose files stay as they are until it is done.
    An attack that is not `described` has a new one each time: what an earlier process left may be another
    computation's.
    """
    import pyarrow

    if not attack.described:
        return secrets.token_hex(10)
    versions = {"numpy": np.__version__, "pyarrow": pyarrow.__version__}
    cuts = {"blocks": plan.blocks, "periods": plan.grid.periods, "tile": plan.grid.tile}
    document = {**identity, **versions, **cuts, "replaces": replaces}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:20]

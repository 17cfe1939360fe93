"""What every pipeline stands on: recipes, recorded in the store; trainers; reproducible random numbers.

A pipeline is a file with two functions. `prepare` makes the store, or opens it after checking that it holds
what is asked for; `train` trains the models that are not committed yet. Between them they need a `Recipe`, a
frozen dataclass of plain values, and a `Trainer`. Running trainers, one or several side by side, is in
`lirastore.pipelines.running`.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

import lirastore
from lirastore.errors import InputError, MissingDependency, StoreExists, name_some

try:
    import torch
except ImportError as missing:
    raise MissingDependency(f"pipelines need torch ({missing}); pip install 'lirastore[train]'") from missing

__all__ = ["Epoch", "Trainer", "autocast", "generator", "one_thread", "prepare", "settings"]

R = TypeVar("R")

Epoch = Callable[[torch.Tensor | float, int], None]
"""epoch(mean training loss, how many images or tokens): said after each epoch. TrainingDiverged if the loss
is not finite; whatever went wrong with storing the model before."""


class Trainer(ABC):
    """One data set on one device, for one store: made once in each process that trains."""

    unit: ClassVar[str] = "images"
    """What throughput is counted in."""

    strict: ClassVar[bool] = False
    """Whether torch is to refuse operations without a deterministic implementation, instead of warning: on a
    GPU attention computes its gradients in a fixed order only then."""

    @abstractmethod
    def fit(self, model: int, epoch: Epoch) -> Any:
        """Trains `model` on its part of the data, `store.keep_mask(model)`, and returns the network.

        The result depends on the store's seed and on `model`, not on who else is trained, or before; and in
        the last bits of sums on the device, and on how many threads it computes with.
        """

    @abstractmethod
    def write(self, net: Any, model: int, writer: lirastore.ModelWriter) -> None:
        """Streams what the network says of every example, and fills `writer.metadata`."""


# --- recipes ------------------------------------------------------------------------------------


def prepare(
    path: str | Path,
    *,
    pipeline: str,
    recipes: Mapping[str, R],
    recipe: str | None,
    changes: Mapping[str, object],
    models: int | None,
    seed: int | None,
    plan: Callable[[R], dict[str, Any]],
) -> lirastore.Store:
    """Makes the store at `path`, or opens the one that is there if it holds what is asked for.

    recipe: a name in `recipes`, whose values are dataclasses with a field `models`: how many are planned
    unless `models` says it. changes: fields of the recipe with other values. plan: recipe -> the other
    arguments of `lirastore.create`. A recipe, a number of models or a seed that is None is not asked for: any
    will do in a store that exists.

    All of it is recorded in the store (`store.info.training`). Raises InputError for names and values that
    do not fit, and for a store of another experiment.
    """
    if not Path(path).exists():
        if recipe is None and len(recipes) == 1:
            (recipe,) = recipes
        if recipe is None or recipe not in recipes:
            raise InputError(f"{_recipe_given(recipe)}: expected one of {', '.join(recipes)}")
        chosen = _changed(recipes[recipe], {**changes, **({} if models is None else {"models": models})})
        try:
            return _create(path, pipeline, recipe, chosen, 0 if seed is None else seed, plan(chosen))
        except StoreExists:
            pass  # another job of the same experiment was faster
    store = lirastore.open(path)
    _refuse_another(store, pipeline, {"recipe": recipe, "models": models, "seed": seed}, dict(changes))
    return store


def settings(store: lirastore.Store, kind: type[R]) -> R:
    """The recipe that the store was planned with. Raises InputError if another, or none, planned it."""
    recorded = _recorded(store).get("settings", {})
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    lacking = [name for name in names if name not in recorded]
    if lacking:
        raise InputError(
            f"{store.path} was planned without {name_some(lacking)}, which the recipe has now: train its "
            "models with the code that planned it"
        )
    return kind(**{name: recorded[name] for name in names})


def _recipe_given(recipe: str | None) -> str:
    return "a new store needs a recipe (--recipe)" if recipe is None else f"recipe {recipe!r}"


def _create(
    path: str | Path, pipeline: str, recipe: str, chosen: Any, seed: int, arguments: dict[str, Any]
) -> lirastore.Store:
    recorded = {
        "pipeline": pipeline,
        "recipe": recipe,
        **arguments.pop("training", {}),
        "settings": dataclasses.asdict(chosen),
    }
    return lirastore.create(path, **arguments, models=chosen.models, seed=seed, training=recorded)


def _changed(recipe: R, changes: Mapping[str, object]) -> R:
    """The recipe with some fields replaced; InputError for what is no field of it, or of another type."""
    kinds = typing.get_type_hints(type(recipe))
    unknown = [name for name in changes if name not in kinds]
    if unknown:
        raise InputError(
            f"the recipe has no {name_some(unknown)}; what can be set is {', '.join(sorted(kinds))}"
        )
    return dataclasses.replace(
        recipe,  # type: ignore[type-var]
        **{name: _fitting(name, value, kinds[name]) for name, value in changes.items()},
    )


def _fitting(name: str, value: object, kind: Any) -> object:
    """`value` if a field of that type takes it; an integer will do for a float."""
    allowed = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if type(value) in allowed:
        return value
    if float in allowed and type(value) is int:
        return float(value)
    wanted = " or ".join("None" if one is type(None) else one.__name__ for one in allowed)
    raise InputError(f"{name} = {value!r}: expected {wanted}")


def _recorded(store: lirastore.Store) -> Mapping[str, Any]:
    training = store.info.training
    if training is None or "pipeline" not in training:
        raise InputError(
            f"{store.path} was planned by no pipeline, so nothing says how its models are to be trained; "
            "let `lirastore train` make a store at another path"
        )
    return training


def _refuse_another(
    store: lirastore.Store, pipeline: str, asked: dict[str, object], changes: dict[str, object]
) -> None:
    recorded = _recorded(store)
    found = {
        **recorded.get("settings", {}),
        "pipeline": recorded["pipeline"],
        "recipe": recorded.get("recipe"),
        "models": store.info.models,
        "seed": store.info.design.get("seed"),
    }
    wanted = {"pipeline": pipeline, **asked, **changes}
    unknown = [name for name in wanted if name not in found]
    differing = [
        f"{name} {found[name]}, not {value}"
        for name, value in wanted.items()
        if (value is not None or name in changes) and name in found and found[name] != value
    ]
    if unknown:
        raise InputError(
            f"the recipe of {store.path} has no {name_some(unknown)}; what can be set is "
            f"{', '.join(sorted(recorded.get('settings', {})))}"
        )
    if differing:
        raise InputError(
            f"{store.path} holds another experiment than the one asked for: {'; '.join(differing)}. Leave "
            "these options out to go on with it, or choose another path"
        )


# --- on the device ------------------------------------------------------------------------------


def generator(seed: int, model: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The random numbers of one model: a function of (seed, model) and the kind of device alone."""
    state = np.random.SeedSequence([seed, model]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


@contextmanager
def one_thread() -> Iterator[None]:
    """More threads gain small products little on an idle machine and cost much on a busy one, where each
    product waits for the slowest of them; and how many there are shows in the last bits of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def autocast(device: torch.device, *, bf16: bool = True) -> AbstractContextManager[Any]:
    """Matrix products and convolutions in bfloat16, all else in float32; `bf16=False`: all in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)

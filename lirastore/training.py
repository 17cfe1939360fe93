"""`lirastore train`: finds a pipeline, lets it make or open the store, and trains what is left."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from lirastore.errors import InputError, name_some
from lirastore.experiment import Store, open

__all__ = ["PIPELINES", "load", "train"]

PIPELINES = ("cifar", "digits", "wikitext")
"""Those that come with lirastore."""

Options = Mapping[str, Any]


def train(
    path: Path, pipeline: str | None = None, *, planned: Options, files: Options, running: Options
) -> list[int]:
    """Makes the store at `path` if it is absent, trains the models not committed yet; returns their ids.

    pipeline: a name in `PIPELINES`, or the path of a Python file that defines `prepare` and `train` likewise;
    by default the one that planned the store. planned: options for `prepare`; running: for `train`; files:
    for whichever of them reads data.

    Raises InputError for options that the pipeline does not have, and whatever the pipeline raises.
    """
    name = pipeline or _planned_by(path)
    module = load(name)
    prepare, run = module.prepare, module.train
    _refuse_unknown(name, planned, prepare)
    _refuse_unknown(name, running, run)
    _refuse_unknown(name, files, prepare, run, named=True)
    if "device" in running:  # before anything is made
        importlib.import_module("lirastore.pipelines.running").place(running["device"])
    store: Store = prepare(path, **{**planned, **_known(prepare, files)})
    trained: list[int] = run(store, **running, **_known(run, files))
    return trained


def load(pipeline: str) -> ModuleType:
    """The module of a pipeline. Raises InputError unless there is one with `prepare` and `train`."""
    if pipeline in PIPELINES:
        module = importlib.import_module(f"lirastore.pipelines.{pipeline}")
    elif pipeline.endswith(".py"):
        module = _load_file(Path(pipeline))
    else:
        raise InputError(
            f"pipeline {pipeline!r}: expected {', '.join(PIPELINES)}, or the path of a file: path/to/mine.py"
        )
    lacking = [name for name in ("prepare", "train") if not callable(getattr(module, name, None))]
    if lacking:
        raise InputError(
            f"pipeline {pipeline} defines no {name_some(lacking)}: expected prepare(path, …), which returns "
            "the store, and train(store, …)"
        )
    return module


def _load_file(file: Path) -> ModuleType:
    """Imports a file as scripts in its directory would: so can the processes that it starts."""
    full = file.resolve()
    if not full.is_file():
        raise InputError(f"pipeline {file}: there is no such file")
    if "." in full.stem:
        raise InputError(f"pipeline {file}: a module's name has no dots; rename the file, as in mine.py")
    sys.path.insert(0, str(full.parent))
    module = importlib.import_module(full.stem)
    if Path(module.__file__ or "").resolve() != full:
        raise InputError(
            f"pipeline {file}: the name {full.stem!r} means {module.__file__} already; rename the file"
        )
    return module


def _planned_by(path: Path) -> str:
    if not path.exists():
        raise InputError(
            f"{path} does not exist: say which --pipeline is to make it: {', '.join(PIPELINES)}, or a file"
        )
    training = open(path).info.training or {}
    name = training.get("pipeline")
    if name not in PIPELINES:
        by = "no pipeline" if name is None else f"the pipeline {name!r}"
        raise InputError(f"{path} was planned by {by}: say which --pipeline is to train its models")
    return str(name)


def _refuse_unknown(
    pipeline: str, options: Options, *functions: Callable[..., Any], named: bool = False
) -> None:
    takes = _names if named else _takes
    unknown = [name for name in options if not any(takes(function, name) for function in functions)]
    if unknown:
        known = [name for function in functions for name in _options(function)]
        raise InputError(
            f"pipeline {pipeline} has no option {name_some(unknown)}; it takes {name_some(known, most=20)}"
        )


def _options(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]


def _known(function: Callable[..., Any], options: Options) -> dict[str, Any]:
    return {name: value for name, value in options.items() if _names(function, name)}


def _names(function: Callable[..., Any], name: str) -> bool:
    return name in _options(function)


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Whether it names it, or takes whatever comes: what may be a field of a recipe."""
    parameters = inspect.signature(function).parameters
    if name in parameters:
        return _names(function, name)
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())

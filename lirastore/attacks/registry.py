"""Attacks by name: built-in ones, those decorated with `@lirastore.attack`, functions in Python files."""

from __future__ import annotations

import hashlib
import inspect
import marshal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from lirastore.attacks import presets
from lirastore.attacks.block import Block
from lirastore.attacks.definition import Attack, MinimumCounts, check_name
from lirastore.attacks.summary import FirstPass
from lirastore.errors import AttackError, name_some

__all__ = ["attack", "load", "named", "registered", "resolve"]

Function = Callable[[Block], Any]

_user_attacks: dict[str, Attack] = {}


def attack(
    name: str,
    *,
    signals: Sequence[str] = ("scaled_logit",),
    summaries: Sequence[FirstPass] = (),
    minimum: MinimumCounts | None = None,
) -> Callable[[Function], Attack]:
    """Makes an attack of a function of a block, and registers it under `name`.

        @lirastore.attack("mine")
        def mine(block):                                   # (M, e): higher means member
            phi, loo = block.signal("scaled_logit"), block.loo("scaled_logit")
            return (phi - loo.mean_out).mean(axis=2)

    The function takes a `Block` and returns (M, e) real numbers, one per model as target and example, finite
    for every example that meets `minimum` (by default it must cope with any number of models). The decorated
    name is an `Attack`, which can still be called with a block. It is computed anew each time that it is
    run: what a function does hangs on all that it refers to, and no digest of it is whole. Its results are
    stamped with the sha256 of the source file (of the notebook cell, where there is no file), to tell where
    they are from. Decorating the same function again replaces it.

    Raises:
        AttackError: the name is malformed, that of a built-in attack, or another function's.
    """
    check_name(name)

    def decorate(function: Function) -> Attack:
        if not inspect.isfunction(function):
            raise AttackError(
                f"@lirastore.attack({name!r}) decorates a function of a block; got {function!r}"
            )
        made = Attack(
            name=name,
            function=function,
            signals=tuple(signals),
            summaries=tuple(summaries),
            minimum=minimum or MinimumCounts(),
            parameters={"function": function.__qualname__, **_source(function)},
            doc=inspect.getdoc(function) or "",
        )
        _refuse_taken(made)
        _user_attacks[name] = made
        return made

    return decorate


def registered() -> dict[str, Attack]:
    """Every named attack, with the numerics of the preset `paper`, then the decorated ones; by name."""
    return {**presets.attacks("paper"), **_user_attacks}


def named(name: str, *, preset: str = presets.DEFAULT) -> Attack:
    """The attack of that name. `preset`: whose numerics a built-in one follows; decorated attacks have their
    own.

    Raises:
        AttackError: no such attack or preset, or the preset does not define that attack.
    """
    built_in = presets.attacks(preset)
    if name in built_in:
        return built_in[name]
    if name in _user_attacks:
        return _user_attacks[name]
    having = [other for other in presets.PRESETS if name in presets.attacks(other)]
    if having:
        raise AttackError(
            f"attack {name!r} has no {preset!r} numerics; that preset defines {', '.join(built_in)}. "
            f"Run it with the preset {' or '.join(map(repr, having))}"
        )
    raise AttackError(
        f"no attack is called {name!r}; expected one of {', '.join(registered())}, "
        "or path/to/file.py:function"
    )


def resolve(attack: str | Attack, *, preset: str = presets.DEFAULT) -> Attack:
    """An `Attack` as it is, a name by `named`, and `path/to/file.py:function` by `load`."""
    if isinstance(attack, Attack):
        return attack
    if not isinstance(attack, str):
        raise AttackError(
            f"{attack!r} is no attack: expected a name, path/to/file.py:function, or a function decorated "
            "with @lirastore.attack(…)"
        )
    return load(attack) if ":" in attack else named(attack, preset=preset)


def load(location: str) -> Attack:
    """Executes a Python file and returns one of its functions as an attack: `path/to/file.py:function`.

    The file is run once, as a module of its own, from the very bytes whose sha256 is stamped on the results.
    A plain function is called what it is called in the file and reads `scaled_logit`; one that is decorated
    with `@lirastore.attack` is whatever its decorator says. Like that one, it is computed anew each time.

    Raises:
        AttackError: not of that form, no such file or function, the file fails, or the name is a built-in
    one's."""
    path, function = _split(location)
    source = _read(path)
    module = _execute(path, source)
    found = getattr(module, function, None)
    if isinstance(found, Attack):
        return found
    if not inspect.isfunction(found):
        has = [key for key, value in vars(module).items() if _defined_in(module, value)]
        raise AttackError(f"{path} defines no function {function!r}; it defines {name_some(has) or 'none'}")
    made = Attack(
        name=check_name(function),
        function=found,
        parameters={"function": function, "source_sha256": _sha256(source)},
        doc=inspect.getdoc(found) or "",
    )
    _refuse_taken(made)
    return made


def _refuse_taken(made: Attack) -> None:
    """Results are stored under an attack's name: two computations must not share one unnoticed."""
    if presets.defines(made.name):
        raise AttackError(f"{made.name!r} is the name of a built-in attack; choose another name")
    other = _user_attacks.get(made.name)
    if other is not None and _origin(other) != _origin(made):
        raise AttackError(
            f"attack {made.name!r} is {_origin(other)} already; choose another name for {_origin(made)}"
        )


def _origin(attack: Attack) -> str:
    return f"{attack.function.__module__}.{attack.function.__qualname__}"


def _source(function: Function) -> dict[str, str]:
    """What identifies a decorated function's code: its file, its cell, or at a bare prompt its bytecode."""
    module = sys.modules.get(function.__module__)
    if isinstance(module, _FileModule):
        return {"source_sha256": _sha256(module.source)}
    try:
        file = inspect.getsourcefile(function)
        if file is not None and Path(file).is_file():
            return {"source_sha256": _sha256(Path(file).read_bytes())}
        return {"source_sha256": _sha256(inspect.getsource(function).encode())}
    except (OSError, TypeError):
        return {"bytecode_sha256": _sha256(marshal.dumps(function.__code__))}


def _sha256(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()


class _FileModule(ModuleType):
    """A user's file as a module, with the bytes that were executed."""

    source: bytes


def _split(location: str) -> tuple[Path, str]:
    file, _, function = location.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise AttackError(f"attack {location!r}: expected path/to/file.py:function")
    return Path(file), function


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AttackError(f"cannot read the attack file {path}: {error.strerror}") from error


def _execute(path: Path, source: bytes) -> _FileModule:
    """Runs the file under a name that no import means; dataclasses and pickle look it up in sys.modules."""
    full = path.resolve()
    module = _FileModule(f"_lirastore_attack_{full.stem}_{_sha256(str(full).encode())[:12]}")
    module.__file__ = str(full)
    module.source = source
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(full), "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        _restore(module.__name__, before)
        if isinstance(error, (AttackError, KeyboardInterrupt)):
            raise
        raise AttackError(f"the attack file {path} fails: {_where(error, str(full))}") from error
    return module


def _restore(name: str, before: ModuleType | None) -> None:
    if before is None:
        del sys.modules[name]
    else:
        sys.modules[name] = before


def _where(error: BaseException, file: str) -> str:
    """The exception and the line of the user's file that it comes from."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    at = "" if line is None else f" (line {line})"
    return f"{type(error).__name__}: {error}{at}"


def _defined_in(module: ModuleType, value: Any) -> bool:
    if isinstance(value, Attack):
        value = value.function
    return inspect.isfunction(value) and value.__module__ == module.__name__

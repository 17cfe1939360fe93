"""Whose numerics the named attacks follow: the papers', or those of another code, for comparisons with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

from lirastore.attacks import carlini_code, leakpro_code, misleading_evals, named, tf_library
from lirastore.attacks.definition import Attack
from lirastore.errors import AttackError

__all__ = ["DEFAULT", "PRESETS", "attacks", "defines"]

DEFAULT = "paper"

PRESETS: Mapping[str, Callable[[], dict[str, Attack]]] = MappingProxyType(
    {
        "paper": named.attacks,
        "carlini-code": carlini_code.attacks,
        "tf-library": tf_library.attacks,
        "misleading-evals": misleading_evals.attacks,
        "leakpro": leakpro_code.attacks,
    }
)


@cache
def attacks(preset: str = DEFAULT) -> Mapping[str, Attack]:
    """name -> Attack: the attacks that a preset defines.

    Raises:
        AttackError: no such preset.
    """
    if preset not in PRESETS:
        raise AttackError(f"preset {preset!r}: expected one of {', '.join(PRESETS)}")
    return MappingProxyType(PRESETS[preset]())


def defines(name: str) -> bool:
    """Whether an attack is called that in any preset: nobody else's may be."""
    return any(name in attacks(preset) for preset in PRESETS)

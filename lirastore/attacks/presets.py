"""Whose numerics the named attacks follow: the papers', or those of another code, for comparisons with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

from lirastore.attacks import carlini_code, named
from lirastore.attacks.block import Attack
from lirastore.errors import AttackError

__all__ = ["DEFAULT", "PRESETS", "attacks"]

DEFAULT = "paper"

PRESETS: Mapping[str, Callable[[], dict[str, Attack]]] = MappingProxyType(
    {"paper": named.attacks, "carlini-code": carlini_code.attacks}
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

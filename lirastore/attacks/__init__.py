"""Attacks: pure functions of what a store holds. Every score is oriented so that higher means member."""

from __future__ import annotations

from lirastore.attacks.algebra import compose
from lirastore.attacks.block import Attack, Block, MinimumCounts, Summary, check_name, check_scores, stages
from lirastore.attacks.registry import attack, load, named, registered, resolve

__all__ = [
    "Attack",
    "Block",
    "MinimumCounts",
    "Summary",
    "attack",
    "check_name",
    "check_scores",
    "compose",
    "load",
    "named",
    "registered",
    "resolve",
    "stages",
]

"""Attacks: pure functions of what a store holds. Every score is oriented so that higher means member."""

from __future__ import annotations

from lirastore.attacks.algebra import compose
from lirastore.attacks.block import Block
from lirastore.attacks.definition import Attack, MinimumCounts, check_name, check_scores
from lirastore.attacks.registry import attack, load, named, registered, resolve
from lirastore.attacks.summary import Facts, FirstPass, PerTarget, Sizes, Summary, TargetRow, stages

__all__ = [
    "Attack",
    "Block",
    "Facts",
    "FirstPass",
    "MinimumCounts",
    "PerTarget",
    "Sizes",
    "Summary",
    "TargetRow",
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

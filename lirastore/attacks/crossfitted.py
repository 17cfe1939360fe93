"""The attacks that learn something from the other folds of models, or belong with one that does."""

from __future__ import annotations

from lirastore.attacks.definition import Attack
from lirastore.attacks.entropy import MODIFIED_ENTROPY
from lirastore.attacks.long import LONG
from lirastore.attacks.merlin import MERLIN, MORGAN
from lirastore.attacks.quantile import QUANTILE
from lirastore.attacks.shokri import SHOKRI

__all__ = ["ATTACKS"]

ATTACKS: tuple[Attack, ...] = (SHOKRI, MERLIN, MORGAN, MODIFIED_ENTROPY, LONG, QUANTILE)

"""Which of the paper's data sets a store is of, told by the name that it was given."""

from __future__ import annotations

import re

__all__ = ["dataset_key"]

_KEYS = {
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "wikitext103": "wikitext103",
    "wt103": "wikitext103",
    "purchase100": "purchase100",
}


def dataset_key(name: str) -> str | None:
    """`cifar10`, `cifar100`, `wikitext103` or `purchase100` if the name says so, else None.

    The first words that make one of these count: `CIFAR-10`, `cifar_10, fast recipe`, `WikiText-103 (part)`.
    """
    words = re.findall(r"[a-z]+|\d+", name.lower())
    for first, word in enumerate(words):
        number = words[first + 1] if first + 1 < len(words) and words[first + 1].isdigit() else ""
        if word + number in _KEYS:
            return _KEYS[word + number]
    return None

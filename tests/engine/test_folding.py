"""States are merged over one fixed tree, whoever finishes first, and few of them are held."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lirastore.engine.folding import Fold


def tree(earlier: str, later: str) -> str:
    return f"({earlier}{later})"


def folded(blocks: list[range], order: list[int]) -> str:
    """All blocks folded each by itself, then absorbed in some order."""
    whole: Fold[str] = Fold(tree)
    for index in order:
        part = Fold(tree)
        for tile in blocks[index]:
            part.add(tile, f" {tile} ")
        whole.absorb(part)
    return whole.result()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_same_whatever_the_blocks_and_their_order(sizes: list[int], random) -> None:
    bounds = np.cumsum([0, *sizes]).tolist()
    blocks = [range(start, stop) for start, stop in itertools.pairwise(bounds)]
    order = random.sample(range(len(blocks)), len(blocks))
    found = folded(blocks, order)
    assert found == folded([range(bounds[-1])], [0])
    assert [int(word) for word in found.replace("(", " ").replace(")", " ").split()] == list(
        range(bounds[-1])
    )


@pytest.mark.parametrize("start", [0, 1, 4095, 5000])
def test_a_run_of_tiles_is_held_as_few_states(start: int) -> None:
    fold: Fold[int] = Fold(lambda earlier, later: earlier + later)
    held = 0
    for tile in range(start, start + 10_000):
        fold.add(tile, 1)
        held = max(held, len(fold))
    assert held <= 2 * 14
    assert fold.result() == 10_000

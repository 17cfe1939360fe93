"""The strongest influences against all of them, computed one pair at a time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from attack_harness import Experiment, membership, summarise
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lirastore.attacks import named
from lirastore.attacks.influence import TOP, influence_block

Bool = npt.NDArray[np.bool_]
Row = tuple[int, int, float]


def naive(member: Bool, correct: Bool) -> list[Row]:
    """(example, other, influence) in the order that is promised; compared as fractions, so that ties are."""
    rows: list[Row] = []
    for other in range(member.shape[1]):
        found = [
            (naive_influence(member[:, example], correct[:, other]), example)
            for example in range(member.shape[1])
            if example != other and 0 < member[:, example].sum() < len(member)
        ]
        best = sorted((-value, example) for value, example in found if value > 0)[:TOP]
        rows += [(example, other, float(-value)) for value, example in best]
    return rows


def naive_influence(inside: Bool, right: Bool) -> Fraction:
    with_it, without = right[inside], right[~inside]
    return Fraction(int(with_it.sum()), len(with_it)) - Fraction(int(without.sum()), len(without))


def found(member: Bool, correct: Bool, tile: int = 7) -> list[Row]:
    signal = correct.astype(np.float32)[:, :, None]
    experiment = Experiment(member, {"correct": signal}, label=np.zeros(member.shape[1], np.int64))
    attack = named("influence").on(experiment.facts())
    summaries = summarise(attack, experiment, tile)
    rows: list[Row] = []
    for block in experiment.blocks(tile, summaries, {"correct"}):
        columns = attack(block)
        assert list(columns) == ["example", "other", "influence"]
        assert [column.dtype for column in columns.values()] == [np.int64, np.int64, np.float64]
        rows += zip(*(column.tolist() for column in columns.values()), strict=True)
    return rows


def answers(models: int, examples: int, seed: int) -> Bool:
    rng = np.random.default_rng([seed, 9])
    return rng.random((models, examples)) < rng.random(examples)


@pytest.mark.parametrize("design", ["balanced", "bernoulli", "sparse", "dense"])
@pytest.mark.parametrize("models", [3, 8, 21])
def test_it_is_the_best_of_all_pairs(models: int, design: str) -> None:
    member, correct = membership(design, models, 45, seed=models), answers(models, 45, models)
    assert found(member, correct) == naive(member, correct)


@pytest.mark.parametrize("models", [63, 64, 65, 130, 254, 255, 256, 300])
def test_any_number_of_models(models: int) -> None:
    """Words of 64 bits, counts of 8 and of 16 bits."""
    member, correct = membership("bernoulli", models, 24, seed=1), answers(models, 24, 1)
    correct[:, 3] = member[:, 5]  # an influence of 1: the counts reach their ends
    rows = found(member, correct)
    assert rows == naive(member, correct)
    assert (5, 3, 1.0) in rows


def test_more_examples_than_the_first_runs() -> None:
    member, correct = membership("bernoulli", 12, 200, seed=5), answers(12, 200, 5)
    rows = found(member, correct, tile=50)
    assert rows == naive(member, correct)
    assert rows == found(member, correct, tile=1) == found(member, correct, tile=200)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 6), st.integers(1, 40))
def test_ties_and_degenerate_columns(data: st.DataObject, models: int, examples: int) -> None:
    member = data.draw(hnp.arrays(np.bool_, (models, examples)))
    correct = data.draw(hnp.arrays(np.bool_, (models, examples)))
    assert found(member, correct) == naive(member, correct)


def test_of_equal_influences_the_lower_ids_stay() -> None:
    rng = np.random.default_rng(0)
    member = np.repeat(rng.random((6, 1)).argsort(axis=0) < 3, 90, axis=1)
    correct = member.copy()
    rows = found(member, correct)
    assert [row[0] for row in rows if row[1] == 0] == list(range(1, TOP + 1))
    assert [row[0] for row in rows if row[1] == 80] == list(range(TOP))
    assert {row[2] for row in rows} == {1.0}


@pytest.mark.parametrize("right", [True, False])
def test_what_never_changes_is_not_influenced(right: bool) -> None:
    assert found(membership("bernoulli", 9, 30), np.full((9, 30), right)) == []


def test_a_chosen_block_is_the_definition() -> None:
    member, correct = membership("dense", 10, 30, seed=2), answers(10, 30, 2)
    member[:, 4], member[:, 5] = True, False
    examples, others = np.array([7, 4, 5, 12]), np.array([3, 7])
    result = influence_block(member[:, examples], correct[:, others])
    assert result.shape == (4, 2)
    assert np.isnan(result[1:3]).all()
    for row, example in ((0, 7), (3, 12)):
        for column, other in enumerate(others):
            expected = naive_influence(member[:, example], correct[:, other])
            assert result[row, column] == pytest.approx(float(expected), abs=1e-15)


def test_the_strongest_are_those_of_the_block() -> None:
    member, correct = membership("bernoulli", 16, 40, seed=8), answers(16, 40, 8)
    whole = influence_block(member, correct.astype(np.float32))
    for example, other, influence in found(member, correct):
        assert influence == whole[example, other]

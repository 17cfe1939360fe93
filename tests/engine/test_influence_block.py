"""The influence of a chosen block of examples, through the facade."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_stores import Shape, make, make_signal_only

from lirastore.errors import InputError, MissingData
from lirastore.experiment import Store


def test_it_is_a_difference_of_shares_of_correct_models(tmp_path: Path) -> None:
    made = make(tmp_path / "a.lira", Shape(models=8, examples=60))
    examples, others = np.array([3, 40]), np.array([7, 50, 8, 7])
    found = Store(made).influence(examples, others)
    assert found.dims == ("example", "other")
    assert found.other.values.tolist() == others.tolist()

    member, labels = made.membership(), made.labels()
    logits = np.stack([made.read("logits", model, 0, 60) for model in range(8)])
    correct = logits[:, :, 0].argmax(axis=2) == labels
    for example in examples.tolist():
        inside = member[:, example]
        expected = correct[inside][:, others].mean(axis=0) - correct[~inside][:, others].mean(axis=0)
        np.testing.assert_allclose(found.sel(example=example), expected, atol=1e-15)


@pytest.mark.parametrize("ids", [[60], [-1], [0.5], [[1, 2]]], ids=str)
def test_ids_that_are_none_are_refused(tmp_path: Path, ids: list[object]) -> None:
    made = Store(make(tmp_path / "a.lira", Shape(models=4, examples=60)))
    with pytest.raises(InputError, match="example"):
        made.influence(ids, [0])


def test_it_needs_logits(tmp_path: Path) -> None:
    made = Store(make_signal_only(tmp_path / "a.lira"))
    with pytest.raises(MissingData, match="logits"):
        made.influence([0], [1])

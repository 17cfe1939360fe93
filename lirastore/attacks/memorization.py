"""Memorization (Feldman & Zhang 2020): how much more often models that saw an example get it right."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks.block import Block
from lirastore.attacks.definition import Attack, MinimumCounts

__all__ = ["MEMORIZATION", "memorization"]

Float64 = npt.NDArray[np.float64]


def memorization(block: Block) -> dict[str, npt.NDArray[Any]]:
    """P_IN[correct] − P_OUT[correct] per example, over all committed models, on the first query.

    Feldman & Zhang, "What Neural Networks Memorize and Why", NeurIPS 2020, equation (1), estimated on the
    shadow models. It belongs to an example and no model is a target, so that nothing is left out.

    Returns: Columns p_correct_in, p_correct_out (shares of models, 0…1) and memorization (−1…1), each (e,)
        float64. An example that is in no model, or in all of them, has NaN."""
    correct = block.signal("correct", queries="first")[:, :, 0]
    p_in = _share(correct, block.member)
    p_out = _share(correct, ~block.member)
    return {"p_correct_in": p_in, "p_correct_out": p_out, "memorization": p_in - p_out}


def _share(correct: npt.NDArray[Any], side: npt.NDArray[np.bool_]) -> Float64:
    with np.errstate(invalid="ignore"):
        share: Float64 = np.sum(correct, axis=0, where=side, dtype=np.float64) / np.count_nonzero(
            side, axis=0
        )
    return share


MEMORIZATION = Attack(
    name="memorization",
    function=memorization,
    signals=("correct",),
    minimum=MinimumCounts(n_in=1, n_out=1, leave_one_out=False),
    kind="examples",
    parameters={"preset": "paper", "signal": "correct", "queries": "first"},
    described=True,
    doc=memorization.__doc__ or "",
)

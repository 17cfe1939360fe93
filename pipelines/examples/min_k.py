"""An attack of one's own on single tokens: lirastore attack tokens.lira pipelines/examples/min_k.py:min_k

For stores made with `lirastore train … --pipeline wikitext --tokens`.
"""

from __future__ import annotations

import numpy as np

import lirastore

SHARE = 0.25  # of a sequence's tokens


@lirastore.attack("min_k", signals=("token_logprob",))
def min_k(block):
    """(M, e): LiRA online on Min-K% Prob, the mean log p of a sequence's least likely tokens.

    Shi et al., "Detecting Pretraining Data from Large Language Models", ICLR 2024, calibrated per example by
    the models trained with it and without it. Higher means member.
    """
    tokens = block.signal("token_logprob", queries="tokens")  # (M, e, T)
    count = max(1, round(SHARE * tokens.shape[2]))
    lowest = np.partition(tokens, count - 1, axis=2)[:, :, :count]
    least = lowest.mean(axis=2, keepdims=True, dtype=np.float64)
    others = lirastore.Loo(least, block.member, others=block.others())
    inside, outside = (
        -0.5 * ((least - mean) ** 2 / (var + 1e-30) + np.log(var + 1e-30))
        for mean, var in ((others.mean_in, others.var_in), (others.mean_out, others.var_out))
    )
    return (inside - outside)[:, :, 0]

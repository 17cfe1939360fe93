"""The named attacks that are points of the algebra, as their papers have them. Higher always means member.

Two names with the same coordinates are one computation: the ablation rows of Carlini et al. 2022, table I and its
talk, each add one step to the row before, and some of them are published attacks.
"""

from __future__ import annotations

from lirastore.attacks.algebra import Variance, compose
from lirastore.attacks.block import Attack, Queries
from lirastore.attacks.memorization import MEMORIZATION

__all__ = ["attacks"]

_LIRA = 'Carlini et al., "Membership Inference Attacks From First Principles", IEEE S&P 2022'

# name: (signal, test, queries, variance, doc)
_POINTS: dict[str, tuple[str, str, Queries, Variance, str]] = {
    "loss": (
        "loss", "global", "first", "example",
        'Yeom et al., "Privacy Risk in Machine Learning", CSF 2018: −ℓ, the negated cross-entropy of the label, against '
        "one threshold for all examples. Needs no other model.",
    ),
    "sablayrolles": (
        "loss", "in-out-mean", "first", "example",
        'Sablayrolles et al., "White-box vs Black-box", ICML 2019 (MALT): −ℓ − (μ_in + μ_out)/2, a threshold per example '
        "half-way between the mean −ℓ of the IN and of the OUT models. Needs one of each.",
    ),
    "watson": (
        "loss", "out-mean", "first", "example",
        'Watson et al., "On the Importance of Difficulty Calibration in Membership Inference Attacks", ICLR 2022: '
        "−ℓ − μ_out, the mean −ℓ of the OUT models taken off. Needs one OUT model.",
    ),
    "ye": (
        "loss", "out-rank", "first", "example",
        'Ye et al., "Enhanced Membership Inference Attacks against Machine Learning Models", CCS 2022, Attack-R: '
        "F̂_out(−ℓ), the share of OUT models with a larger loss, interpolated. Needs one OUT model; its resolution is 1 "
        "over their number, so that targets outside their range tie.",
    ),
    "lira_online": (
        "scaled_logit", "gaussian-in-out", "all", "example",
        f"{_LIRA}, Algorithm 1: log N(φ; μ_in, σ_in) − log N(φ; μ_out, σ_out) with φ = log p_y/(1 − p_y), mean over the "
        "queries, a variance per example and query. Needs two IN and two OUT models.",
    ),
    "lira_offline": (
        "scaled_logit", "gaussian-out", "all", "example",
        f"{_LIRA}, section V.C: log Φ((φ − μ_out)/σ_out), one-sided, mean over the queries, a variance per example and "
        "query. Needs two OUT models.",
    ),
    "lira_online_fixed": (
        "scaled_logit", "gaussian-in-out", "all", "global",
        f"{_LIRA}, section VI.B: lira_online with one σ_in and one σ_out per query, pooled within examples over all of "
        "them; better than a variance per example below about 64 models. Needs one IN and one OUT model.",
    ),
    "lira_offline_fixed": (
        "scaled_logit", "gaussian-out", "all", "global",
        f"{_LIRA}, section VI.B: lira_offline with one σ_out per query, pooled within examples over all of them. Needs "
        "one OUT model.",
    ),
}  # fmt: skip

# name after "ablation_": (signal, test, queries, what the row adds). The chains are: no per-example threshold; OUT
# models only; IN and OUT models.
_ABLATIONS: dict[str, tuple[str, str, Queries, str]] = {
    "global_loss": ("loss", "global", "first", "the LOSS attack; the same as `loss`"),
    "global_phi": ("scaled_logit", "global", "first", "+ logit scaling"),
    "global_phi_all": ("scaled_logit", "global", "all", "+ multiple queries"),
    "out_loss": ("loss", "out-mean", "first", "+ per-example thresholds (OUT); the same as `watson`"),
    "out_phi": ("scaled_logit", "out-mean", "first", "+ logit scaling"),
    "out_gauss": ("scaled_logit", "gaussian-out", "first", "+ Gaussian likelihood"),
    "out_gauss_all": ("scaled_logit", "gaussian-out", "all", "+ multiple queries; the same as `lira_offline`"),
    "inout_loss": (
        "loss", "in-out-mean", "first", "+ per-example thresholds (IN & OUT); the same as `sablayrolles`",
    ),
    "inout_phi": ("scaled_logit", "in-out-mean", "first", "+ logit scaling"),
    "inout_gauss": ("scaled_logit", "gaussian-in-out", "first", "+ Gaussian likelihood"),
    "inout_gauss_all": (
        "scaled_logit", "gaussian-in-out", "all", "+ multiple queries; the same as `lira_online`",
    ),
}  # fmt: skip


def attacks() -> dict[str, Attack]:
    """name -> Attack: the published attacks, memorization, and the ablation rows."""
    made = [
        compose(name, signal=signal, test=test, queries=queries, variance=variance, doc=doc)
        for name, (signal, test, queries, variance, doc) in _POINTS.items()
    ]
    made.append(MEMORIZATION)
    made += [
        compose(f"ablation_{row}", signal=signal, test=test, queries=queries, doc=f"{_LIRA}, ablation: {adds}.")
        for row, (signal, test, queries, adds) in _ABLATIONS.items()
    ]
    return {attack.name: attack for attack in made}

"""The named attacks, as their papers have them; most are points of the algebra. Higher always means member.

Two names with the same coordinates are one computation: the ablation rows of Carlini et al. 2022 and its talk
each add one step to the row before, and some of them are published attacks.
"""

from __future__ import annotations

from lirastore.attacks.algebra import compose
from lirastore.attacks.block import Queries
from lirastore.attacks.crossfitted import ATTACKS as CROSS_FITTED
from lirastore.attacks.definition import Attack
from lirastore.attacks.influence import INFLUENCE
from lirastore.attacks.memorization import MEMORIZATION
from lirastore.attacks.population import YE_POPULATION
from lirastore.attacks.rmia import RMIA, RMIA_OFFLINE

__all__ = ["attacks"]

_LIRA = 'Carlini et al., "Membership Inference Attacks From First Principles", IEEE S&P 2022'

_PUBLISHED = (
    compose(
        "loss",
        signal="loss",
        test="global",
        queries="first",
        doc='Yeom et al., "Privacy Risk in Machine Learning", CSF 2018: −ℓ, the negated cross-entropy of the '
        "label, against one threshold for all examples. Needs no other model.",
    ),
    compose(
        "sablayrolles",
        signal="loss",
        test="in-out-mean",
        queries="first",
        doc='Sablayrolles et al., "White-box vs Black-box", ICML 2019: −ℓ − (μ_in + μ_out)/2, a threshold '
        "per example half-way between the mean −ℓ of the IN and of the OUT models. Needs one of each.",
    ),
    compose(
        "watson",
        signal="loss",
        test="out-mean",
        queries="first",
        doc='Watson et al., "On the Importance of Difficulty Calibration in Membership Inference Attacks", '
        "ICLR 2022: −ℓ − μ_out, the mean −ℓ of the OUT models taken off. Needs one OUT model.",
    ),
    compose(
        "ye",
        signal="loss",
        test="out-rank",
        queries="first",
        doc='Ye et al., "Enhanced Membership Inference Attacks against Machine Learning Models", CCS 2022, '
        "Attack-R: F̂_out(−ℓ), the share of OUT models with a larger loss, interpolated. Needs one OUT "
        "model; its resolution is 1 over their number, so that targets outside their range tie.",
    ),
    compose(
        "lira_online",
        signal="scaled_logit",
        test="gaussian-in-out",
        doc=f"{_LIRA}, Algorithm 1: log N(φ; μ_in, σ_in) − log N(φ; μ_out, σ_out) with φ = log p_y/(1 − "
        "p_y), mean over the queries, a variance per example and query. Needs two IN and two OUT models.",
    ),
    compose(
        "lira_offline",
        signal="scaled_logit",
        test="gaussian-out",
        doc=f"{_LIRA}, offline: log Φ((φ − μ_out)/σ_out), one-sided, mean over the queries, a variance per "
        "example and query. Needs two OUT models.",
    ),
    compose(
        "lira_online_fixed",
        signal="scaled_logit",
        test="gaussian-in-out",
        variance="global",
        doc=f"{_LIRA}: lira_online with one σ_in and one σ_out per query, pooled within examples over all of "
        "them; better than a variance per example below about 64 models. Needs one IN and one OUT model.",
    ),
    compose(
        "lira_offline_fixed",
        signal="scaled_logit",
        test="gaussian-out",
        variance="global",
        doc=f"{_LIRA}: lira_offline with one σ_out per query, pooled within examples over all of them. Needs "
        "one OUT model.",
    ),
    compose(
        "lira_online_shrunk",
        signal="scaled_logit",
        test="gaussian-in-out",
        variance="shrunk",
        doc=f"{_LIRA}: lira_online for few models, log t(φ; μ_in, σ_in) − log t(φ; μ_out, σ_out), mean over "
        "the queries. Each σ is drawn from the example's own towards the typical one, more so the fewer the "
        "models and the more alike all examples are, by a prior fitted to them (Smyth 2004); t is Student's, "
        "which a normal with such a prior predicts. Needs one IN and one OUT model.",
    ),
    compose(
        "lira_offline_shrunk",
        signal="scaled_logit",
        test="gaussian-out",
        variance="shrunk",
        doc=f"{_LIRA}: lira_offline for few models, log F(φ) of Student's t about μ_out with a σ_out as in "
        "lira_online_shrunk, fitted to the OUT models alone. Needs one OUT model.",
    ),
    compose(
        "lira_online_full",
        signal="scaled_logit",
        test="gaussian-in-out-full",
        doc=f"{_LIRA}, Algorithm 1 with all queries together: log N(φ; μ_in, Σ_in) − log N(φ; μ_out, Σ_out), "
        "φ the vector of all queries; covariances are shrunk towards a multiple of the identity by OAS (Chen "
        "et al. 2010). Needs two IN and two OUT models.",
    ),
)

_OTHERS = (YE_POPULATION, RMIA, RMIA_OFFLINE, MEMORIZATION, INFLUENCE)


def _ablation(row: str, signal: str, test: str, queries: Queries, adds: str) -> Attack:
    return compose(
        f"ablation_{row}",
        signal=signal,
        test=test,
        queries=queries,
        doc=f"{_LIRA}, ablation: {adds}.",
    )


# Three chains: no per-example threshold; OUT models only; IN and OUT models.
_ABLATIONS = (
    _ablation("global_loss", "loss", "global", "first", "the LOSS attack; the same as `loss`"),
    _ablation("global_phi", "scaled_logit", "global", "first", "+ logit scaling"),
    _ablation("global_phi_all", "scaled_logit", "global", "all", "+ multiple queries"),
    _ablation(
        "out_loss", "loss", "out-mean", "first", "+ per-example thresholds (OUT); the same as `watson`"
    ),
    _ablation("out_phi", "scaled_logit", "out-mean", "first", "+ logit scaling"),
    _ablation("out_gauss", "scaled_logit", "gaussian-out", "first", "+ Gaussian likelihood"),
    _ablation(
        "out_gauss_all",
        "scaled_logit",
        "gaussian-out",
        "all",
        "+ multiple queries; the same as `lira_offline`",
    ),
    _ablation(
        "inout_loss",
        "loss",
        "in-out-mean",
        "first",
        "+ per-example thresholds (IN & OUT); the same as `sablayrolles`",
    ),
    _ablation("inout_phi", "scaled_logit", "in-out-mean", "first", "+ logit scaling"),
    _ablation("inout_gauss", "scaled_logit", "gaussian-in-out", "first", "+ Gaussian likelihood"),
    _ablation(
        "inout_gauss_all",
        "scaled_logit",
        "gaussian-in-out",
        "all",
        "+ multiple queries; the same as `lira_online`",
    ),
)


def attacks() -> dict[str, Attack]:
    """name -> Attack: the published attacks, memorization and influence, and the ablation rows."""
    return {attack.name: attack for attack in (*_PUBLISHED, *CROSS_FITTED, *_OTHERS, *_ABLATIONS)}

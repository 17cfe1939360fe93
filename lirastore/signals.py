"""Signals: one number per model, example and augmentation, computed from what a store holds.

Every signal is oriented so that higher means member: `loss` is −ℓ. A signal names the arrays that it can be
computed from, the cheapest first; a store's auxiliary arrays are signals of their own name. The functions
work on one model's slice at a time, while its bytes are in cache. What is computed from logits is float32;
what is computed from φ is float64, or the surest predictions would tie: in float32 −ℓ is 0 from φ = 104 on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lirastore import kernels
from lirastore.errors import InputError, MissingData, name_some

__all__ = ["SIGNALS", "Compute", "Signal", "signal"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Raw = npt.NDArray[Any]
Labels = npt.NDArray[np.integer[Any]]

# (raw, labels, out=None) -> out: see Signal.compute.
Compute = Callable[..., npt.NDArray[np.floating[Any]]]

# Values worked on at a time: temporaries of 256 KB, which stay in one core's cache.
_TILE = 64 * 1024


@dataclass(frozen=True)
class Signal:
    """A number per model, example and augmentation; higher means member.

    Attributes:
        name: how attacks and commands call it.
        sources: names of the arrays that it can be computed from, in order of preference.
        compute: source -> function (raw, labels, out=None) -> (n, A) of `dtype`. `raw` is a slice of one
            model: logits (n, A, C), or an array (n, A), or (n,) for an auxiliary array without augmentations;
            `labels` (n,) integers; `out` an optional (n, A) array of `dtype` to fill.
        doc: formula, origin, range.
        dtype: float32, or float64 for functions of φ.
        per: whether there is a value per augmentation, `query`, or, of the first one, per `class`: (n, C).
    """

    name: str
    sources: tuple[str, ...]
    compute: Mapping[str, Compute]
    doc: str
    dtype: type[np.floating[Any]] = np.float32
    per: Literal["query", "class"] = "query"

    def source(self, available: Collection[str]) -> str:
        """The preferred one of the available arrays.

        Raises:
            MissingData: none of them serves.
        """
        for name in self.sources:
            if name in available:
                return name
        raise MissingData(
            f"signal {self.name!r} is computed from {' or '.join(self.sources)}, and there is only "
            f"{name_some(sorted(available)) or 'nothing'}; choose a signal that the store can give"
        )


def signal(name: str, available: Collection[str]) -> Signal:
    """The signal called `name`, if it can be computed from the available arrays.

    The registry comes first; any other available array is a signal of its own name.

    Raises:
        MissingData: no such signal or array, or none of the signal's sources is available.
    """
    known = SIGNALS.get(name)
    if known is not None and (name not in available or any(source in available for source in known.sources)):
        known.source(available)
        return known
    if name in available:
        return _auxiliary(name)
    raise MissingData(
        f"no signal or array {name!r}; signals are {', '.join(SIGNALS)}, arrays here "
        f"{name_some(sorted(available)) or 'none'}"
    )


# --- from arrays to signals ----------------------------------------------------------------------


def _copied(raw: Raw, labels: Labels, out: Float32 | None = None) -> Float32:
    """Stored values as they are, in float32; (n,) becomes (n, 1)."""
    values = raw[:, None] if raw.ndim == 1 else raw
    if values.ndim != 2:
        raise InputError(f"values have shape {raw.shape}; expected (n, A) or (n,), not logits")
    out = _checked_out(values.shape, out)
    np.copyto(out, values, casting="same_kind")
    return out


def _loss(phi: Float64) -> None:
    """φ -> −ℓ = −log(1 + e^{−φ}) = min(φ, 0) − log(1 + e^{−|φ|}), in place."""
    tail = np.abs(phi)
    np.exp(np.negative(tail, out=tail), out=tail)
    np.log1p(tail, out=tail)
    np.minimum(phi, 0, out=phi)
    phi -= tail


def _confidence(phi: Float64) -> None:
    """φ -> p_y = 1/(1 + e^{−φ}), in place."""
    with np.errstate(over="ignore"):  # e^{−φ} = ∞ gives the right 0
        np.exp(np.negative(phi, out=phi), out=phi)
    phi += 1
    np.reciprocal(phi, out=phi)


def _from_scaled_logit(function: Callable[[Float64], None]) -> dict[str, Compute]:
    """The two ways to a function of φ: φ as stored, and φ of the logits."""
    return {"scaled_logit": _then(_copied, function), "logits": _then(kernels.scaled_logit, function)}


def _then(first: Callable[[Raw, Labels], Float32], function: Callable[[Float64], None]) -> Compute:
    def compute(raw: Raw, labels: Labels, out: Float64 | None = None) -> Float64:
        phi = first(raw, labels)
        if out is None:
            out = np.empty(phi.shape, np.float64)
        _check_out(out, phi.shape, np.float64)
        step = max(1, _TILE // max(1, phi.shape[1]))
        for start in range(0, len(phi), step):
            rows = slice(start, start + step)
            np.copyto(out[rows], phi[rows])
            function(out[rows])
        return out

    return compute


def _correct(logits: Raw, labels: Labels, out: Float32 | None = None) -> Float32:
    """1 where argmax z = y, else 0. As numpy's argmax, a tie goes to the first class."""
    margin = kernels.hinge(logits, labels, out)
    tied = np.nonzero(margin == 0)
    won = logits[tied].argmax(axis=-1) == labels[tied[0]]
    np.greater(margin, 0, out=margin, casting="unsafe")
    margin[tied] = won
    return margin


def _carlini_score(logits: Raw, labels: Labels, out: Float32 | None = None) -> Float32:
    """log(p_y + 1e-45) − log(Σ_{c≠y} p_c + 1e-45): exp in the logits' own precision, all else in float64."""
    return _softmax_score(logits, labels, out, logits.dtype, np.dtype(np.float64))


def _leakpro_score(logits: Raw, labels: Labels, out: Float32 | None = None) -> Float32:
    """The same with everything in float32, where 1e-45 is 2^-149, the least number above 0."""
    return _softmax_score(logits, labels, out, np.dtype(np.float32), np.dtype(np.float32))


def _softmax_score(
    logits: Raw, labels: Labels, out: Float32 | None, power: np.dtype[Any], rest: np.dtype[Any]
) -> Float32:
    """The two precisions: of exp, and of what follows."""
    out = _checked_out(logits.shape[:2], out)
    step = max(1, _TILE // max(1, logits.shape[1] * logits.shape[2]))
    least = rest.type(1e-45)
    for start in range(0, len(logits), step):
        rows = slice(start, start + step)
        tile, own = logits[rows].astype(power, copy=False), labels[rows][:, None, None]
        p = np.exp(tile - tile.max(axis=-1, keepdims=True)).astype(rest, copy=False)
        p /= p.sum(axis=-1, keepdims=True)
        right = np.take_along_axis(p, own, axis=-1)[:, :, 0]
        np.put_along_axis(p, own, 0, axis=-1)
        out[rows] = np.log(right + least) - np.log(p.sum(axis=-1) + least)
    return out


def _first_logits(logits: Raw, labels: Labels, out: Float32 | None = None) -> Float32:
    """The logits of the first query as they are, in float32: (n, C)."""
    out = _checked_out((logits.shape[0], logits.shape[2]), out)
    np.copyto(out, logits[:, 0], casting="same_kind")
    return out


def _checked_out(shape: tuple[int, ...], out: Float32 | None) -> Float32:
    if out is None:
        return np.empty(shape, np.float32)
    _check_out(out, shape, np.float32)
    return out


def _check_out(out: npt.NDArray[Any], shape: tuple[int, ...], dtype: type[np.floating[Any]]) -> None:
    if out.shape != shape or out.dtype != dtype:
        raise InputError(
            f"`out` is {out.dtype} of shape {out.shape}; expected {np.dtype(dtype)} of shape {shape}, (n, A)"
        )


def _auxiliary(name: str) -> Signal:
    doc = f"The stored array {name!r} as it is; attacks take its higher values for members."
    return Signal(name, (name,), {name: _copied}, doc)


SIGNALS: dict[str, Signal] = {
    entry.name: entry
    for entry in (
        Signal(
            "scaled_logit",
            ("scaled_logit", "logits"),
            {"scaled_logit": _copied, "logits": kernels.scaled_logit},
            "φ = z_y − logsumexp_{c≠y} z_c = log(p_y/(1 − p_y)), unbounded, near Gaussian over models "
            "(Carlini et al. 2022).",
        ),
        Signal(
            "loss",
            ("scaled_logit", "logits"),
            _from_scaled_logit(_loss),
            "−ℓ = log p_y, minus the cross-entropy, ≤ 0 (Yeom et al. 2018).",
            np.float64,
        ),
        Signal(
            "confidence",
            ("scaled_logit", "logits"),
            _from_scaled_logit(_confidence),
            "p_y, the softmax probability of the label, in [0, 1]; it saturates where φ does not.",
            np.float64,
        ),
        Signal(
            "hinge",
            ("logits",),
            {"logits": kernels.hinge},
            "z_y − max_{c≠y} z_c, unbounded, positive where the prediction is right.",
        ),
        Signal(
            "correct",
            ("logits",),
            {"logits": _correct},
            "1 where argmax z = y, else 0: whether the prediction is right; a tie goes to the first class.",
        ),
        Signal(
            "modified_entropy",
            ("logits",),
            {"logits": kernels.modified_entropy},
            "−Mentr = (1 − p_y)·log p_y + Σ_{c≠y} p_c·log(1 − p_c), ≤ 0 (Song & Mittal 2021).",
        ),
        Signal(
            "carlini_score",
            ("logits",),
            {"logits": _carlini_score},
            "φ by the softmax route of tensorflow/privacy mi_lira_2021 score.py, for the preset "
            "`carlini-code`: it saturates at ±103.6.",
        ),
        Signal(
            "first_logits",
            ("logits",),
            {"logits": _first_logits},
            "The logits of the first query, one per class, for attacks that look at all of them.",
            per="class",
        ),
        Signal(
            "leakpro_score",
            ("logits",),
            {"logits": _leakpro_score},
            "φ by the softmax route of LeakPro's lira.py, in float32, for the preset `leakpro`: it saturates "
            "at ±103.3.",
        ),
    )
}

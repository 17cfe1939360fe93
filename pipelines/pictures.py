"""Pictures on the device: shifted and mirrored copies, the queries that are made of them, noisy copies.

Pictures are uint8 (n, SIDE, SIDE, 3), as they lie in the files. A copy shifted by (down, right) shows the
picture moved that far; what moves in at the edge is the picture reflected there, its outermost row or column
not repeated. That is a crop from the picture padded by reflection; the padded one is never stored, only read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from lirastore.errors import InputError
from lirastore.pipelines.core import torch

__all__ = [
    "SHIFT",
    "SIDE",
    "Pictures",
    "Query",
    "inputs",
    "merlin",
    "queries",
    "scaled_logit",
    "view",
    "views",
]

SIDE = 32
SHIFT = 4
"""The farthest that pictures are shifted, in pixels."""

NOISE = 0.01
"""Standard deviation of Merlin's noise, in units in which pixels go from 0 to 1."""

COUNTS = (1, 2, 18, 162)
"""How many queries there may be: the picture; its mirror image; both shifted by 0 or 4; both by 0 to 4."""


@dataclass(frozen=True)
class Pictures:
    """Pictures and labels on a device."""

    pictures: torch.Tensor  # uint8 (n, SIDE, SIDE, 3)
    labels: torch.Tensor  # int64 (n,)

    @classmethod
    def of(cls, pictures: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], device: torch.device) -> Self:
        """Copies them there."""
        return cls(torch.tensor(pictures, device=device), torch.tensor(labels, device=device))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: slice) -> Pictures:
        return Pictures(self.pictures[part], self.labels[part])


@dataclass(frozen=True)
class Query:
    """A picture is mirrored, if `flip`, and then shifted."""

    flip: bool = False
    down: int = 0
    right: int = 0

    @property
    def name(self) -> str:
        """As stores list it: `identity`, `flip`, `shift(+4,0)`, `flip+shift(0,-4)`; down first."""
        shifted = self.down or self.right
        by = [f"{pixels:+d}" if pixels else "0" for pixels in (self.down, self.right)]
        parts = ["flip"] * self.flip + [f"shift({','.join(by)})"] * bool(shifted)
        return "+".join(parts) or "identity"


def queries(count: int) -> list[Query]:
    """The first `count` of 162; those of a smaller count come first, so that they nest.

    2: the picture and its mirror image; 18: both, shifted by −4, 0 or 4 pixels down and right; 162: both,
    shifted by −4 to 4. Raises InputError for any other number.
    """
    if count not in COUNTS:
        raise InputError(
            f"queries = {count}: expected 1, 2 (mirrored), 18 (and shifted by 4) or 162 (by 0–4)"
        )
    far, near = (-SHIFT, 0, SHIFT), range(-SHIFT, SHIFT + 1)
    shifts = [(0, 0), *((d, r) for d in far for r in far), *((d, r) for d in near for r in near)]
    found = [Query(flip, down, right) for down, right in dict.fromkeys(shifts) for flip in (False, True)]
    return found[:count]


def views(
    pictures: torch.Tensor,
    examples: torch.Tensor,
    *,
    flip: torch.Tensor,
    down: torch.Tensor,
    right: torch.Tensor,
) -> torch.Tensor:
    """(n, SIDE, SIDE, 3): a copy of each of the `examples`, (n,), mirrored where `flip`, then shifted.

    Shifts are (n,) pixels from −SHIFT to SHIFT.
    """
    rows, columns = _reflected(down), _reflected(right)
    columns = torch.where(flip[:, None], SIDE - 1 - columns, columns)
    return pictures[examples[:, None, None], rows[:, :, None], columns[:, None, :]]


def view(pictures: torch.Tensor, query: Query) -> torch.Tensor:
    """(n, SIDE, SIDE, 3): all pictures as one query shows them."""
    rows, columns = (
        _reflected(torch.full((1,), shift, device=pictures.device))[0] for shift in (query.down, query.right)
    )
    return pictures[:, rows[:, None], SIDE - 1 - columns if query.flip else columns]


def _reflected(shift: torch.Tensor) -> torch.Tensor:
    """(n,) shifts -> (n, SIDE): from which row (or column) of the picture each of a copy's comes."""
    position = (torch.arange(SIDE, device=shift.device) - shift[:, None]).abs()
    last = SIDE - 1
    return last - (last - position).abs()


def inputs(pictures: torch.Tensor, *, channels_last: bool) -> torch.Tensor:
    """uint8 (n, SIDE, SIDE, 3) -> float32 (n, 3, SIDE, SIDE) from 0 to 1.

    With channels_last, memory keeps the order of the pictures.
    """
    pixels = pictures.permute(0, 3, 1, 2).float() / 255
    return pixels if channels_last else pixels.contiguous()


def scaled_logit(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(n, classes) -> φ, (n,): the label's logit less the logsumexp of the others. Higher means member."""
    at = labels[:, None]
    mine = torch.arange(logits.shape[1], device=logits.device) == at
    others = logits.masked_fill(mine, -torch.inf).logsumexp(dim=1)
    return logits.gather(1, at)[:, 0] - others


def merlin(
    phi: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, count: int, generator: torch.Generator
) -> torch.Tensor:
    """(n,): in which share of `count` noisy copies the loss is larger than in x; higher means member.

    phi: (n, 3, SIDE, SIDE) inputs from 0 to 1 -> (n,). The loss falls as φ rises, and unlike φ is rounded to
    nought where a network is sure. Jayaraman et al., "Revisiting Membership Inference", PoPETs 2021.
    """
    plain = phi(x)
    draw = functools.partial(torch.randn, x.shape, generator=generator, device=x.device)
    larger = torch.zeros_like(plain)
    for _ in range(count):
        larger += phi(x + NOISE * draw()) < plain
    return larger / count

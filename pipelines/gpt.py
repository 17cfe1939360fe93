"""A causal language model of GPT-2's shape, and what it says of the tokens of a window.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners": learned embeddings of tokens and
positions, blocks that normalise first, a GELU layer of four times the width, a head tied to the embeddings.
There is no dropout.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lirastore.pipelines.core import autocast

__all__ = ["GPT", "Shape", "make", "token_scores", "training_loss"]

LOGIT_BYTES = {"cpu": 32 << 20, "cuda": 512 << 20}
"""Of float32 logits that are held at once while a model is asked, twice over: they would be tokens ×
vocabulary. Little on a CPU, whose caches are small; on a GPU enough to keep it busy."""


@dataclass(frozen=True)
class Shape:
    """`vocabulary` counts the token before the first one of a window, which is its last."""

    vocabulary: int
    window: int
    layers: int
    width: int
    heads: int


class _Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.before_attention = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.before_mlp = nn.LayerNorm(width)
        self.mlp = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention_out(self._attend(self.before_attention(x)))
        hidden = F.gelu(self.mlp(self.before_mlp(x)), approximate="tanh")
        return x + self.mlp_out(hidden)

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        n, length, width = x.shape
        parts = self.attention(x).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return seen.transpose(1, 2).reshape(n, length, width)


class GPT(nn.Module):
    """(n, T) token ids -> (n, T, width), from which `head` makes the logits of the tokens that follow."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.window, shape.width)
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.layers))
        self.last = nn.LayerNorm(shape.width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.last(x)

    @property
    def head(self) -> torch.Tensor:
        """(V, width)."""
        return self.tokens.weight

    def shifted(self, windows: torch.Tensor) -> torch.Tensor:
        """(n, T): what the tokens of the windows are predicted from, the token before the first one first."""
        return F.pad(windows[:, :-1], (1, 0), value=self.shape.vocabulary - 1)


def make(shape: Shape, generator: torch.Generator, device: torch.device) -> GPT:
    """A network as GPT-2 begins: weights N(0, 0.02²), those into the residual stream √(2·layers) smaller.

    The numbers are drawn on the CPU, so that they are the same on every device.
    """
    with torch.device("meta"):  # torch's own initial weights would be drawn from its global generator
        net = GPT(shape)
    net.to_empty(device="cpu")
    with torch.no_grad():
        for name, part in net.named_parameters():
            if part.ndim > 1:
                residual = name.endswith("_out.weight")
                part.normal_(0.0, 0.02 / (2 * shape.layers) ** 0.5 if residual else 0.02, generator=generator)
            else:
                part.fill_(0.0 if name.endswith("bias") else 1.0)
    return net.to(device)


def training_loss(
    net: nn.Module, head: torch.Tensor, ids: torch.Tensor, windows: torch.Tensor
) -> torch.Tensor:
    """Mean cross-entropy of all tokens of the windows, in nats. Memory: logits of all of them."""
    logits = F.linear(net(ids), head)
    return F.cross_entropy(logits.flatten(0, 1).float(), windows.flatten())


@torch.inference_mode()
def token_scores(net: GPT, windows: torch.Tensor, *, bf16: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """What the network says of each token, given those before it in its window.

    Args:
        windows: (n, T) int64.
        bf16: as it was trained: the blocks' products in bfloat16. The logits are float32 in any case.

    Returns:
        log p(token), (n, T) float64, exact to float32's precision of the logits' differences also where p is
        nearly 1; and whether the token has the largest logit, (n, T) bool.
    """
    with autocast(windows.device, bf16=bf16):
        hidden = net(net.shifted(windows)).float().flatten(0, 1)
    rows = max(1, LOGIT_BYTES[windows.device.type] // (4 * net.shape.vocabulary))
    parts = zip(hidden.split(rows), windows.flatten().split(rows), strict=True)
    logp, right = zip(*(_scores(some @ net.head.T, own[:, None]) for some, own in parts), strict=True)
    return torch.cat(logp).view(windows.shape), torch.cat(right).view(windows.shape)


def _scores(logits: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, V) and ids (n, 1) -> log p (n,) float64, is the largest (n,)."""
    right = logits.argmax(dim=1) == own[:, 0]
    at_own = logits.gather(1, own)[:, 0]
    mine = torch.arange(logits.shape[1], device=logits.device) == own
    others = logits.masked_fill_(mine, -torch.inf).logsumexp(dim=1)
    return F.logsigmoid((at_own - others).double()), right

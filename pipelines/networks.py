"""The networks that pictures are classified by: a wide residual network, and a small one."""

from __future__ import annotations

from lirastore.pipelines.core import torch

__all__ = ["NETWORKS", "Head", "network", "resnet9", "wide_resnet"]


class Head(torch.nn.Module):
    """Mean over the picture, then a linear layer, in float32: bfloat16 would round logits to 3 digits."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, h, w) -> (n, classes)."""
        with torch.autocast(x.device.type, enabled=False):
            logits: torch.Tensor = self.linear(x.float().mean(dim=(2, 3)))
            return logits


class Residual(torch.nn.Module):
    """x plus what a part of the network makes of it."""

    def __init__(self, *parts: torch.nn.Module) -> None:
        super().__init__()
        self.part = torch.nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As large as x."""
        return x + self.part(x)


class WideBlock(torch.nn.Module):
    """BatchNorm, ReLU, convolution, twice, beside a shortcut (Zagoruyko & Komodakis 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = torch.nn.Sequential(torch.nn.BatchNorm2d(before), torch.nn.ReLU())
        self.rest = torch.nn.Sequential(
            conv(before, after, stride=stride),
            torch.nn.BatchNorm2d(after),
            torch.nn.ReLU(),
            conv(after, after),
        )
        self.shortcut = conv(before, after, size=1, stride=stride) if before != after or stride > 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, before, h, w) -> (n, after, h / stride, w / stride)."""
        active = self.first(x)
        rest: torch.Tensor = self.rest(active)
        return rest + (x if self.shortcut is None else self.shortcut(active))


def conv(before: int, after: int, *, size: int = 3, stride: int = 1) -> torch.nn.Conv2d:
    """Without a bias; pictures stay as large, or shrink by the stride."""
    return torch.nn.Conv2d(before, after, size, stride, padding=(size - 1) // 2, bias=False)


def conv_norm(before: int, after: int, *, pool: bool = False) -> torch.nn.Sequential:
    """Convolution, to half the size if `pool`, BatchNorm, ReLU; max-pooling has no deterministic gradient."""
    pooling = [torch.nn.AvgPool2d(2)] if pool else []
    return torch.nn.Sequential(conv(before, after), *pooling, torch.nn.BatchNorm2d(after), torch.nn.ReLU())


def wide_resnet(width: int, stride: int, classes: int) -> torch.nn.Sequential:
    """A wide residual network of 28 layers, the reference's: three stages of four blocks."""
    blocks, before = [], 16
    for stage in range(3):
        after = 16 * width * 2**stage
        for block in range(4):
            blocks.append(WideBlock(before, after, stride=2 if stage and not block else 1))
            before = after
    first = conv(3, 16, stride=stride)
    return torch.nn.Sequential(
        first, *blocks, torch.nn.BatchNorm2d(before), torch.nn.ReLU(), Head(before, classes)
    )


def resnet9(width: int, stride: int, classes: int) -> torch.nn.Sequential:
    """Eight convolutions and a linear layer, after David Page's "How to train your ResNet"."""
    w = width
    return torch.nn.Sequential(
        torch.nn.Sequential(conv(3, w, stride=stride), torch.nn.BatchNorm2d(w), torch.nn.ReLU()),
        conv_norm(w, 2 * w, pool=True),
        Residual(conv_norm(2 * w, 2 * w), conv_norm(2 * w, 2 * w)),
        conv_norm(2 * w, 4 * w, pool=True),
        conv_norm(4 * w, 8 * w, pool=True),
        Residual(conv_norm(8 * w, 8 * w), conv_norm(8 * w, 8 * w)),
        Head(8 * w, classes),
    )


NETWORKS = {"wrn28": wide_resnet, "resnet9": resnet9}


def network(
    name: str, *, width: int, stride: int, classes: int, generator: torch.Generator
) -> torch.nn.Sequential:
    """A new network, its weights drawn by `generator`: He's for convolutions, Glorot's for the last layer."""
    net = NETWORKS[name](width, stride, classes)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_normal_(module.weight, generator=generator)
            torch.nn.init.zeros_(module.bias)
    return net

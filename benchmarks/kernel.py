"""GB/s of logits through `kernels.scaled_logit` on one core, beside plain numpy over the last axis.

python benchmarks/kernel.py [MEGABYTES]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from lirastore.kernels import scaled_logit

Logits = npt.NDArray[np.float32]
Kernel = Callable[[Logits, npt.NDArray[np.int64]], npt.NDArray[np.float32]]


def plain(logits: Logits, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The same number with reductions over the last axis."""
    others = logits.copy()
    at_label = (np.arange(len(labels)), slice(None), labels)
    others[at_label] = -np.inf
    top = others.max(axis=2)
    phi: npt.NDArray[np.float32] = (
        logits[at_label] - top - np.log(np.exp(others - top[:, :, None]).sum(axis=2))
    )
    return phi


def speed(kernel: Kernel, logits: Logits, labels: npt.NDArray[np.int64], repeats: int = 3) -> float:
    """The best of some repeats, in GB of logits per second."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        kernel(logits, labels)
        seconds.append(time.perf_counter() - began)
    return logits.nbytes / min(seconds) / 1e9


def main() -> None:
    size = int(float(sys.argv[1]) * 1e6) if len(sys.argv) > 1 else 100_000_000
    generator = np.random.default_rng(0)
    print("classes,augmentations,tiled_gb_per_s,plain_gb_per_s")
    for classes, augmentations in [(2, 2), (10, 1), (10, 2), (10, 18), (100, 2), (1000, 1)]:
        examples = max(1, size // (4 * classes * augmentations))
        logits = generator.standard_normal((examples, augmentations, classes), dtype=np.float32) * 5
        labels = generator.integers(0, classes, examples)
        tiled = speed(scaled_logit, logits, labels)
        print(f"{classes},{augmentations},{tiled:.2f},{speed(plain, logits, labels):.2f}")


if __name__ == "__main__":
    main()

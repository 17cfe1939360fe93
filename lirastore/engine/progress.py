"""The progress bar of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lirastore.errors import name_some

__all__ = ["Bar"]


class Bar:
    """Progress in bytes and blocks on stderr, off when that is no terminal; counts the bytes in any case."""

    def __init__(self, attacks: Sequence[str], total: int, blocks: int, *, visible: bool) -> None:
        from tqdm import tqdm

        self.bytes = 0
        self._done, self._blocks, self._targets = 0, blocks, 0
        self._bar = tqdm(
            desc=name_some(attacks, 3),
            total=total,
            unit="B",
            unit_scale=True,
            file=sys.stderr,
            disable=None if visible else True,
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, size: int) -> None:
        """Counts bytes read; called by the tasks' threads."""
        with self._bar.get_lock():
            self.bytes += size
            self._bar.update(size)

    def finish_block(self) -> None:
        """Counts a block done, which is long after its bytes were read where many attacks score it."""
        with self._bar.get_lock():
            self._done += 1
            self._bar.set_postfix_str(f"{self._done} of {self._blocks} blocks done")

    def finish_target(self) -> None:
        """Counts a target finished, between two passes over the blocks, when nothing is read."""
        with self._bar.get_lock():
            self._targets += 1
            self._bar.set_postfix_str(
                f"{self._done} of {self._blocks} blocks done, {self._targets} targets finished"
            )

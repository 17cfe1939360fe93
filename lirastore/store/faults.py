"""Named points at which a test can stop, kill or interrupt a process; nothing at all otherwise.

`LIRASTORE_FAULT=claim.linked` makes a process kill itself (SIGKILL, nothing is cleaned up) when it gets
there; `claim.linked:stop` suspends it (SIGSTOP); `claim.linked:interrupt` interrupts it (SIGINT);
`write.batch:kill:3` acts the third time.
"""

from __future__ import annotations

import os
import signal

__all__ = ["POINTS", "VARIABLE", "reach"]

VARIABLE = "LIRASTORE_FAULT"

POINTS = (
    # a writer, in order
    "attempt.prepared",
    "attempt.created",
    "write.batch",
    "spill.opened",
    "spill.assembled",
    "seal.flushed",
    "seal.manifest",
    "claim.ready",
    "claim.linked",
    "claim.durable",
    # whoever publishes
    "publish.array",
    "publish.arrays",
    "publish.marker",
    "publish.durable",
    "publish.tidied",
    # whoever removes an attempt
    "retire.disarmed",
    "retire.moved",
    # discard, in order
    "discard.token",
    "discard.fenced",
    "discard.marker",
    "discard.array",
    "discard.arrays",
    "discard.finished",
)
"""Every point there is; a test reaches and kills at each."""

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "interrupt": signal.SIGINT}
_passed: dict[str, int] = {}


def reach(point: str) -> None:
    """Marks a step of the protocol. Does nothing unless the environment names this point."""
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    name, _, rest = wanted.partition(":")
    if name != point:
        return
    action, _, times = rest.partition(":")
    _passed[wanted] = _passed.get(wanted, 0) + 1
    if _passed[wanted] == int(times or 1):
        os.kill(os.getpid(), _SIGNALS[action or "kill"])

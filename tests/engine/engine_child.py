"""Runs one attack in a process of its own: `engine_child.py STORE JSON`.

The JSON is engine.Options, and besides: `attack`, a name, or `mine`, which is φ of the first query; `delay`,
seconds that it takes per tile; `kill_after`, so many tiles until the process kills itself; `tile_bytes` and
`part_rows`, to cut small stores into blocks; `beat`, seconds between heartbeats. Prints peak and projected
memory.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from typing import Any

import numpy as np

from lirastore import attacks, engine
from lirastore.attacks import Attack, Block
from lirastore.engine import heartbeat, planning
from lirastore.memory import peak_rss
from lirastore.store import open_store


def mine(delay: float = 0.0, kill_after: int = -1) -> Attack:
    """The attack `mine`; its parameters do not tell how it dawdles and dies."""
    tiles = itertools.count()

    def function(block: Block) -> Any:
        if next(tiles) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(delay)
        return block.signal()[:, :, 0].astype(np.float64)

    return Attack("mine", function, described=True)


def main(path: str, text: str) -> None:
    given = json.loads(text)
    planning.MIN_BLOCK_ROWS = 1
    for constant in ("TILE_BYTES", "PART_ROWS"):
        if constant.lower() in given:
            setattr(planning, constant, given.pop(constant.lower()))
    heartbeat.BEAT_SECONDS = given.pop("beat", heartbeat.BEAT_SECONDS)
    name, how = (
        given.pop("attack", "mine"),
        {key: given.pop(key) for key in ("delay", "kill_after") & given.keys()},
    )
    store, options = open_store(path), engine.Options(**given)
    attack = mine(**how) if name == "mine" else attacks.named(name, preset=options.preset)
    plan = engine.plan(store, [attack], options)
    print("ready", flush=True)
    engine.run(store, [attack], options)
    print(json.dumps({"peak": peak_rss(), "projected": plan.projected, "blocks": len(plan.blocks)}))


if __name__ == "__main__":
    main(*sys.argv[1:])

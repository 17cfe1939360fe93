"""Runs attacks in a process of its own: `engine_child.py STORE JSON`.

The JSON is engine.Options, and besides: `attack`, names with commas between them, of the registry or of OWN;
`delay`, seconds that `mine` takes per tile; `kill_after`, so many tiles until the process kills itself;
`kill_target`, as which target is finished; `models`, numbers of shadow models that the attacks are limited
to; `tile_bytes` and `part_rows`, to cut small stores into blocks; `beat`, seconds between heartbeats. Prints
peak and projected memory.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from typing import Any

import engine_attacks
import numpy as np

from lirastore import attacks, engine
from lirastore.attacks import Attack, Block, PerTarget, TargetRow
from lirastore.engine import heartbeat, planning
from lirastore.memory import peak_rss
from lirastore.store import open_store


def mine(delay: float = 0.0, kill_after: int = -1, kill_target: int = -1) -> Attack:
    """φ of the first query; its parameters do not tell how it dawdles and dies."""
    tiles = itertools.count()

    def function(block: Block) -> Any:
        if next(tiles) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(delay)
        return block.signal()[:, :, 0].astype(np.float64)

    return Attack("mine", function, described=True)


def mine_by_target(delay: float = 0.0, kill_after: int = -1, kill_target: int = -1) -> Attack:
    """The same by way of a matrix: dies while it is filled, while it is finished, or while it is read."""
    tiles = itertools.count()

    def chunk(block: Block) -> Any:
        return mine_chunk(block) / 2

    def finish(row: TargetRow) -> Any:
        if row.target == kill_target:
            os.kill(os.getpid(), signal.SIGKILL)
        return row.values * 2

    def mine_chunk(block: Block) -> Any:
        if next(tiles) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return block.signal()[:, :, 0].astype(np.float64)

    first = PerTarget("halves", ("scaled_logit",), chunk, finish)

    def function(block: Block) -> Any:
        mine_chunk(block)
        return block.summary(first)

    return Attack("mine", function, summaries=(first,), described=True)


OWN = {
    "mine": mine,
    "mine_by_target": mine_by_target,
    "matrices": lambda: engine_attacks.MATRICES,
    "classes": lambda: engine_attacks.CLASSES,
}


def main(path: str, text: str) -> None:
    given = json.loads(text)
    planning.MIN_BLOCK_ROWS = 1
    for constant in ("TILE_BYTES", "PART_ROWS"):
        if constant.lower() in given:
            setattr(planning, constant, given.pop(constant.lower()))
    heartbeat.BEAT_SECONDS = given.pop("beat", heartbeat.BEAT_SECONDS)
    how = {key: given.pop(key) for key in ("delay", "kill_after", "kill_target") & given.keys()}
    names, models = given.pop("attack", "mine").split(","), given.pop("models", None)
    store, options = open_store(path), engine.Options(**given)
    chosen = [
        OWN[name](**how) if name in OWN else attacks.named(name, preset=options.preset) for name in names
    ]
    if models:
        chosen = engine.limited(store, chosen, models, ["first", "all"], options)
    plan = engine.plan(store, chosen, options)
    print("ready", flush=True)
    engine.run(store, chosen, options)
    print(json.dumps({"peak": peak_rss(), "projected": plan.projected, "blocks": len(plan.blocks)}))


if __name__ == "__main__":
    main(*sys.argv[1:])

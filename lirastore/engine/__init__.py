"""Runs attacks out of core: one Dask task per block of examples, under a stated memory budget.

facts.py     what attacks may know of the store before anything is read
reading.py   which arrays are read, for which signals
grid.py      how the examples are cut into tiles and blocks
planning.py  how large the blocks are, and what memory that takes
blocks.py    what one task does: read all models' slices, turn them into signals, score tile by tile
rows.py      what an attack said of a tile, checked, as columns
firstpass.py what is to be known of the whole store before the first block is scored
folding.py   merges the states of a first pass, reproducibly
matrix.py    a number per target and example, in an unnamed file
parts.py     Parquet parts, written so that a killed run resumes
checks.py    what is worth a warning
snapshot.py  what a run is of; what is up to date, what is resumed
running.py   the passes and the result documents
limiting.py  attacks with fewer shadow models and queries: which of them a store has enough for
heartbeat.py tells gc that a run is alive
progress.py  the bar on stderr
"""

from __future__ import annotations

from lirastore.engine.limiting import limited
from lirastore.engine.planning import Options, Plan, plan
from lirastore.engine.running import feasible, run

__all__ = ["Options", "Plan", "feasible", "limited", "plan", "run"]

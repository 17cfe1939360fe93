"""Runs attacks out of core: one Dask task per block of examples, under a stated memory budget.

planning.py  which arrays are read, how the examples are cut, what memory that takes
blocks.py    what one task does: read all models' slices, turn them into signals, score tile by tile
folding.py   merges the states of a first pass, reproducibly
parts.py     Parquet parts, written so that a killed run resumes
checks.py    what is worth a warning
snapshot.py  what a run is of; what is up to date, what is resumed
running.py   the passes and the result documents
heartbeat.py tells gc that a run is alive
progress.py  the bar on stderr
"""

from __future__ import annotations

from lirastore.engine.planning import Options, Plan, plan
from lirastore.engine.running import feasible, run

__all__ = ["Options", "Plan", "feasible", "plan", "run"]

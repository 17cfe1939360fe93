"""lirastore: a storage-first experiment store for membership-inference auditing.

    import lirastore
    store = lirastore.open("cifar10.lira")
    store.attack("lira_online")
    store.sql("from tpr_at_fpr(0.001)").df()

Names are imported when first used, so that a training job pays only for what it writes with, and
`lirastore --help` for nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lirastore.attacks import Attack, Block, Summary, attack
    from lirastore.experiment import Store, create, ingest, open
    from lirastore.moments import Loo
    from lirastore.store import LogitStore, ModelWriter

__version__ = "0.1.0"

_HOME = {
    "Attack": "lirastore.attacks",
    "Block": "lirastore.attacks",
    "LogitStore": "lirastore.store",
    "Loo": "lirastore.moments",
    "ModelWriter": "lirastore.store",
    "Store": "lirastore.experiment",
    "Summary": "lirastore.attacks",
    "attack": "lirastore.attacks",
    "create": "lirastore.experiment",
    "ingest": "lirastore.experiment",
    "open": "lirastore.experiment",
}

__all__ = [
    "Attack",
    "Block",
    "LogitStore",
    "Loo",
    "ModelWriter",
    "Store",
    "Summary",
    "__version__",
    "attack",
    "create",
    "ingest",
    "open",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lirastore' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

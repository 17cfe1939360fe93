"""The store: layout, creation, reading, writing, commits, verification. Knows nothing of attacks."""

from __future__ import annotations

from lirastore.store.commit import Commit
from lirastore.store.create import create
from lirastore.store.housekeeping import AttemptStatus, GcReport, StoreStatus, gc_store, status
from lirastore.store.layout import ArraySpec, StoreInfo
from lirastore.store.open import LogitStore, open_store
from lirastore.store.plan import Sliced
from lirastore.store.recover import RecoverReport, recover
from lirastore.store.verify import VerifyReport, verify_store
from lirastore.store.withdraw import discard
from lirastore.store.writer import ModelWriter

__all__ = [
    "ArraySpec",
    "AttemptStatus",
    "Commit",
    "GcReport",
    "LogitStore",
    "ModelWriter",
    "RecoverReport",
    "Sliced",
    "StoreInfo",
    "StoreStatus",
    "VerifyReport",
    "create",
    "discard",
    "gc_store",
    "open_store",
    "recover",
    "status",
    "verify_store",
]

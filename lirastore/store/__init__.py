"""The store: layout, creation, reading, writing, commits, verification. Knows nothing of attacks."""

from __future__ import annotations

from lirastore.store.create import create
from lirastore.store.layout import ArraySpec, StoreInfo
from lirastore.store.open import LogitStore, open_store

__all__ = ["ArraySpec", "LogitStore", "StoreInfo", "create", "open_store"]

"""Shows that a run is alive, however long one of its blocks takes."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

__all__ = ["BEAT_SECONDS", "Heartbeat"]

BEAT_SECONDS = 30.0


class Heartbeat:
    """Touches the folders of runs when it begins and every BEAT_SECONDS: by their age gc knows a dead run."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lirastore heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._touch()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            self._touch()

    def _touch(self) -> None:
        for folder in self._folders:
            with contextlib.suppress(OSError):  # what is wrong with the folder, whoever writes there will say
                os.utime(folder)

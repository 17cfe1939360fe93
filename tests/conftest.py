"""For all tests."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Shells start background jobs with SIGINT ignored, and children inherit that; some tests send it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

"""How numbers are written in the report."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime

__all__ = ["NOTHING", "interval", "moment", "number", "percent", "points", "size", "three"]

NOTHING = "–"


def percent(share: float | None) -> str:
    """A share as percent with two or three digits: 45.1%, 8.83%, 0.0017%; a dash for None."""
    return NOTHING if share is None else f"{_digits(100 * share)}%"


def points(share: float) -> str:
    """A share as percent without the sign, where it stands beside one that has it."""
    return _digits(100 * share)


def three(value: float | None) -> str:
    """An area under a curve, to three digits after the point."""
    return NOTHING if value is None else f"{value:.3f}"


def interval(low: float, high: float, write: Callable[[float], str] = points) -> str:
    """Both ends of an interval, of shares as percent without the sign: 31.3–32.1."""
    return f"{write(low)}–{write(high)}"


def _digits(value: float) -> str:
    if value in (0, 100):
        return f"{value:.0f}"
    if value >= 0.1:
        return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    decimals = 1 - math.floor(math.log10(value))  # two digits, never an exponent
    return f"{value:.{decimals}f}"


def number(value: float | None) -> str:
    """Three significant digits; a dash for None."""
    return NOTHING if value is None else f"{value:.3g}"


def size(count: int) -> str:
    """Bytes in the decimal unit that leaves at most three digits before the point: 1.2 GB."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def moment(time: str | datetime) -> str:
    """A time, or its ISO 8601 text, to the minute in UTC; text without an offset is UTC already."""
    parsed = datetime.fromisoformat(time) if isinstance(time, str) else time
    aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return f"{aware.astimezone(UTC):%Y-%m-%d %H:%M} UTC"

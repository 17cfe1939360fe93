"""How numbers are written in the report."""

from __future__ import annotations

__all__ = ["NOTHING", "number", "percent", "size"]

NOTHING = "–"


def percent(share: float | None) -> str:
    """A share as percent with about three digits: 8.83%, 45.1%, 0.0017%."""
    if share is None:
        return NOTHING
    value = 100 * share
    digits = f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
    return f"{'100' if value == 100 else '0' if value == 0 else digits}%"


def number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"


def size(count: int) -> str:
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"



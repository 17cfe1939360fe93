"""What the command line's options accept: sizes, durations, model ids, names."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import click

# The names of `attacks.presets.PRESETS`, which takes numpy and scipy to import.
PRESETS = ("paper", "carlini-code", "tf-library", "misleading-evals", "leakpro")

_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_SPANS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Bytes(click.ParamType[int]):
    """A size in bytes: 2GiB, 500MB, 1e9."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?i?)b?\s*", str(value), re.IGNORECASE)
        try:
            size = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
        except (ValueError, KeyError):
            size = 0
        if size <= 0:
            self.fail(
                f"{value!r} is no size; expected bytes, or a number with a unit, as in 2GiB", param, ctx
            )
        return size


class Hours(click.ParamType[timedelta]):
    """A length of time: 90m, 24h, 7d."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", str(value).strip())
        if not match:
            self.fail(
                f"{value!r} is no length of time; expected a number and s, m, h or d, as in 24h", param, ctx
            )
        return timedelta(**{_SPANS[match[2]]: float(match[1])})


class Models(click.ParamType[list[int]]):
    """Model ids and half-open ranges: 3,17,40:48."""

    name = "models"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        ids: set[int] = set()
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d+)\s*(?::\s*(\d+)\s*)?", part)
            if not match:
                self.fail(
                    f"{part!r} in {value!r} is no model id or range; expected e.g. 3,17,40:48", param, ctx
                )
            first = int(match[1])
            ids.update(range(first, int(match[2]) if match[2] else first + 1))
        return sorted(ids)


class Names(click.ParamType[int | list[str]]):
    """How many, or a comma-separated list of names."""

    name = "count or names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | list[str]:
        if isinstance(value, int | list):
            return value
        text = str(value).strip()
        if re.fullmatch(r"-?\d+", text):
            if int(text) < 1:
                self.fail(f"{text} is too few; expected at least 1, or names", param, ctx)
            return int(text)
        # a comma inside parentheses belongs to the name: shift(+1,0)
        return [name.strip() for name in re.split(r",(?![^(]*\))", text)]


class Shadows(click.ParamType[list[int]]):
    """Even numbers of shadow models: 4,8,16."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        words = [word.strip() for word in str(value).split(",")]
        for word in words:
            if not word.isdecimal() or int(word) < 2 or int(word) % 2:
                self.fail(
                    f"{word!r} in {value!r}: expected even numbers of at least 2, as in 4,8,16", param, ctx
                )
        return [int(word) for word in words]


class Queries(click.ParamType[list[int | str]]):
    """Numbers of queries, `first` or `all`: 1,2,all."""

    name = "queries"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int | str]:
        if isinstance(value, list):
            return value
        words = [word.strip() for word in str(value).split(",")]
        for word in words:
            if word not in ("first", "all") and not (word.isdecimal() and int(word)):
                self.fail(
                    f"{word!r} in {value!r}: expected first, all, or numbers, as in 1,2,all", param, ctx
                )
        return [int(word) if word.isdecimal() else word for word in words]


class Shard(click.ParamType[tuple[int, int]]):
    """One of n equal parts: 0/8 … 7/8."""

    name = "i/n"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", str(value))
        if not match or int(match[1]) >= int(match[2]):
            self.fail(f"{value!r}: expected i/n with i from 0 to n − 1, as in 0/8 … 7/8", param, ctx)
        return int(match[1]), int(match[2])


class Setting(click.ParamType[tuple[str, Any]]):
    """A name and its value, which is a number, true, false, or text."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not name.strip().isidentifier():
            self.fail(f"{value!r}: expected a name and a value, as in epochs=5", param, ctx)
        return name.strip(), _plain(text.strip())


def _plain(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


BYTES = Bytes()
HOURS = Hours()
MODELS = Models()
NAMES = Names()
QUERIES = Queries()
SETTING = Setting()
SHADOWS = Shadows()
SHARD = Shard()

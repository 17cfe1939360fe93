"""HTML that cannot forget to escape.

Text is data and gets escaped, unless it is `Markup`, which only `element`, `join` and drawn figures are.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

__all__ = ["Markup", "element", "join"]

_VOID = frozenset({"img", "br", "hr", "meta"})


class Markup(str):
    """Text that is HTML already. Anything else that is shown is data, and gets escaped."""

    __slots__ = ()


def join(*content: object) -> Markup:
    """Text, Markup and iterables of them, one after the other; None is nothing."""
    return Markup("".join(_flat(content)))


def element(tag: str, *content: object, **attributes: str | int | bool | None) -> Markup:
    """An element with escaped attributes and content.

    In the names of attributes a trailing underscore is dropped and others become hyphens (`class_`,
    `aria_label`); True is an attribute without a value, None and False are none.
    """
    opening = "".join(
        f" {_attribute(name)}" if value is True else f' {_attribute(name)}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Markup(f"<{tag}{opening}>")
    return Markup(f"<{tag}{opening}>{join(*content)}</{tag}>")


def _attribute(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _flat(content: Iterable[object]) -> Iterable[str]:
    for part in content:
        if part is None:
            continue
        if isinstance(part, Markup):
            yield str(part)
        elif isinstance(part, Iterable) and not isinstance(part, str):
            yield from _flat(part)
        else:
            yield html.escape(str(part))

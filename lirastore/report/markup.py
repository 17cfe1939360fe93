"""HTML that cannot forget to escape.

Text is data and gets escaped, unless it is `Markup`, which only `element`, `join` and drawn figures are.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from typing import Any

__all__ = ["Markup", "data_block", "element", "join", "raw_block"]

_VOID = frozenset({"img", "br", "hr", "meta", "input", "wbr"})


class Markup(str):
    """Text that is HTML already. Anything else that is shown is data, and gets escaped."""

    __slots__ = ()


def join(*content: object) -> Markup:
    """Text, Markup and iterables of them, one after the other; None is nothing."""
    return Markup("".join(_flat(content)))


def element(tag: str, *content: object, **attributes: str | float | bool | None) -> Markup:
    """An element with escaped attributes and content.

    In the names of attributes a trailing underscore is dropped and others become hyphens (`class_`,
    `aria_label`); True is an attribute without a value, None and False are none. Floats are rounded to six
    digits.
    """
    opening = "".join(
        f" {_attribute(name)}" if value is True else f' {_attribute(name)}="{html.escape(_text(value))}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Markup(f"<{tag}{opening}>")
    return Markup(f"<{tag}{opening}>{join(*content)}</{tag}>")


def data_block(anchor: str, value: Any) -> Markup:
    """A value for the page's script, as JSON that no text in it can end or turn into markup."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{html.escape(anchor)}">{text}</script>')


def raw_block(tag: str, content: str, **attributes: str) -> Markup:
    """A style or a script of our own, which HTML takes as it is. Raises ValueError if it would end early."""
    if re.search(rf"</{tag}|<!--", content, re.IGNORECASE):
        raise ValueError(f"a {tag} with {'</' + tag!r} or '<!--' in it would end early")
    empty = element(tag, **attributes)
    return Markup(empty.replace("></", f">{content}</"))


def _text(value: str | float) -> str:
    """Numbers in figures need no more than six digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


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

"""The page's own style and scripts, and the policy that lets nothing else run or load.

The scripts are JavaScript modules that import each other; in a page of one file they become one.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources

__all__ = ["early", "late", "policy", "style"]

_MODULES = ("dom", "unpack", "theme", "roc", "sorting", "drawing", "classes", "card", "search", "page")
_STYLES = ("page", "plots", "lookup")


@cache
def _source(name: str) -> str:
    return resources.files("lirastore.report").joinpath(name).read_text("utf-8")


def early() -> str:
    """What runs before anything is drawn: the remembered theme."""
    return _source("early.js")


def late() -> str:
    """All modules as one: each after those that it imports, without the lines that say so."""
    joined = "\n".join(_source(f"{name}.js") for name in _MODULES)
    without_imports = re.sub(r"^import [^;]*;\n", "", joined, flags=re.MULTILINE)
    return re.sub(r"^export ", "", without_imports, flags=re.MULTILINE)


def style(extra: str = "") -> str:
    """The style sheets, and rules that depend on what is shown."""
    return "\n".join([*(_source(f"{name}.css") for name in _STYLES), extra])


def policy(styles: str, *scripts: str) -> str:
    """A Content-Security-Policy by hash: this style and these scripts, pictures from within, nothing else."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}",
            f"style-src {_hash(styles)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"

"""Made-up text in the form of WikiText-103's files: headings, sections, spaced punctuation, <unk>."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TRAIN, PART, VALID, TEST = (
    f"wiki.{name}.tokens" for name in ("train", "train.prefix", "valid", "test")
)  # as in wikitext-103-v1.zip, but for the part

_SYLLABLES = ["ka", "lo", "mi", "né", "ru", "sto", "vel", "qua", "戦", "ø"]
_MARKS = [",", "@-@", "<unk>", ";", "( 1 @,@ 204 )"]


def article(title: str, rng: np.random.Generator, sentences: int = 8) -> str:
    """One article; the second paragraph is in a section."""
    first, second = ([_sentence(rng) for _ in range(sentences)] for _ in range(2))
    lines = [f"= {title} =", "", " ".join(first), "", "= = History = =", "", " ".join(second), ""]
    return "".join(f" {line} \n" if line else " \n" for line in lines)


def _sentence(rng: np.random.Generator) -> str:
    words = ["".join(rng.choice(_SYLLABLES, rng.integers(1, 4))) for _ in range(rng.integers(4, 9))]
    return " ".join([*words, str(rng.choice(_MARKS)), words[0], "."])


def text(articles: int, seed: int = 0) -> str:
    """A whole file."""
    rng = np.random.default_rng(seed)
    return " \n" + "".join(article(f"Article {number} ( {seed} )", rng) for number in range(articles))


def write(folder: Path, *, seed: int = 0, part: bool = False, articles: int = 12) -> Path:
    """Training, validation and test text in `folder/wikitext-103`; returns `folder`."""
    inner = folder / "wikitext-103"
    inner.mkdir(parents=True)
    names = {PART if part else TRAIN: articles, VALID: 4, TEST: 4}
    for place, (name, count) in enumerate(names.items()):
        (inner / name).write_bytes(text(count, seed=10 * seed + place).encode())
    return folder

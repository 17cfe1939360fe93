"""Text in WikiText's form: articles, the word pieces learned from them, and windows of these.

A file of WikiText-103 (Merity et al. 2016) is UTF-8 with words and punctuation between spaces; an article
begins with a line ` = Title = ` between blank ones. Whatever is wrong with a file is said before anything is
trained.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.errors import InputError, MissingDependency, SourceError

__all__ = ["REMEDY", "Corpus", "Text", "cut", "files", "learn", "load", "read", "spread", "version"]

FOLDER = "wikitext-103"
TRAIN, PART, VALID = "wiki.train.tokens", "wiki.train.prefix.tokens", "wiki.valid.tokens"
WORDS = {TRAIN: 103_227_021, VALID: 217_646}  # Merity et al. 2016, table 1; ends of lines are words
REMEDY = "unpack wikitext-103-v1.zip again (with <unk>, not the raw form), and pass the --data that holds it"

Windows = npt.NDArray[np.int32]


# --- text ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """The articles of one file, as UTF-8; `words` counts what stands between spaces, and ends of lines."""

    file: Path
    articles: list[bytes]
    words: int

    def __str__(self) -> str:
        whole = WORDS[VALID if self.file.name == VALID else TRAIN]
        share = "all" if self.words == whole else f"WikiText-103 has {whole:,}"
        return f"{self.file}: {len(self.articles):,} articles, {self.words:,} words ({share})"


HEADING = re.compile(rb"^ = (?!= )[^\n]*[^\n= ] = ?$", re.MULTILINE)
BLANK = re.compile(rb"[ \n]*")


def read(file: Path, *, unchecked: bool = False) -> Text:
    """The articles of a file in WikiText's form: blank line, ` = Title = `, blank line, text.

    What follows the last end of line is left out of a part of the text, which ends anywhere, and `unchecked`
    of any file. Raises SourceError for a file that is absent, empty, cut off or damaged, saying where.
    """
    data = _bytes(file)
    end = data.rfind(b"\n") + 1
    if end < len(data) and not (unchecked or file.name == PART):
        raise SourceError(
            f"{file} ends in the middle of a line, after byte {len(data):,}: expected an end of line, so it "
            f"was cut off; {REMEDY}. --unchecked takes what is there, up to the last end of line"
        )
    data = data[:end]
    _check_characters(file, data)
    starts = [found.start() for found in HEADING.finditer(data) if _alone(data, *found.span())]
    if not starts:
        raise SourceError(
            f"{file} has no article: expected lines like ` = Title = ` between blank ones; {REMEDY}"
        )
    if data[: starts[0]].strip():
        raise SourceError(
            f"{file} has text before its first article's heading (byte {starts[0]:,}): expected a heading "
            f"first, so its beginning is missing; {REMEDY}"
        )
    words = len(re.findall(rb"[^ \n]+", data)) + data.count(b"\n")
    return Text(file, [data[start:stop] for start, stop in pairwise([*starts, len(data)])], words)


def _bytes(file: Path) -> bytes:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise SourceError(f"{file} is not there: expected a file of WikiText-103; {REMEDY}") from None
    except OSError as error:
        raise SourceError(f"{file} cannot be read ({error}); {REMEDY}") from error
    if not data.strip():
        raise SourceError(f"{file} is empty ({len(data)} bytes): expected articles; {REMEDY}")
    return data


def _check_characters(file: Path, data: bytes) -> None:
    try:
        data.decode()
        wrong, what = data.find(b"\0"), "a zero byte"
    except UnicodeDecodeError as error:
        wrong, what = error.start, f"no UTF-8 ({error.reason})"
    if wrong >= 0:
        raise SourceError(f"{file} is damaged at byte {wrong:,}: {what}, expected text; {REMEDY}")


def _alone(data: bytes, start: int, stop: int) -> bool:
    """Whether the line stands between blank ones, as headings of articles do: some cells of tables do not."""
    before = data.rfind(b"\n", 0, max(0, start - 1)) + 1
    after = data.find(b"\n", stop + 1)
    return not data[before:start].strip() and not data[stop:after].strip()


def files(data: str | Path) -> tuple[Path, Path]:
    """The training text, or the part of it that is there, and the validation text."""
    folder = Path(data)
    if (folder / FOLDER).is_dir():
        folder /= FOLDER
    found = [folder / name for name in (TRAIN, PART) if (folder / name).exists()]
    if not found:
        raise SourceError(
            f"{folder} has no {TRAIN}, nor {PART}: expected one of them there, or in {FOLDER} within it; "
            f"{REMEDY}"
        )
    return found[0], folder / VALID


# --- tokens -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """Windows (E, T) and (Z, T) of token ids, from 0 to vocabulary − 2, and what decodes them.

    articles: of how many the examples are. whole: they are all windows of WikiText-103.
    """

    windows: Windows
    population: Windows
    tokenizer: Any
    articles: int
    whole: bool

    @property
    def sha256(self) -> str:
        """Of all windows, with their shapes."""
        digest = hashlib.sha256()
        for part in (self.windows, self.population):
            digest.update(f"int32 {part.shape[0]}x{part.shape[1]}\n".encode() + part.astype("<i4").tobytes())
        return digest.hexdigest()


def load(
    data: str | Path,
    *,
    vocabulary: int,
    window: int,
    examples: int,
    population: int,
    unchecked: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> Corpus:
    """Reads the text, learns its word pieces, cuts the windows. Seconds for 3 MB of text, minutes for all.

    vocabulary: how many tokens at most. say: takes a line on each file. Raises SourceError for files that are
    not WikiText's, InputError where they have too few windows, MissingDependency without `tokenizers`.
    """
    texts = [read(file, unchecked=unchecked) for file in files(data)]
    for name, found in zip(("training", "validation"), texts, strict=True):
        say(f"{name} text from {found}")
    tokenizer = learn(texts[0].articles, vocabulary)
    windows, articles = cut(tokenizer, texts[0], window)
    rows = spread(examples, windows, texts[0], "examples")
    points, _ = cut(tokenizer, texts[1], window)
    points = points[~np.isin(_rows(points), _rows(windows))]  # no model has seen any of them
    taken = points[spread(population, points, texts[1], "population")]
    whole = texts[0].words == WORDS[TRAIN] and examples == len(windows)
    return Corpus(windows[rows], taken, tokenizer, len(np.unique(articles[rows])), whole)


def learn(articles: Sequence[bytes], vocabulary: int) -> Any:
    """A byte-level BPE of at most so many tokens: the same for the same text, whatever the machine."""
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as missing:
        raise MissingDependency(
            f"the wikitext pipeline needs tokenizers ({missing}); pip install 'lirastore[train]'"
        ) from missing
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=bytes_, show_progress=False)
    tokenizer.train_from_iterator((article.decode() for article in articles), trainer)
    return tokenizer


def version() -> str:
    """Of tokenizers: another one may learn other word pieces from the same text."""
    import tokenizers

    return str(tokenizers.__version__)


def cut(tokenizer: Any, source: Text, window: int) -> tuple[Windows, Windows]:
    """All windows of a text in their order, (n, window), and of which article each is, (n,); each once.

    Of equal windows the first counts: had a model seen the one, it would know the other.
    """
    found, articles = [np.empty((0, window), np.int32)], [np.empty(0, np.int32)]
    for number, ids in enumerate(_encoded(tokenizer, source.articles)):
        whole = len(ids) // window
        found.append(np.array(ids[: whole * window], np.int32).reshape(whole, window))
        articles.append(np.full(whole, number, np.int32))
    windows = np.concatenate(found)
    _, first = np.unique(_rows(windows), return_index=True)
    first.sort()
    return windows[first], np.concatenate(articles)[first]


def spread(count: int, windows: Windows, source: Text, what: str) -> npt.NDArray[np.int64]:
    """Which `count` of the windows are taken: evenly spread over the text. InputError if there are fewer."""
    if count > len(windows):
        raise InputError(
            f"{source.file} has {len(windows):,} different windows of {windows.shape[1]} tokens, and {what} "
            f"is {count:,}: set {what} to that or less, or shorten the window"
        )
    return np.arange(count, dtype=np.int64) * len(windows) // max(1, count)


def _rows(windows: Windows) -> npt.NDArray[Any]:
    """One value per window, for sets of them."""
    whole = np.dtype((np.void, windows.itemsize * windows.shape[1]))
    return np.ascontiguousarray(windows).view(whole)[:, 0]


def _encoded(tokenizer: Any, articles: Sequence[bytes]) -> Iterator[list[int]]:
    for start in range(0, len(articles), 64):
        some = [article.decode() for article in articles[start : start + 64]]
        yield from (found.ids for found in tokenizer.encode_batch(some, add_special_tokens=False))

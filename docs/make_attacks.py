"""Writes the reference pages anew: python docs/make_attacks.py FOLDER

attacks.md: every named attack, option and preset, as their own docstrings and parameters have them.
sql.md: every view and macro, as the comments in queries/*.sql have them.
`make docs` writes both to docs/; a test holds them to their sources.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from inspect import cleandoc
from pathlib import Path

import click

from lirastore import catalog
from lirastore.attacks import Attack, MinimumCounts, presets
from lirastore.attacks.algebra import TESTS
from lirastore.catalog import Definition
from lirastore.cli import attack as attack_command
from lirastore.signals import SIGNALS

WIDTH = 116
NOTE = "<!-- Written by docs/make_attacks.py (make docs): change the sources, not this page. -->"

# The signal of Merlin and Morgan is of a store's own: an array, or computed from queries.
MERLIN = "merlin"

# The rows of the talk's table and their variants, in its order. The rest comes in sections after it.
TALK = (
    "loss",
    "shokri",
    "merlin",
    "morgan",
    "modified_entropy",
    "sablayrolles",
    "long",
    "watson",
    "ye",
    "ye_population",
    "lira_online",
    "lira_offline",
    "lira_online_fixed",
    "lira_offline_fixed",
    "lira_online_full",
)

ATTACKS_INTRO = """
`lirastore attack STORE NAME…` scores every committed model as target, with its own outputs left out of every
statistic that it is scored with. IN and OUT are the other models trained with and without the example. Higher
scores always mean member. φ = z_y − logsumexp_{c≠y} z_c = log(p_y/(1 − p_y)) is the scaled logit of the label
y, ℓ the cross-entropy. A query is an augmentation of the example; a score over several is the mean of theirs.

`lirastore attack STORE` says which attacks a store has the data for and what the others lack; `--all` runs
all that it has the data for.
"""

SQL_INTRO = """
`lirastore query STORE NAME`, or any `SELECT` of DuckDB over these views and macros: `lirastore query STORE
"select attack, auc from metrics"`, `store.sql("from tpr_at_fpr(0.001)")`. A macro is called in `FROM`.
Queries are read-only. Rates and shares are fractions from 0 to 1.
"""

OWN = """
Every point of signal × test × queries is an attack: `lirastore attack STORE --name margin_watson --signal
hinge --test out-mean --queries all`, or `lirastore.attacks.compose` in Python. In the tests, s is the
target's value; μ and σ are the mean (or the median) and the standard deviation of the other models' values.
"""

PRESETS = """
`--preset` takes the numerics of another code, for comparisons with it. The preset is stamped on the scores
and shown in every table. The default, `paper`, is all of the above.
"""

# --- attacks.md ----------------------------------------------------------------------------------


def attacks_page() -> str:
    """The page of the attacks."""
    sections = list(attack_sections())
    chapters = [*(title for title, _ in sections), "Options", "Presets", "Variants of your own"]
    contents = [link(title) for title in chapters]
    for number, (_, attacks) in enumerate(sections):
        contents[number] += ": " + ", ".join(link(f"`{attack.name}`") for attack in attacks)
    listed = "\n".join(wrap(line, "- ") for line in contents)
    parts = [NOTE, "# Attacks", prose(ATTACKS_INTRO), listed]
    for title, attacks in sections:
        parts += [f"## {title}", *map(attack_entry, attacks)]
    parts += ["## Options", options_table()]
    parts += ["## Presets", *presets_chapter()]
    parts += ["## Variants of your own", prose(OWN), signals_table(), tests_table()]
    return page(parts)


def attack_sections() -> Iterator[tuple[str, list[Attack]]]:
    """(title, attacks) in the page's order; every attack of the preset `paper` once."""
    found = presets.attacks(presets.DEFAULT)
    talk = [found[name] for name in TALK]
    ablation = [attack for name, attack in found.items() if name.startswith("ablation_")]
    rest = [attack for attack in found.values() if attack not in talk and attack not in ablation]
    yield "The rows of the talk's table", talk
    yield "Its ablation, step by step", ablation
    yield "Newer attacks", [attack for attack in rest if attack.kind == "scores"]
    yield "Of examples, not of targets", [attack for attack in rest if attack.kind != "scores"]


def attack_entry(attack: Attack) -> str:
    """Heading, docstring, and what the attack's own fields say."""
    stamped = {key: value for key, value in attack.parameters.items() if key not in ("preset", "signal")}
    facts = {
        "Data": "; ".join(map(data_needed, attack.signals)),
        "Models": models_needed(attack),
        "Parameters": ", ".join(f"{key} `{value}`" for key, value in stamped.items()),
        "Options": "`--models K --queries q`: how well it does with fewer" if attack.limitable else "",
    }
    listed = "\n".join(f"- {label}: {fact}" for label, fact in facts.items() if fact)
    return f"### `{attack.name}`\n\n{prose(attack.doc)}\n\n{listed}"


def data_needed(signal: str) -> str:
    """`loss` (of `scaled_logit` or `logits`)."""
    if signal == MERLIN:
        return f"auxiliary array `{MERLIN}`, or queries named `noise(σ)#k`"
    arrays = [source for source in SIGNALS[signal].sources if source != signal] if signal in SIGNALS else []
    stored = "stored, or " if arrays and signal in SIGNALS[signal].sources else ""
    return f"`{signal}`" + (f" ({stored}of {either(arrays)})" if arrays else "")


def models_needed(attack: Attack) -> str:
    """Which models it reads, and how many there must be: 2 IN and 2 OUT besides the target."""
    needed = counts_needed(attack.minimum)
    if attack.kind != "scores":
        return f"all models; {needed}" if needed else "all models"
    if "folds" in attack.parameters:
        return f"the models of the other folds; {needed}" if needed else "the models of the other folds"
    return "the target alone" if attack.separate else needed


def counts_needed(minimum: MinimumCounts) -> str:
    """2 IN and 2 OUT besides the target; nothing if any number will do."""
    sides = [(minimum.n_in, "IN"), (minimum.n_out, "OUT")]
    needed = " and ".join(f"{count} {side}" for count, side in sides if count)
    degrees = f", {minimum.degrees} degrees of freedom a side over all examples" if minimum.degrees else ""
    return f"{needed}{' besides the target' * minimum.leave_one_out}{degrees}" if needed else ""


def options_table() -> str:
    """The options of the command, as its help has them."""
    context = click.Context(attack_command)
    options = [option for option in attack_command.params if isinstance(option, click.Option)]
    records = [option.get_help_record(context) or ("", "") for option in options]
    rows = [(f"`{flags}`", escape(" ".join(meaning.split()))) for flags, meaning in records]
    return table(("option", "meaning"), rows)


def presets_chapter() -> Iterator[str]:
    """What differs in each preset, as its module says, and what it defines."""
    yield prose(PRESETS)
    for name, define in presets.PRESETS.items():
        if name != presets.DEFAULT:
            defined = ", ".join(f"`{attack}`" for attack in presets.attacks(name))
            yield f"### `{name}`"
            yield prose(sys.modules[define.__module__].__doc__ or "")
            yield prose(f"It defines {defined}.")


def signals_table() -> str:
    """What attacks look at."""
    rows = [(f"`{name}`", either(signal.sources), escape(signal.doc)) for name, signal in SIGNALS.items()]
    return table(("signal", "computed from", "higher means member"), rows)


def either(arrays: Iterable[str]) -> str:
    """`scaled_logit` or `logits`."""
    return " or ".join(f"`{array}`" for array in arrays)


def tests_table() -> str:
    """What they do with it."""
    rows = [(f"`{name}`", escape(test.doc)) for name, test in TESTS.items()]
    return table(("test", "score for the target's s"), rows)


# --- sql.md --------------------------------------------------------------------------------------


def sql_page() -> str:
    """The page of the views and macros."""
    found = catalog.describe()
    parts = [NOTE, "# What can be asked in SQL", prose(SQL_INTRO)]
    parts += [table(("", "answers"), [(link(f"`{each.signature}`"), summary(each)) for each in found])]
    for kind, title in (("view", "Views"), ("macro", "Macros")):
        parts += [f"## {title}", *(sql_entry(each) for each in found if each.kind == kind)]
    return page(parts)


def summary(definition: Definition) -> str:
    """The first sentence of the comment."""
    text = " ".join(definition.comment.split("\n\n")[0].split())
    return escape(re.split(r"(?<=[.?!]) (?=[A-Z])", text)[0])


def sql_entry(definition: Definition) -> str:
    """Heading, comment, columns."""
    text, columns = split_comment(definition.comment)
    rows = [
        (", ".join(f"`{name}`" for name in names.split(", ")), escape(meaning)) for names, meaning in columns
    ]
    return page([f"### `{definition.signature}`", prose(text), table(("column", "meaning"), rows)]).rstrip()


def split_comment(comment: str) -> tuple[str, list[tuple[str, str]]]:
    """The prose of a comment, and (names, meaning) of each line about columns with those that carry it on."""
    text, columns = [], []
    for line in comment.splitlines():
        if match := re.match(r"  (\w+(?:, \w+)*) +(\S.*)", line):
            columns.append((match[1], match[2]))
        elif columns and line.startswith("   "):
            names, meaning = columns.pop()
            columns.append((names, f"{meaning} {line.strip()}"))
        else:
            text.append(line)
    return "\n".join(text), columns


# --- Markdown ------------------------------------------------------------------------------------


def page(parts: Iterable[str]) -> str:
    """Blocks, an empty line between them."""
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def prose(text: str) -> str:
    """Paragraphs and lists of a docstring or comment, wrapped anew, what Markdown takes amiss escaped."""
    return "\n\n".join(
        block(paragraph) for paragraph in re.split(r"\n\s*\n", cleandoc(text)) if paragraph.strip()
    )


def block(paragraph: str) -> str:
    """A paragraph, or a list and the lines that lead to it."""
    lead, *items = re.split(r"^\s*[*-] ", paragraph, flags=re.MULTILINE)
    wrapped = [wrap(lead)] if lead.strip() else []
    return "\n\n".join([*wrapped, *(["\n".join(wrap(item, "- ") for item in items)] if items else [])])


def wrap(text: str, bullet: str = "") -> str:
    """Lines of at most WIDTH; none begins as a list, a heading or a quotation does."""
    indent = " " * len(bullet)
    lines = textwrap.wrap(
        escape(" ".join(text.split())), WIDTH - len(bullet), break_long_words=False, break_on_hyphens=False
    )
    safe = [re.sub(r"^([-+>#])(?=\s|$)|^(\d+)([.)])(?=\s|$)", _disarmed, line) for line in lines]
    return "\n".join((bullet if number == 0 else indent) + line for number, line in enumerate(safe))


def _disarmed(match: re.Match[str]) -> str:
    return f"\\{match[1]}" if match[1] else f"{match[2]}\\{match[3]}"


def escape(text: str) -> str:
    """Text for Markdown: outside `code`, what would be emphasis, struck out or a tag is escaped."""
    pieces = re.split(r"(`[^`]*`)", text)
    pieces[::2] = [re.sub(r"[*<~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", piece) for piece in pieces[::2]]
    return "".join(pieces)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table; nothing without rows. Cells are Markdown already, and may hold bars."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells] if cells else []
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def link(title: str) -> str:
    """A link to the heading of that title on the same page."""
    anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
    return f"[{title}](#{anchor})"


# --- the command ---------------------------------------------------------------------------------


def pages() -> Mapping[str, str]:
    """name -> text of every page that this script writes."""
    return {"attacks.md": attacks_page(), "sql.md": sql_page()}


def main(folder: Path) -> None:
    """Writes them."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))

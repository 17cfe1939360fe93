"""The sections that say what was run, and what to do before there is anything."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lirastore.errors import name_some
from lirastore.report.content import ReportData
from lirastore.report.formats import NOTHING, moment, size
from lirastore.report.markup import Markup, element, join
from lirastore.report.parts import head, section, table
from lirastore.results import Result

__all__ = ["nothing_yet", "record"]


def nothing_yet(data: ReportData) -> Markup:
    """What to do before there is anything to show."""
    missing = data.facts.info.models - data.facts.committed
    pending = f" {missing:,} of the planned models are missing; they can be added later." if missing else ""
    return element(
        "section",
        element("h2", "No attack has run yet"),
        element("p", f"Score every committed model, then write this report again.{pending}"),
        element("p", element("code", "lirastore attack STORE --all")),
        class_="empty",
    )


# --- what was run ---------------------------------------------------------------------------------


def record(data: ReportData) -> Markup:
    """Everything needed to tell exactly what this report is about, and to do it again."""
    facts = [join(element("dt", name), element("dd", value)) for name, value in _facts(data).items()]
    return section(
        "record",
        "What was run",
        element("dl", facts, class_="record"),
        _runs("Attacks that were run", [run for run in data.runs if run.kind != "power"], data.stale),
        _runs(
            "Attacks with fewer shadow models", [run for run in data.runs if run.kind == "power"], data.stale
        ),
    )


def _facts(data: ReportData) -> dict[str, object]:
    info = data.facts.info
    augmentations = name_some(info.augmentations, most=24)
    return {
        "Set digest": element("code", data.facts.set_digest),
        "Data set": [info.name or NOTHING, ", fingerprint ", element("code", info.fingerprint)],
        "Models": f"{data.facts.committed:,} committed of {info.models:,} planned",
        "Examples": f"{info.examples:,}",
        "Queries": element("code", augmentations),
        "Subset design": element("code", _settings(info.design)),
        "Stored as": f"{info.dtype}, format {info.format}",
        "Store created": f"{moment(info.created_at)} by lirastore {info.library_version}",
        "Software": ", ".join(f"{name} {version}" for name, version in data.versions.items()),
    }


def _runs(title: str, runs: Sequence[Result], stale: Collection[str]) -> Markup | None:
    if not runs:
        return None
    names = ["Attack", "Preset", "Models", "Shadows", "Finished", "Seconds", "Read", "Parameters"]
    body = element("tbody", [_run_row(run, stale=run.attack in stale) for run in runs])
    made = table(title, [head(names, text=(0, 1, 3, 4, 7))], body)
    return element("details", element("summary", f"{title}: {len(runs):,}"), made)


def _run_row(run: Result, *, stale: bool) -> Markup:
    parameters = {name: value for name, value in run.parameters.items() if name != "preset"}
    return element(
        "tr",
        element("th", run.attack, element("small", " (stale)") if stale else None, scope="row"),
        element("td", run.preset, class_="text"),
        element("td", f"{len(run.models):,}"),
        element("td", f"equal counts, seed {run.seed}" if run.equal_counts else "all others", class_="text"),
        element("td", moment(run.finished_at), class_="text"),
        element("td", f"{run.seconds:.1f}"),
        element("td", size(run.bytes_read)),
        element("td", element("code", _settings(parameters)), class_="long"),
    )


def _settings(values: Mapping[str, Any]) -> str:
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for name, value in values.items()
    }
    return ", ".join(f"{name}={text}" for name, text in texts.items())

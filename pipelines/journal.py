"""What a run says on stderr: a line per model, models per hour, time left, and what storing cost."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from tqdm import tqdm

from lirastore.errors import name_some

__all__ = ["Clock", "Cost", "Event", "Journal"]

SILENCE = 60.0  # seconds after which a log that is no terminal gets a line about the model at work


@dataclass(frozen=True)
class Event:
    """Something that happened to a model, in whichever process.

    `taken`: another job committed it meanwhile. `diverged`: `message` says how.
    """

    kind: Literal["epoch", "committed", "taken", "diverged"]
    model: int
    message: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    unit: str = "images"


@dataclass(frozen=True)
class Cost:
    """Of a process that trained: seconds by the clock and of its processors, and the parts that storing took.

    `waited` are seconds in which training stood still because of storing; `stored` are processor seconds,
    most of which pass beside the training.
    """

    seconds: float
    cpu: float
    waited: float
    stored: float

    @classmethod
    def total(cls, costs: Sequence[Cost]) -> Cost:
        """Of processes side by side."""
        rows = [(c.seconds, c.cpu, c.waited, c.stored) for c in costs]
        return cls(*(sum(column) for column in zip(*rows, strict=True)))


class Clock:
    """Measures `waited` and `stored` of a process while it trains; see Cost."""

    def __init__(self) -> None:
        self.waited = self.stored = 0.0
        self._lock = threading.Lock()

    def spent(self, seconds: float) -> None:
        """Adds processor seconds, in whichever thread they were spent."""
        with self._lock:
            self.stored += seconds

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Training stands still in here."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - start


class Journal:
    """Listens to events, and tells a person: lines for what is finished, a bar where stderr is a terminal."""

    def __init__(self, models: int, *, epochs: int | None, shown: bool) -> None:
        self._models, self._epochs, self._shown = models, epochs, shown
        self._started = self._spoke = time.monotonic()
        self.committed: list[int] = []
        self.diverged: dict[int, str] = {}
        self._ended = 0
        self._lock = threading.Lock()  # the thread that commits tells of it
        self._bar = tqdm(total=models, unit="model", file=sys.stderr, disable=None if shown else True)

    def say(self, line: str) -> None:
        """Prints one line on stderr, above the bar if there is one."""
        if self._shown:
            tqdm.write(line, file=sys.stderr)
            sys.stderr.flush()
            self._spoke = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Takes note of an event, from whichever thread."""
        with self._lock:
            self._epoch(event) if event.kind == "epoch" else self._end(event)

    def _end(self, event: Event) -> None:
        self._ended += 1
        self._bar.update()
        if event.kind == "committed":
            self.committed.append(event.model)
            self.say(f"model {event.model}: {_describe(event)}; {self._pace()}")
        elif event.kind == "taken":
            self.say(f"model {event.model}: another job committed it first; {self._pace()}")
        else:
            self.diverged[event.model] = event.message
            self.say(f"{event.message}; {self._pace()}")

    def close(self) -> None:
        """Removes the bar."""
        self._bar.close()

    def summary(self, costs: Sequence[Cost]) -> None:
        """Says how long it took, how fast that was, and what storing cost."""
        hours = (time.monotonic() - self._started) / 3600
        done = len(self.committed)
        self.say(
            f"committed {done} of {self._models} in {_span(3600 * hours)}: {done / hours:.1f} models/hour"
        )
        if self.diverged:
            self.say(f"diverged, and not committed: {name_some(sorted(self.diverged))}")
        cost = Cost.total(costs)
        self.say(
            f"storing: {cost.waited:.2f} s of waiting, {cost.waited / cost.seconds:.2%} of the time; "
            f"{cost.stored:.2f} s of processor time, {cost.stored / max(cost.cpu, 1e-9):.2%} of all"
        )

    def _epoch(self, event: Event) -> None:
        at = f"model {event.model}, epoch {event.facts['epoch']}"
        at += f"/{self._epochs}" if self._epochs else ""
        self._bar.set_postfix_str(at)
        if self._bar.disable and time.monotonic() - self._spoke > SILENCE:
            self.say(f"{at}: loss {event.facts['loss']:.4g}, {event.facts['rate']:,.0f} {event.unit}/s")

    def _pace(self) -> str:
        elapsed = time.monotonic() - self._started
        left = (self._models - self._ended) * elapsed / self._ended
        pace = f"{self._ended} of {self._models}, {3600 * self._ended / elapsed:.1f} models/hour"
        return f"{pace}, {_span(left)} left" if left else pace


def _describe(event: Event) -> str:
    facts = event.facts
    accuracies = {name: facts.get(f"{name}_accuracy") for name in ("train", "test")}
    parts = [
        f"{facts['seconds']:.1f} s",
        *(f"loss {loss:.4g}" for loss in facts["loss_curve"][-1:]),
        *(f"{name} {value:.1%}" for name, value in accuracies.items() if value is not None),
        f"{facts[f'{event.unit}_per_second']:,.0f} {event.unit}/s",
    ]
    return ", ".join(parts)


def _span(seconds: float) -> str:
    """A length of time for people: 48 s, 12 min, 3 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"

"""What a run says on stderr, by a clock of the test."""

from __future__ import annotations

import io
import sys
import threading
import types

import pytest

from lirastore.pipelines import journal as journal_module
from lirastore.pipelines.journal import SILENCE, Cost, Event, Journal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """`now` is the time, in seconds."""
    found = types.SimpleNamespace(now=5000.0)
    monkeypatch.setattr(journal_module, "time", types.SimpleNamespace(monotonic=lambda: found.now))
    return found


def committed(model: int, **facts: object) -> Event:
    facts = {"seconds": 41.26, "loss_curve": [2.0, 0.12345], **facts}
    return Event("committed", model, facts=facts)


RATE = {"images_per_second": 12345.6}


def test_a_line_for_every_model_with_pace_and_time_left(
    clock: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(5, epochs=2, shown=True)
    clock.now += 60
    journal(committed(3, train_accuracy=0.9876, test_accuracy=0.5, **RATE))
    clock.now += 120
    journal(Event("taken", 1))
    clock.now += 60
    journal(Event("diverged", 0, "model 0: the training loss is nan in epoch 1"))
    clock.now += 3 * 3600
    journal(committed(2, **RATE))
    journal(committed(4, loss_curve=[], **RATE))
    journal.close()
    out, said = capsys.readouterr()
    assert out == ""
    assert said.splitlines() == [
        "model 3: 41.3 s, loss 0.1235, train 98.8%, test 50.0%, 12,346 images/s; "
        "1 of 5, 60.0 models/hour, 4 min left",
        "model 1: another job committed it first; 2 of 5, 40.0 models/hour, 4 min left",
        "model 0: the training loss is nan in epoch 1; 3 of 5, 45.0 models/hour, 3 min left",
        "model 2: 41.3 s, loss 0.1235, 12,346 images/s; 4 of 5, 1.3 models/hour, 46 min left",
        "model 4: 41.3 s, 12,346 images/s; 5 of 5, 1.6 models/hour",
    ]
    assert journal.committed == [3, 2, 4]
    assert journal.diverged == {0: "model 0: the training loss is nan in epoch 1"}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0 s"),
        (48, "48 s"),
        (99, "99 s"),
        (100, "2 min"),
        (3540, "59 min"),
        (3600, "1 h 00 min"),
        (11100, "3 h 05 min"),
    ],
)
def test_lengths_of_time(seconds: float, expected: str) -> None:
    assert journal_module._span(seconds) == expected


def test_the_summary(clock: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(4, epochs=2, shown=True)
    clock.now += 1800
    journal(committed(0, **RATE))
    journal(Event("diverged", 3, "model 3: no"))
    journal(committed(1, **RATE))
    clock.now += 5400
    capsys.readouterr()
    journal.summary([Cost(100.0, 150.0, 1.0, 4.0), Cost(300.0, 50.0, 3.0, 1.0)])
    assert capsys.readouterr().err.splitlines() == [
        "committed 2 of 4 in 2 h 00 min: 1.0 models/hour",
        "diverged, and not committed: 3",
        "storing: 4.00 s of waiting, 1.00% of the time; 5.00 s of processor time, 2.50% of all",
    ]


def test_a_log_is_not_silent_for_long(
    clock: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of many epochs gets a line a minute where no bar shows that it lives."""

    def epoch(number: int) -> None:
        facts = {"epoch": number, "loss": 0.25, "rate": 1234.0}
        journal(Event("epoch", 7, facts=facts, unit="tokens"))

    journal = Journal(2, epochs=90, shown=True)
    for number in range(1, 5):
        clock.now += SILENCE / 2
        epoch(number)
    assert capsys.readouterr().err == "model 7, epoch 3/90: loss 0.25, 1,234 tokens/s\n"
    journal(committed(1, **RATE))  # whatever is said counts
    clock.now += SILENCE
    epoch(5)
    assert "epoch" not in capsys.readouterr().err
    clock.now += 1
    epoch(6)
    assert capsys.readouterr().err.startswith("model 7, epoch 6/90: ")


def test_quiet(clock: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(2, epochs=None, shown=False)
    clock.now += 2 * SILENCE
    journal.say("training")
    journal(Event("epoch", 0, facts={"epoch": 1, "loss": 0.5, "rate": 1.0}))
    journal(committed(0, **RATE))
    journal(Event("diverged", 1, "model 1: no"))
    journal.summary([Cost(1.0, 1.0, 0.0, 0.0)])
    journal.close()
    assert capsys.readouterr() == ("", "")
    assert (journal.committed, journal.diverged) == ([0], {1: "model 1: no"})


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_model_at_work(
    clock: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(journal_module.sys, "stderr", terminal)
    journal = Journal(2, epochs=3, shown=True)
    clock.now += 2 * SILENCE
    journal(Event("epoch", 1, facts={"epoch": 2, "loss": 0.5, "rate": 1.0}))
    journal(committed(1, **RATE))
    journal.close()
    assert "model 1, epoch 2/3" in terminal.getvalue()
    assert "\rmodel 1: 41.3 s, " in terminal.getvalue()
    assert "loss 0.5," not in terminal.getvalue()  # the line for logs


def test_events_from_several_threads_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        tell_from_threads()
    finally:
        sys.setswitchinterval(interval)
    counted = [int(line.split("; ")[1].split(" of ")[0]) for line in capsys.readouterr().err.splitlines()]
    assert counted == list(range(1, 401))


def tell_from_threads() -> None:
    journal = Journal(400, epochs=None, shown=True)
    threads = [
        threading.Thread(target=lambda n=n: [journal(committed(m, **RATE)) for m in range(n, n + 100)])
        for n in range(0, 400, 100)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(journal.committed) == list(range(400))


def test_totals_of_processes_side_by_side() -> None:
    assert Cost.total([Cost(1, 2, 3, 4), Cost(10, 20, 30, 40)]) == Cost(11, 22, 33, 44)

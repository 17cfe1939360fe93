"""Several models at a time, in processes of their own that are ended, killed and left alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lirastore
from lirastore.errors import InputError, LirastoreError, SourceError, TrainingDiverged, TrainingFailed

torch = pytest.importorskip("torch", reason="pipelines train with torch")

import toy  # noqa: E402

from lirastore.pipelines import running, together  # noqa: E402
from lirastore.pipelines.journal import Cost, Event, Journal  # noqa: E402

PATIENCE = 120  # seconds after which a test that hangs fails
HERE = Path(__file__).parent
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", toy.VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[int, np.ndarray]:
    """The outputs of models that nothing disturbed, trained one after the other."""
    store = toy.prepare(tmp_path_factory.mktemp("reference") / "a.lira", recipe="tiny")
    toy.train(store, progress=False)
    return toy.logits(store)


def assert_equal(found: dict[int, np.ndarray], expected: dict[int, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for model, values in expected.items():
        np.testing.assert_array_equal(found[model], values)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `lirastore train a.lira --together 2` in a process group of its own, with faults."""
    started = []

    def begin(faults: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lirastore", "train", "a.lira", "--pipeline", str(HERE / "toy.py")]
        process = subprocess.Popen(
            [*command, "--recipe", "tiny", "--together", "2"],
            cwd=tmp_path,
            env={**os.environ, toy.VARIABLE: faults},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if not process.stderr.closed:  # the test has failed
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def until(done: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_models_at_work(path: Path, models: list[int]) -> list[int]:
    """Waits until those hang, each in its process, and everything before them is committed; the processes."""
    marks = [toy.mark(path, model) for model in models]
    until(lambda: all(mark.exists() and mark.read_text() for mark in marks))
    until(lambda: len(lirastore.open(path).committed()) == min(models))
    return [int(mark.read_text()) for mark in marks]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


# --- real processes -----------------------------------------------------------------------------------


@pytest.fixture
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forks a server that has imported torch, instead of starting afresh; the other tests do that."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["lirastore.pipelines.together"])
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: server)


@pytest.mark.usefixtures("quick_start")
def test_models_do_not_depend_on_how_many_are_trained_together(
    tmp_path: Path,
    reference: dict[int, np.ndarray],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Two that diverge included; they are trained by a single process afterwards."""
    store = toy.prepare(tmp_path / "a.lira", recipe="tiny")
    trainer = partial(toy.Trainer, faults="nan-loss:1,nan-outputs:4")
    with pytest.raises(
        TrainingDiverged, match=r"not committed: 1, 4\. The first: model 1: the training loss"
    ):
        running.train(store, trainer, together=2)
    out, said = capfd.readouterr()
    assert out == ""
    lines = said.splitlines()
    assert lines[0] == f"training 5 models of {store.path} on cpu, 2 at a time"
    assert sum(": another job" in line for line in lines) == 0
    for model in (0, 2, 3):
        (line,) = [line for line in lines if line.startswith(f"model {model}: ")]
        assert " images/s; " in line
    assert lines[-3].startswith("committed 3 of 5 in ")
    assert lines[-2] == "diverged, and not committed: 1, 4"
    assert lines[-1].startswith("storing: ")
    assert len(lines) == 9  # the processes say nothing themselves
    assert store.pending() == [1, 4]
    assert toy.tidy(store)
    assert toy.train(store, progress=False) == [1, 4]
    assert_equal(toy.logits(store), reference)
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("quick_start")
def test_a_process_that_is_killed(
    tmp_path: Path,
    reference: dict[int, np.ndarray],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The other one is ended; what both had committed is kept."""
    store = toy.prepare(tmp_path / "a.lira", recipe="tiny")
    with pytest.raises(TrainingFailed) as raised:
        running.train(store, partial(toy.Trainer, faults="kill:3,hang-write:4"), together=2)
    message = "a training process ended by signal 9 at model 3; signal 9 often means that memory ran out"
    assert str(raised.value).startswith(message)
    assert "Committed models are kept, and the same command goes on" in str(raised.value)
    assert multiprocessing.active_children() == []
    committed = store.committed().tolist()
    assert set(committed) <= {0, 1, 2}  # the last of each process may have been on their way
    left = {path.name for path in (store.path / "_lirastore" / "staging").iterdir()}
    assert left <= {"0", "1", "2", "3"} - {str(model) for model in committed}  # the killed one's
    said = capfd.readouterr().err
    assert "Traceback" not in said
    trained = toy.train(store, progress=False)
    assert {3, 4} <= set(trained) <= {0, 1, 2, 3, 4} - set(committed)  # what was claimed is completed
    assert_equal(toy.logits(store), reference)


@linux
def test_terminated(tmp_path: Path, start: Any, reference: dict[int, np.ndarray]) -> None:
    process = start("hang-fit:2,hang-write:3")
    pids = wait_for_models_at_work(tmp_path / "a.lira", [2, 3])
    os.killpg(
        process.pid, signal.SIGTERM
    )  # as schedulers do; the trainers get a second one from their parent
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert out == ""
    assert err.splitlines()[-1] == (
        "terminated; what was finished is kept, and the same command carries on from there"
    )
    assert "Traceback" not in err
    assert not any(map(alive, pids))
    store = lirastore.open(tmp_path / "a.lira")
    assert store.committed().tolist() == [0, 1]
    assert toy.tidy(store)
    assert toy.train(store, progress=False) == [2, 3, 4]
    assert_equal(toy.logits(store), reference)


@linux
def test_interrupted_from_the_keyboard(tmp_path: Path, start: Any) -> None:
    """Only the process that started the others has something to say about it, and ends them."""
    process = start("hang-write:0,hang-fit:1")
    pids = wait_for_models_at_work(tmp_path / "a.lira", [0, 1])
    for pid in pids:
        os.kill(pid, signal.SIGINT)
    time.sleep(0.3)  # long enough for a traceback
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert [line for line in err.splitlines() if line and not line.startswith("training 5 models")] == [
        "interrupted; what was finished is kept, and the same command carries on from there"
    ]
    assert not any(map(alive, pids))
    assert toy.tidy(lirastore.open(tmp_path / "a.lira"))


@linux
def test_processes_whose_parent_is_killed_end_by_themselves(tmp_path: Path, start: Any) -> None:
    process = start("hang-fit:0,hang-write:1")
    pids = wait_for_models_at_work(tmp_path / "a.lira", [0, 1])
    process.kill()
    _, err = process.communicate(timeout=PATIENCE)  # until nobody has its stderr open
    until(lambda: not any(map(alive, pids)))
    assert [line for line in err.splitlines() if not line.startswith("training 5 models")] == []
    assert toy.tidy(lirastore.open(tmp_path / "a.lira"))


def test_a_process_does_not_hear_ctrl_c_before_it_can_say_so() -> None:
    code = "import sys; print('ready', flush=True); print(sys.stdin.readline(), end='')"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with together._deaf_to_interrupts():
        process = subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate("heard nothing\n", timeout=PATIENCE) == ("heard nothing\n", "")
    assert process.returncode == 0


# --- what the one who started them makes of what they say ----------------------------------------------


@dataclass
class Ended:
    """A process, as far as `_serve` is concerned."""

    exitcode: int | None

    def join(self, timeout: float) -> None:
        """It has ended already."""


class Child:
    """The other end of the pipe."""

    def __init__(self, exitcode: int = -9) -> None:
        self.ours, self.line = multiprocessing.Pipe()
        self.process: Any = Ended(exitcode)


def serve(*children: Child, models: list[int]) -> tuple[list[Cost], Journal]:
    journal = Journal(len(models) or 1, epochs=None, shown=False)
    served = together._serve({child.ours: child.process for child in children}, iter(models), journal)
    return list(served), journal


COST = Cost(10.0, 5.0, 1.0, 0.5)


def test_models_are_handed_out_in_order_and_events_reach_the_journal() -> None:
    children = [Child(), Child()]
    received: list[list[int]] = [[], []]

    def play(number: int) -> None:
        line = together._Line(children[number].line)
        for model in line.models():
            received[number].append(model)
            line.say(Event("diverged", model, f"model {model}: no"))
        line.say(COST)

    threads = [threading.Thread(target=play, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    costs, journal = serve(*children, models=list(range(20)))
    for thread in threads:
        thread.join(PATIENCE)
    assert costs == [COST, COST]
    assert sorted(received[0] + received[1]) == list(range(20))
    assert all(models == sorted(models) for models in received)
    assert sorted(journal.diverged) == list(range(20))


def test_a_process_that_ends_before_its_first_word() -> None:
    child = Child(exitcode=1)
    child.line.close()
    with pytest.raises(TrainingFailed, match=r"^a training process ended with exit code 1\. Committed"):
        serve(child, models=[0, 1])


def test_a_process_that_is_killed_as_it_waits_for_a_model() -> None:
    """Answering it is EPIPE, which on the command line would pass for a reader that has had enough."""
    child = Child()
    child.line.send(None)
    child.line.close()
    with pytest.raises(TrainingFailed, match="ended by signal 9 at model 7"):
        serve(child, models=[7])


def test_a_process_that_is_killed_before_it_reads_the_answer() -> None:
    """What it had not read makes the end of the pipe a reset connection."""
    child = Child()
    child.line.send(None)
    answered = together._serve({child.ours: child.process}, iter([7]), Journal(1, epochs=None, shown=False))
    thread = threading.Thread(target=lambda: (until(child.line.poll), child.line.close()))
    thread.start()
    with pytest.raises(TrainingFailed, match="ended by signal 9 at model 7"):
        list(answered)
    thread.join(PATIENCE)


def test_a_process_that_is_killed_as_it_speaks() -> None:
    child = Child()
    os.write(child.line.fileno(), b"\x00\x00\x10\x00only the beginning of 4,096 bytes")
    child.line.close()
    with pytest.raises(TrainingFailed, match="ended by signal 9"):
        serve(child, models=[0])


def test_an_error_of_a_process_is_raised_as_it_is() -> None:
    child = Child()
    child.line.send(SourceError("train.bin: 3 bytes; expected 4"))
    with pytest.raises(SourceError, match=r"train\.bin: 3 bytes; expected 4"):
        serve(child, models=[0])


# --- what the processes say ----------------------------------------------------------------------------


class Strict(LirastoreError):
    """An error that cannot be made from its message alone."""

    def __init__(self, file: str, line: int) -> None:
        super().__init__(f"{file}: line {line}")

    def __reduce__(self) -> Any:  # as exceptions are pickled where tblib is not installed
        return Strict, self.args


class Vague(LirastoreError):
    """An error whose message does not survive its pickle."""

    def __init__(self, file: str = "?") -> None:
        super().__init__(f"in {file}")

    def __reduce__(self) -> Any:
        return Vague, ()


class Local(LirastoreError):
    """An error that cannot be pickled."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


@pytest.mark.parametrize("error", [InputError("width is 0"), FileNotFoundError(2, "No such file", "a.bin")])
def test_errors_that_need_no_traceback_arrive_as_they_are(error: Exception) -> None:
    assert together._portable(error) is error


@pytest.mark.parametrize("error", [Strict("a.bin", 3), Vague("b.bin"), Local("a lock"), KeyError(3)])
def test_other_errors_arrive_with_their_traceback(error: Exception) -> None:
    def culprit() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        culprit()
    found = together._portable(raised.value)
    assert type(found) is TrainingFailed
    assert "in culprit" in str(found)
    assert str(error) in str(found)


@pytest.mark.parametrize("unread", [False, True])
def test_who_has_nobody_to_speak_to_ends_in_silence(unread: bool, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = multiprocessing.Pipe()
    line = together._Line(theirs)
    if unread:  # makes it ECONNRESET instead of the end of the file
        theirs.send("something")
    ours.close()
    with pytest.raises(SystemExit) as ended:
        list(line.models())
    assert ended.value.code == 1
    with pytest.raises(SystemExit):
        line.say(COST)
    assert capsys.readouterr().err == ""


def test_a_parent_that_dies_while_a_model_is_waited_for() -> None:
    ours, theirs = multiprocessing.Pipe()
    models = together._Line(theirs).models()
    threading.Thread(target=lambda: (ours.recv(), ours.close())).start()
    with pytest.raises(SystemExit):
        next(models)


def test_who_is_ended_with_more_to_say_than_the_pipe_holds_need_not_be_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody listens any more: closing the pipe lets it go on, to the end of its tidying up."""
    monkeypatch.setattr(together, "PATIENCE", 60)
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    ready = fork.Event()
    process = fork.Process(target=_talk, args=(ours, theirs, ready))
    process.start()
    theirs.close()
    assert ready.wait(PATIENCE)
    together._end({ours: process})
    assert process.exitcode == 42


def _talk(ours: Connection, theirs: Connection, ready: Any) -> None:
    ours.close()
    signal.signal(signal.SIGTERM, lambda *_: None)
    buffer = socket.socket(fileno=os.dup(theirs.fileno())).getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    ready.set()
    try:
        together._Line(theirs).say("x" * 10 * buffer)
    except SystemExit:
        os._exit(42)
    os._exit(1)


def test_a_second_signal_does_not_disturb_the_tidying_up() -> None:
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, together._terminate)
    try:
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGTERM)
        assert ended.value.code == 143
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_cannot_be_sent_to_processes(tmp_path: Path) -> None:
    store = toy.prepare(tmp_path / "a.lira", recipe="tiny")
    with pytest.raises(
        InputError, match=r"several models together are trained in processes, to which .*lambda"
    ):
        running.train(store, lambda *given: toy.Trainer(*given), together=2, progress=False)
    with pytest.raises(
        InputError, match=r"make trainers by a class of a module, or functools\.partial of it"
    ):
        lock = threading.Lock()
        running.train(store, partial(toy.Trainer, lock), together=2, progress=False)

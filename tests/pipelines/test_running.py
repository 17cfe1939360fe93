"""Training in one process: what is left, what is recorded, and what happens when something goes wrong."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lirastore
from lirastore.errors import (
    InputError,
    LostClaim,
    NonFiniteLogits,
    TrainingDiverged,
    TrainingFailed,
    UnknownModel,
)
from lirastore.store.attempt import Attempt
from lirastore.store.conveyor import Conveyor
from lirastore.store.writer import ModelWriter

torch = pytest.importorskip("torch", reason="pipelines train with torch")

import toy  # noqa: E402

from lirastore.pipelines import provenance, running  # noqa: E402
from lirastore.pipelines.journal import Cost, Event  # noqa: E402

PATIENCE = 60  # seconds after which a test that hangs fails


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", toy.VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[int, np.ndarray]:
    """The outputs of models that nothing disturbed."""
    store = toy.prepare(tmp_path_factory.mktemp("reference") / "a.lira", recipe="tiny")
    toy.train(store, progress=False)
    return toy.logits(store)


@pytest.fixture
def store(tmp_path: Path) -> lirastore.Store:
    return toy.prepare(tmp_path / "a.lira", recipe="tiny")


def assert_equal(found: dict[int, np.ndarray], expected: dict[int, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for model, values in expected.items():
        np.testing.assert_array_equal(found[model], values)


def work(store: lirastore.Store, trainer: Any, models: Any, tell: running.Tell = lambda event: None) -> Cost:
    return running.Worker(store, trainer(store, torch.device("cpu")), torch.device("cpu"), tell).run(models)


# --- an ordinary run ----------------------------------------------------------------------------------


def test_every_model_is_trained_once_whatever_the_order(
    store: lirastore.Store, reference: dict[int, np.ndarray]
) -> None:
    assert toy.train(store, models=[3], progress=False) == [3]
    assert toy.train(store, models=[4, 3, 0, 4], progress=False) == [0, 4]
    assert toy.train(store, progress=False) == [1, 2]
    assert toy.train(store, progress=False) == []
    assert_equal(toy.logits(store), reference)
    assert len({values.tobytes() for values in reference.values()}) == 5
    assert toy.tidy(store)


def test_what_is_recorded(store: lirastore.Store) -> None:
    toy.train(store, models=[2], progress=False)
    found = store.logits.commits()[2].metadata
    losses, seconds = found["loss_curve"], found["seconds"]
    expected = {"pipeline": "toy", "recipe": "tiny", "seed": 0, "epochs": 3, "loss_curve": losses}
    assert {name: found[name] for name in expected} == expected
    assert found["device"] == "cpu"
    beside = {"torchvision", "tokenizers"} & sys.modules.keys()
    assert set(found["versions"]) == {"lirastore", "torch", "numpy", "python"} | beside
    assert found["versions"]["torch"] == torch.__version__
    assert set(found) - set(expected) == {
        "device",
        "versions",
        "git_revision",
        "started_at",
        "train_seconds",
        "images_per_second",
        "seconds",
        "train_accuracy",
        "test_accuracy",
    }
    assert 0 < found["train_seconds"] <= seconds
    members = int(store.keep_mask(2).sum())
    assert found["images_per_second"] * found["train_seconds"] == pytest.approx(3 * members)
    assert len(losses) == 3
    assert losses[0] > losses[2] > 0
    (row,) = store.sql(
        "select pipeline, recipe, seed, seconds, device, train_accuracy from models"
    ).fetchall()
    assert row == ("toy", "tiny", 0, seconds, found["device"], found["train_accuracy"])
    assert store.sql("from loss_curves").fetchall() == [(2, n + 1, loss) for n, loss in enumerate(losses)]


def test_a_trainer_that_speaks_of_no_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = toy.prepare(tmp_path / "a.lira", recipe="tiny", models=2, epochs=0)
    assert toy.train(store) == [0, 1]
    assert store.logits.commits()[0].metadata["loss_curve"] == []
    assert "model 1: " in capsys.readouterr().err


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("before", [(False, False), (True, False), (True, True)])
def test_torch_is_left_as_it_was(store: lirastore.Store, before: tuple[bool, bool], exact: bool) -> None:
    class Looks(toy.Trainer):
        strict = exact

        def fit(self, model: int, epoch: Any) -> Any:
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.is_deterministic_algorithms_warn_only_enabled() is not exact
            assert not torch.utils.deterministic.fill_uninitialized_memory
            assert not torch.backends.cudnn.benchmark
            raise KeyboardInterrupt

    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    torch.backends.cudnn.benchmark = before[1]
    try:
        with pytest.raises(KeyboardInterrupt):
            running.train(store, Looks, progress=False)
        after = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        assert (after, torch.backends.cudnn.benchmark) == (before, before[1])
        assert torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = False


# --- which models, and where --------------------------------------------------------------------------


def planned(models: int, committed: set[int]) -> Any:
    """What `left` sees of a store."""
    pending = [model for model in range(models) if model not in committed]
    return types.SimpleNamespace(
        info=types.SimpleNamespace(models=models), pending=lambda: pending, path=Path("a.lira")
    )


@given(st.data())
def test_shards_divide_the_models_whatever_is_committed(data: st.DataObject) -> None:
    models, count = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 10))
    ids = st.sets(st.integers(0, models - 1))
    wanted, committed = data.draw(st.none() | ids), data.draw(ids)
    every = set(range(models)) if wanted is None else wanted
    whole = [running.left(planned(models, set()), wanted, (i, count)) for i in range(count)]
    assert sorted(model for shard in whole for model in shard) == sorted(every)
    assert max(map(len, whole)) - min(map(len, whole)) <= 1
    for i, shard in enumerate(whole):
        now = running.left(planned(models, committed), wanted, (i, count))
        assert now == [model for model in shard if model not in committed]


@pytest.mark.parametrize("shard", [(3, 3), (-1, 2), (0, 0), (5, 2)])
def test_bad_shards(store: lirastore.Store, shard: tuple[int, int]) -> None:
    with pytest.raises(
        InputError, match=rf"shard {shard[0]}/{shard[1]}: expected i/n with i from 0 to n − 1"
    ):
        toy.train(store, shard=shard)


def test_the_rank_of_torchrun_is_the_shard(store: lirastore.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert running.left(store) == [1, 4]
    assert running.left(store, [0, 2, 3]) == [2]
    assert running.left(store, shard=(1, 2)) == [3]  # of 1 and 3: the second of three takes 3
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(InputError, match="the environment's RANK is 'one': expected a number"):
        running.left(store)


def test_models_that_are_not_planned(store: lirastore.Store) -> None:
    with pytest.raises(UnknownModel, match=r"no such models: -1, 5, 9; .*a\.lira plans models 0 to 4"):
        toy.train(store, models=[9, 3, 5, -1])


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert running.place(None) == running.place("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="device 'nonsense': expected such as cpu, cuda or cuda:1"):
        running.place("nonsense")
    with pytest.raises(InputError, match=r"device 'cuda' \(number 0\): torch sees 0 GPUs; choose another"):
        running.place("cuda")
    with pytest.raises(InputError, match="device 'meta': expected cpu, cuda or cuda:1"):
        running.place("meta")


def test_torchrun_gives_each_process_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert running.place(None) == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert running.place(None) == running.place("cuda") == torch.device("cuda", 1)
    assert running.place("cuda:0") == torch.device("cuda", 0)
    assert running.place("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match=r"\(number 2\): torch sees 2 GPUs"):
        running.place(None)


def test_fewer_than_one_at_a_time(store: lirastore.Store) -> None:
    with pytest.raises(InputError, match="together is 0: expected at least 1"):
        toy.train(store, together=0)


# --- models that diverge ------------------------------------------------------------------------------


def test_models_that_diverge_are_reported_and_the_others_committed(
    store: lirastore.Store,
    reference: dict[int, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(toy.VARIABLE, "nan-loss:0,nan-outputs:2")
    for committed in (3, 0):  # the second run tries the same two again
        with pytest.raises(TrainingDiverged) as raised:
            toy.train(store)
        assert "not committed: 0, 2. The first: model 0: the training loss is nan in epoch 1" in str(
            raised.value
        )
        said = capsys.readouterr().err
        assert "model 0: the training loss is nan in epoch 1; 1 of " in said
        assert "model 2: logits holds NaN or infinity for examples 7" in said
        assert f"committed {committed} of {committed + 2} in " in said
        assert "diverged, and not committed: 0, 2\n" in said
        assert store.pending() == [0, 2]
        assert toy.tidy(store)
    monkeypatch.delenv(toy.VARIABLE)
    assert toy.train(store, progress=False) == [0, 2]
    assert_equal(toy.logits(store), reference)


def test_outputs_that_are_found_to_be_infinite_as_the_model_is_committed(
    store: lirastore.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writing thread may meet them after the trainer has written everything."""
    ending = ModelWriter.__exit__

    def exit(self: ModelWriter, kind: Any, error: Any, trace: Any) -> None:
        if self.model == 1 and kind is None:
            late = NonFiniteLogits("model 1: late")
            ending(self, type(late), late, None)
            raise late
        ending(self, kind, error, trace)

    monkeypatch.setattr(ModelWriter, "__exit__", exit)
    with pytest.raises(TrainingDiverged, match=r"not committed: 1\. The first: model 1: late"):
        toy.train(store, progress=False)
    assert store.pending() == [1]
    assert toy.tidy(store)


# --- committing beside training -----------------------------------------------------------------------


def test_a_model_is_committed_while_the_next_one_trains(
    store: lirastore.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit of m waits for the training of m + 1 to begin, and model m + 1 is not handed over before."""
    began = {model: threading.Event() for model in range(6)}
    began[5].set()  # there is none after the last
    happened: list[tuple[str, int]] = []
    ending = ModelWriter.__exit__

    class Notes(toy.Trainer):
        def fit(self, model: int, epoch: Any) -> Any:
            happened.append(("train", model))
            began[model].set()
            return super().fit(model, epoch)

    def exit(self: ModelWriter, kind: Any, error: Any, trace: Any) -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert began[self.model + 1].wait(PATIENCE), "no overlap"
        ending(self, kind, error, trace)
        happened.append(("commit", self.model))

    monkeypatch.setattr(ModelWriter, "__exit__", exit)
    running.train(store, Notes, progress=False)
    assert sorted(happened) == [(what, model) for what in ("commit", "train") for model in range(5)]
    for model in range(4):
        assert happened.index(("train", model + 1)) < happened.index(("commit", model))
        assert happened.index(("commit", model)) < happened.index(("commit", model + 1))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], threading.Event]]:
    """full_disk(model): the disk is full when that model is sealed; the event tells that it has happened."""
    seal = Attempt.seal

    def fill(model: int) -> threading.Event:
        happened = threading.Event()

        def full(self: Attempt, *arguments: Any) -> None:
            if self.model != model:
                return seal(self, *arguments)
            happened.set()
            raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

        monkeypatch.setattr(Attempt, "seal", full)
        return happened

    yield fill
    monkeypatch.setattr(Attempt, "seal", seal)


@pytest.mark.parametrize("model", [1, 4])
def test_a_commit_that_fails_ends_the_run_and_hides_nothing(
    store: lirastore.Store,
    reference: dict[int, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    full_disk: Callable[[int], threading.Event],
    model: int,
) -> None:
    """At an epoch of the next model, of which there may be many to come, or at the end if there is none."""
    events: list[Event] = []
    happened = full_disk(model)

    class Endless(toy.Trainer):
        def fit(self, now: int, epoch: Any) -> Any:
            if now != model + 1:
                return super().fit(now, epoch)
            assert happened.wait(PATIENCE)
            for _ in range(100 * PATIENCE):
                epoch(0.5, 1)
                time.sleep(0.01)
            raise AssertionError("nobody said that the disk is full")

    with pytest.raises(OSError, match="No space left on device") as raised:
        work(store, Endless, range(5), events.append)
    assert raised.value.errno == errno.ENOSPC
    assert store.committed().tolist() == list(range(model))
    assert [event.model for event in events if event.kind != "epoch"] == list(range(model))
    assert toy.tidy(store)
    monkeypatch.undo()
    assert toy.train(store, progress=False) == list(range(model, 5))
    assert_equal(toy.logits(store), reference)


def test_a_commit_that_fails_is_not_hidden_by_a_model_that_diverges(
    store: lirastore.Store, monkeypatch: pytest.MonkeyPatch, full_disk: Callable[[int], threading.Event]
) -> None:
    monkeypatch.setenv(toy.VARIABLE, "nan-loss:4")
    full_disk(3)
    with pytest.raises(OSError, match="No space left"):
        toy.train(store, progress=False)
    assert store.pending() == [3, 4]


@pytest.mark.parametrize("when", ["fit", "write"])
def test_an_interrupt_loses_only_the_model_in_flight(
    store: lirastore.Store, reference: dict[int, np.ndarray], when: str
) -> None:
    class Interrupted(toy.Trainer):
        def _fault(self, now: str, model: int) -> None:
            if (now, model) == (when, 3):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running.train(store, Interrupted, progress=False)
    assert store.committed().tolist() == [0, 1, 2]  # the commit that was under way is completed
    assert toy.tidy(store)
    assert toy.train(store, progress=False) == [3, 4]
    assert_equal(toy.logits(store), reference)


def test_an_interrupt_while_the_last_commit_is_waited_for(
    store: lirastore.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = running._Committing._wait

    def interrupted(self: Any) -> None:
        monkeypatch.setattr(running._Committing, "_wait", waited)
        raise KeyboardInterrupt

    def last(event: Event) -> None:
        if (event.kind, event.model) == ("epoch", 4) and event.facts["epoch"] == 3:
            submit = running._Committing.submit

            def submitted(self: Any, *arguments: Any) -> None:
                submit(self, *arguments)
                monkeypatch.setattr(running._Committing, "_wait", interrupted)

            monkeypatch.setattr(running._Committing, "submit", submitted)

    with pytest.raises(KeyboardInterrupt):
        work(store, toy.Trainer, range(5), last)
    assert store.pending() == []


def test_out_of_memory(store: lirastore.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(toy.VARIABLE, "memory:2")
    with pytest.raises(
        TrainingFailed, match=r"model 2: CUDA out of memory\. Train fewer models together, or in"
    ):
        toy.train(store, progress=False)
    assert store.committed().tolist() == [0, 1]


def test_a_bug_of_the_pipeline_keeps_its_traceback(
    store: lirastore.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(toy.VARIABLE, "bug:2")
    with pytest.raises(ZeroDivisionError, match="a bug of the pipeline"):
        toy.train(store, progress=False)
    assert store.committed().tolist() == [0, 1]


# --- other jobs on the same models --------------------------------------------------------------------


def other_job(store: lirastore.Store, model: int) -> None:
    with torch.inference_mode(mode=False):
        assert toy.train(lirastore.open(store.path), models=[model], progress=False) == [model]


@pytest.mark.parametrize("when", ["before", "fit", "write"])
def test_what_another_job_commits_meanwhile_is_left_to_it(
    store: lirastore.Store,
    reference: dict[int, np.ndarray],
    when: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Raced(toy.Trainer):
        def fit(self, model: int, epoch: Any) -> Any:
            if (when, model) == ("before", 1):
                other_job(store, 2)
            return super().fit(model, epoch)

        def _fault(self, now: str, model: int) -> None:
            if (now, model) == (when, 2) and 2 in store.pending():
                other_job(store, 2)

    assert running.train(store, Raced) == [0, 1, 3, 4]
    said = capsys.readouterr().err
    assert "model 2: another job committed it first; " in said
    assert "committed 4 of 5 in " in said
    assert_equal(toy.logits(store), reference)
    assert toy.tidy(store)


def test_an_attempt_that_gc_took_is_no_model_of_another_job(store: lirastore.Store) -> None:
    """Nobody has the model then, and the run must not end as if somebody had."""

    class Collected(toy.Trainer):
        def _fault(self, now: str, model: int) -> None:
            if (now, model) == ("write", 2):
                shutil.rmtree(store.path / "_lirastore" / "staging" / "2")

    with pytest.raises(LostClaim, match=r"attempt .* at model 2 was removed while it was being written"):
        running.train(store, Collected, progress=False)
    assert store.committed().tolist() == [0, 1]
    store.gc(older_than=timedelta(0))
    assert toy.train(store, progress=False) == [2, 3, 4]


# --- what storing costs -------------------------------------------------------------------------------


def test_waiting_and_processor_time_of_storing(
    store: lirastore.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three commits take 100 s each by a clock of the test, which nothing moves but what is said here."""
    clock = types.SimpleNamespace(now=0.0, cpu=threading.local())
    monkeypatch.setattr(running.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(running.time, "thread_time", lambda: getattr(clock.cpu, "now", 0.0))
    began: list[float] = []
    ending, waiting = ModelWriter.__exit__, threading.Event()
    wait, write = running._Committing._wait, ModelWriter.write

    def slow_exit(self: ModelWriter, *error: Any) -> None:
        assert waiting.wait(PATIENCE)
        clock.now += 100
        clock.cpu.now = getattr(clock.cpu, "now", 0.0) + 2
        ending(self, *error)
        self.cpu_seconds = 5.0

    def noted(self: Any) -> None:
        waiting.set()
        wait(self)
        waiting.clear()

    def slow_write(self: ModelWriter, logits: Any, **given: Any) -> None:
        clock.now += 10
        clock.cpu.now = getattr(clock.cpu, "now", 0.0) + 1
        write(self, logits, **given)

    class Slow(toy.Trainer):
        def fit(self, model: int, epoch: Any) -> Any:
            began.append(clock.now)
            clock.now += 1000
            return super().fit(model, epoch)

    monkeypatch.setattr(ModelWriter, "__exit__", slow_exit)
    monkeypatch.setattr(ModelWriter, "write", slow_write)
    monkeypatch.setattr(running._Committing, "_wait", noted)
    cost = work(store, Slow, range(3))
    assert began == [0, 1020, 2040 + 100]  # once the first is committed the second is handed over
    assert cost.seconds == 3 * 1000 + 3 * 2 * 10 + 3 * 100
    assert cost.waited == 3 * 2 * 10 + 3 * 100
    assert cost.stored == 3 * 2 * 1 + 3 * 2 + 3 * 5.0
    assert store.logits.commits()[1].metadata["train_seconds"] == 1000
    assert store.logits.commits()[1].metadata["seconds"] == 1020


def test_an_interrupted_wait_does_not_take_the_writing_thread_for_ended() -> None:
    """As Thread.join does in CPython 3.11: what follows it would meet files that are being written."""
    main, entered, goes_on = threading.main_thread(), threading.Event(), threading.Event()
    done: list[int] = []

    def slowly(item: int) -> None:
        assert entered.wait(PATIENCE)
        signal_soon = threading.Timer(0.1, partial(_interrupt, main))
        signal_soon.start()
        assert goes_on.wait(PATIENCE)
        done.append(item)

    conveyor: Conveyor[int] = Conveyor(slowly, limit=1 << 20, name="slow")
    conveyor.put(lambda: 1, 8)
    with pytest.raises(KeyboardInterrupt):
        entered.set()
        conveyor.finish()
    assert not done
    threading.Timer(0.2, goes_on.set).start()
    conveyor.abort()
    assert done == [1]


def _interrupt(thread: threading.Thread) -> None:
    import signal

    assert thread.ident is not None
    signal.pthread_kill(thread.ident, signal.SIGINT)


# --- which code it was --------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # of a hook that runs the tests
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "checkout" / "jobs" / "mine.py"
    file.parent.mkdir(parents=True)
    file.write_text("a = 1\n")
    git(file.parent, "init", "--quiet", "..")
    git(file.parent, "add", ".")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    git(file.parent, *identity, "commit", "--quiet", "--message", "a")
    return file


def git(where: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(where), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_revision_of_a_checkout(checkout: Path) -> None:
    head = git(checkout.parent, "rev-parse", "HEAD")
    assert len(head) == 40
    assert provenance.git_revision(checkout) == head
    beside = checkout.with_name("new.py")
    beside.write_text("")
    assert provenance.git_revision(checkout) == head  # results, stores and notes are no changes
    assert provenance.git_revision(beside) is None
    checkout.write_text("a = 2\n")
    assert provenance.git_revision(checkout) == f"{head}-dirty"


def test_no_revision(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    outside = tmp_path / "mine.py"
    outside.write_text("")
    assert provenance.git_revision(outside) is None
    assert provenance.git_revision(tmp_path / "absent" / "mine.py") is None
    assert provenance.git_revision(Path()) is None  # typed in, not from a file
    monkeypatch.setenv("PATH", "")
    assert provenance.git_revision(checkout) is None


def test_a_trainer_that_was_typed_in(store: lirastore.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = types.ModuleType("typed_in")  # as __main__ of an interactive session: it has no file
    monkeypatch.setitem(running.sys.modules, "typed_in", typed)
    trainer = type("Trainer", (toy.Trainer,), {"__module__": "typed_in"})
    assert running.train(store, trainer, models=[0], progress=False) == [0]
    assert store.logits.commits()[0].metadata["git_revision"] is None

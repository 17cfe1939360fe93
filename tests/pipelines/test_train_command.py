"""`lirastore train`: what it takes and refuses, whom it asks, and what is left when it is ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lirastore
from lirastore import cli, training
from lirastore.errors import InputError, StoreExists

torch = pytest.importorskip("torch", reason="pipelines train with torch")

import toy  # noqa: E402

from lirastore.pipelines import core  # noqa: E402

PATIENCE = 120  # seconds after which a test that hangs fails
TOY = Path(toy.__file__)

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working directory of the test's own, and modules that are gone afterwards."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", toy.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        if "." not in name and str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs `lirastore train …`; returns its exit code, stdout and stderr."""

    def run(*argv: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lirastore", "train", *map(str, argv)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def refused(train: Command) -> Callable[..., str]:
    """The message of a command that fails: one line on stderr, nothing on stdout."""

    def run(*argv: object, code: int = 1) -> str:
        got, out, err = train(*argv)
        assert (got, out) == (code, ""), err
        assert "Traceback" not in err
        if code == 1:
            assert err.count("\n") == 1
            assert err.startswith("error: ")
        return err

    return run


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(text)
    return file


# --- an ordinary run ----------------------------------------------------------------------------------


def test_makes_trains_and_goes_on(train: Command, tmp_path: Path) -> None:
    new = ("--pipeline", TOY, "--recipe", "tiny", "--plan", 4, "--seed", 3, "--set", "learning_rate=1")
    code, out, err = train("a.lira", *new, "--models", "0,2:4", "--shard", "0/2")
    assert (code, out) == (0, "a.lira\n")
    assert "training 2 models (shard 0/2) of a.lira on cpu\n" in err
    assert "committed 2 of 2 in " in err
    store = lirastore.open(tmp_path / "a.lira")
    assert store.committed().tolist() == [0, 3]
    assert store.info.training == {
        "pipeline": "toy",
        "recipe": "tiny",
        "data_sha256": "0" * 64,
        "inference": "plain",
        "settings": {
            "models": 4,
            "epochs": 3,
            "learning_rate": 1.0,
            "decay": None,
            "nesterov": False,
            "schedule": "none",
            "sleep": 0.0,
        },
    }
    assert store.info.design["seed"] == 3
    # what is not said is as it was; what is said again has to be the same
    assert train("a.lira", "--pipeline", TOY, "--set", "learning_rate=1", "--quiet") == (0, "a.lira\n", "")
    assert store.pending() == []
    assert train("a.lira", *new) == (0, "a.lira\n", "nothing was left to train\n")


def test_a_file_of_the_users(train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may import what lies beside it, wherever the command is given."""
    write(tmp_path / "jobs" / "beside.py", "from toy import *\n")
    write(tmp_path / "jobs" / "my_own.py", "from beside import *\n")
    monkeypatch.chdir(tmp_path / "jobs")
    argv = ("--recipe", "tiny", "--plan", "2", "--quiet")
    assert train(tmp_path / "b.lira", "--pipeline", "my_own.py", *argv)[0] == 0
    monkeypatch.chdir(tmp_path)
    assert train("a.lira", "--pipeline", "jobs/my_own.py", *argv) == (0, "a.lira\n", "")


@pytest.fixture
def built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if toy came with lirastore."""
    monkeypatch.setattr(training, "PIPELINES", ("toy", "other"))
    monkeypatch.setitem(sys.modules, "lirastore.pipelines.toy", toy)


@pytest.mark.usefixtures("built_in")
def test_the_pipeline_need_not_be_said_again(train: Command) -> None:
    assert train("a.lira", "--pipeline", "toy", "--recipe", "tiny", "--models", "1", "--quiet")[0] == 0
    assert train("a.lira", "--models", "1:3", "--quiet")[0] == 0
    assert lirastore.open("a.lira").committed().tolist() == [1, 2]


# --- pipelines that cannot be had ---------------------------------------------------------------------


def test_no_pipeline(refused: Callable[..., str]) -> None:
    message = refused("a.lira", "--recipe", "tiny")
    assert message == (
        "error: a.lira does not exist: say which --pipeline is to make it: cifar, digits, wikitext, "
        "or a file\n"
    )
    assert not Path("a.lira").exists()


def test_a_file_is_not_found_by_the_store(refused: Callable[..., str]) -> None:
    toy.prepare(Path("a.lira"), recipe="tiny")
    message = refused("a.lira")
    assert message == (
        "error: a.lira was planned by the pipeline 'toy': say which --pipeline is to train its models\n"
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("imagenet", None, "pipeline 'imagenet': expected cifar, digits, wikitext, or the path of a file"),
        ("absent.py", None, "pipeline absent.py: there is no such file"),
        ("empty.py", "", "pipeline empty.py defines no prepare, train: expected prepare(path, …), which"),
        ("half.py", "from toy import prepare\ntrain = 3", "pipeline half.py defines no train: expected"),
        ("json.py", "from toy import *", "pipeline json.py: the name 'json' means /"),
        ("mine.v2.py", "from toy import *", "pipeline mine.v2.py: a module's name has no dots; rename the"),
    ],
)
def test_files_that_are_no_pipelines(
    refused: Callable[..., str], tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        write(tmp_path / name, text)
    assert f"error: {message}" in refused("a.lira", "--pipeline", name, "--recipe", "tiny")
    assert not Path("a.lira").exists()


@pytest.mark.parametrize(
    ("text", "error"), [("import no_such_module", ModuleNotFoundError), ("def prepare(:", SyntaxError)]
)
def test_a_file_that_cannot_be_imported(
    train: Command, tmp_path: Path, text: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of the file: its traceback says where."""
    write(tmp_path / "broken.py", text)
    monkeypatch.setattr(sys, "argv", ["lirastore", "train", "a.lira", "--pipeline", "broken.py"])
    with pytest.raises(error):
        cli.main()


# --- recipes, settings and options --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "huge"], "recipe 'huge': expected one of tiny, long"),
        ([], "a new store needs a recipe (--recipe): expected one of tiny, long"),
        (
            ["--recipe", "tiny", "--set", "width=3", "--set", "depth=1"],
            "the recipe has no width, depth; what can be set is decay, epochs, learning_rate, models, nest",
        ),
        (["--recipe", "tiny", "--set", "epochs=2.5"], "epochs = 2.5: expected int"),
        (["--recipe", "tiny", "--set", "epochs=many"], "epochs = 'many': expected int"),
        (["--recipe", "tiny", "--set", "epochs=true"], "epochs = True: expected int"),
        (["--recipe", "tiny", "--set", "epochs=none"], "epochs = None: expected int"),
        (["--recipe", "tiny", "--set", "learning_rate=fast"], "learning_rate = 'fast': expected float"),
        (["--recipe", "tiny", "--set", "learning_rate=true"], "learning_rate = True: expected float"),
        (["--recipe", "tiny", "--set", "decay=no"], "decay = 'no': expected float or None"),
        (["--recipe", "tiny", "--set", "nesterov=1"], "nesterov = 1: expected bool"),
        (["--recipe", "tiny", "--set", "schedule=3"], "schedule = 3: expected str"),
        (["--recipe", "tiny", "--set", "learning_rate=nan"], "'learning_rate': nan"),
        (["--recipe", "tiny", "--data", "here"], "has no option data; it takes recipe, models, seed"),
        (["--recipe", "tiny", "--set", "path=here"], "has no option path; it takes recipe, models, seed"),
    ],
)
def test_what_the_recipe_does_not_take(refused: Callable[..., str], options: list[str], message: str) -> None:
    assert message in refused("a.lira", "--pipeline", TOY, *options)
    assert list(Path().iterdir()) == []


def test_values_of_every_type(train: Command) -> None:
    settings = ("learning_rate=2", "decay=1e-4", "nesterov=TRUE", "schedule=cosine", "epochs=1", "models=2")
    sets = [word for setting in settings for word in ("--set", setting)]
    assert train("a.lira", "--pipeline", TOY, "--recipe", "long", *sets, "--quiet")[0] == 0
    recorded = core.settings(lirastore.open("a.lira"), toy.Recipe)
    assert recorded == toy.Recipe(2, 1, learning_rate=2.0, decay=1e-4, nesterov=True, schedule="cosine")
    assert type(recorded.learning_rate) is float


@pytest.mark.parametrize(
    "option",
    [
        ["--set", "epochs"],
        ["--set", "=5"],
        ["--set", "a b=5"],
        ["--shard", "8/8"],
        ["--shard", "1"],
        ["--shard", "-1/2"],
        ["--shard", "0/0"],
        ["--models", "a"],
        ["--together", "0"],
        ["--plan", "1"],
    ],
)
def test_options_that_are_not_understood(refused: Callable[..., str], option: list[str]) -> None:
    message = refused("a.lira", "--pipeline", TOY, "--recipe", "tiny", *option, code=2)
    assert f"Invalid value for '{option[0]}'" in message
    assert not Path("a.lira").exists()


def test_options_that_a_pipeline_lacks(refused: Callable[..., str], tmp_path: Path) -> None:
    text = """
import toy
def prepare(path, *, recipe=None, data="data"):
    return toy.prepare(path, recipe=recipe)
def train(store, *, models=None, progress=True):
    return toy.train(store, models=models, progress=progress)
"""
    write(tmp_path / "plain.py", text)
    plain = ("a.lira", "--pipeline", "plain.py")
    assert refused(*plain, "--seed", 3, "--set", "epochs=3") == (
        "error: pipeline plain.py has no option epochs, seed; it takes recipe, data\n"
    )
    assert refused(*plain, "--together", 2, "--device", "cpu") == (
        "error: pipeline plain.py has no option device, together; it takes models, progress\n"
    )
    assert refused(*plain, "--download") == (
        "error: pipeline plain.py has no option download; it takes recipe, data, models, progress\n"
    )
    assert not Path("a.lira").exists()


def test_data_may_be_set_as_well(train: Command, tmp_path: Path) -> None:
    """Who says it twice means the option."""
    text = """
import toy
def prepare(path, *, recipe=None, data="data"):
    assert data.name == "there"
    return toy.prepare(path, recipe=recipe)
train = toy.train
"""
    write(tmp_path / "reads.py", text)
    argv = ("--pipeline", "reads.py", "--recipe", "tiny", "--set", "data=here", "--data", "there")
    assert train("a.lira", *argv, "--models", "0", "--quiet")[0] == 0


def test_devices_and_models_that_are_not_there(refused: Callable[..., str], monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    run = partial(refused, "a.lira", "--pipeline", TOY, "--recipe", "tiny")
    assert "device 'nonsense': expected such as cpu, cuda or cuda:1" in run("--device", "nonsense")
    assert "device 'cuda:1' (number 1): torch sees 0 GPUs" in run("--device", "cuda:1")
    assert "no such models: 5, 6; a.lira plans models 0 to 4" in run("--models", "3:7")


# --- stores that are there already --------------------------------------------------------------------


def test_another_experiment(refused: Callable[..., str]) -> None:
    toy.prepare(Path("a.lira"), recipe="tiny", seed=1, learning_rate=2)
    argv = ("--plan", 8, "--seed", 2, "--set", "learning_rate=0.1", "--set", "epochs=3")
    assert refused("a.lira", "--pipeline", TOY, "--recipe", "long", *argv) == (
        "error: a.lira holds another experiment than the one asked for: recipe tiny, not long; "
        "models 5, not 8; seed 1, not 2; learning_rate 2.0, not 0.1. Leave these options out to go "
        "on with it, or choose another path\n"
    )
    assert "the recipe of a.lira has no width; what can be set is decay, epochs, " in refused(
        "a.lira", "--pipeline", TOY, "--set", "width=9"
    )
    assert "one asked for: seed 1, not 2; decay None, not 0.1. Leave" in refused(
        "a.lira", "--pipeline", TOY, "--set", "decay=0.1", "--seed", 2
    )
    assert "nesterov False, not None" in refused("a.lira", "--pipeline", TOY, "--set", "nesterov=none")


def test_another_pipeline(refused: Callable[..., str], tmp_path: Path) -> None:
    toy.prepare(Path("a.lira"), recipe="tiny")
    text = """
from lirastore.pipelines import core
import toy
train = toy.train
given = {"recipes": toy.RECIPES, "plan": toy.plan, "changes": {}, "models": None, "seed": None}
def prepare(path, *, recipe=None):
    return core.prepare(path, pipeline="other", recipe=recipe, **given)
"""
    write(tmp_path / "other.py", text)
    assert "holds another experiment than the one asked for: pipeline toy, not other." in refused(
        "a.lira", "--pipeline", "other.py"
    )


def test_a_store_that_was_planned_by_hand(refused: Callable[..., str]) -> None:
    labels = np.zeros(4, dtype=int)
    lirastore.create("a.lira", labels=labels, classes=2, models=2, augmentations=1)
    assert refused("a.lira", "--pipeline", TOY, "--recipe", "tiny") == (
        "error: a.lira was planned by no pipeline, so nothing says how its models are to be trained; let "
        "`lirastore train` make a store at another path\n"
    )
    assert refused("a.lira") == (
        "error: a.lira was planned by no pipeline: say which --pipeline is to train its models\n"
    )


def test_a_store_that_was_planned_by_earlier_code() -> None:
    training = {"pipeline": "toy", "settings": {"models": 2, "epochs": 1, "sleep": 0.0, "schedule": "none"}}
    labels = np.zeros(4, dtype=int)
    store = lirastore.create("a.lira", labels=labels, classes=2, models=2, augmentations=1, training=training)
    with pytest.raises(
        InputError, match="was planned without learning_rate, decay, nesterov, which the recipe"
    ):
        core.settings(store, toy.Recipe)


def test_what_is_no_store(refused: Callable[..., str]) -> None:
    Path("a.lira").mkdir()
    assert "a.lira" in refused("a.lira", "--pipeline", TOY, "--recipe", "tiny")
    assert list(Path("a.lira").iterdir()) == []


# --- two jobs at once ---------------------------------------------------------------------------------


def prepare_late(other: Callable[[], object], **asked: Any) -> lirastore.Store:
    """What `core.prepare` does while another job makes the store: after a look, before its own is there."""

    def plan(recipe: Any) -> dict[str, Any]:
        other()
        return toy.plan(recipe)

    given = {"recipe": "tiny", "changes": {}, "models": None, "seed": None, **asked}
    return core.prepare("a.lira", pipeline="toy", recipes=toy.RECIPES, plan=plan, **given)


def test_who_is_second_to_make_a_store_opens_it() -> None:
    store = prepare_late(partial(toy.prepare, Path("a.lira"), recipe="tiny"))
    assert store.info.training is not None
    assert store.info.models == 5
    assert [path.name for path in Path().iterdir()] == ["a.lira"]


def test_who_is_second_to_make_a_store_of_another_kind_is_refused() -> None:
    other = partial(toy.prepare, Path("a.lira"), recipe="tiny", models=4, epochs=9)
    with pytest.raises(InputError, match=r"another experiment .*: epochs 9, not 3\. Leave"):
        prepare_late(other, changes={"epochs": 3})
    with pytest.raises(InputError, match="recipe tiny, not long"):
        prepare_late(other, recipe="long")
    assert [path.name for path in Path().iterdir()] == ["a.lira"]


def test_many_make_a_store_at_once() -> None:
    """They all get the same one."""
    gate, made, failed = threading.Barrier(8), [], []

    def make() -> None:
        gate.wait()
        try:
            made.append(toy.prepare(Path("a.lira"), recipe="tiny").info)
        except StoreExists as error:
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failed == []
    assert len(made) == 8
    assert all(info == made[0] for info in made)
    assert [path.name for path in Path().iterdir()] == ["a.lira"]


# --- real processes -----------------------------------------------------------------------------------


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started = []

    def begin(*argv: object, faults: str = "", **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "lirastore", "train", *map(str, argv)],
            env={**os.environ, "OMP_NUM_THREADS": "1", toy.VARIABLE: faults, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_terminated_in_the_middle_of_a_model(train: Command, start: Any) -> None:
    """What preemption does. The same command goes on, to outputs that are the same to the last bit."""
    command = ("a.lira", "--pipeline", TOY, "--recipe", "tiny", "--seed", "7")
    process = start(*command, faults="hang-write:2")
    deadline = time.monotonic() + PATIENCE
    while not toy.mark(Path("a.lira"), 2).exists() or len(lirastore.open("a.lira").committed()) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    store = lirastore.open("a.lira")
    assert not toy.tidy(store)
    process.terminate()
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (143, "")
    assert err.splitlines()[-1] == (
        "terminated; what was finished is kept, and the same command carries on from there"
    )
    assert "Traceback" not in err
    assert store.committed().tolist() == [0, 1]
    assert toy.tidy(store)
    assert store.verify(progress=False).ok
    assert train(*command, "--quiet") == (0, "a.lira\n", "")
    undisturbed = toy.prepare(Path("b.lira"), recipe="tiny", seed=7)
    toy.train(undisturbed, progress=False)
    found, expected = toy.logits(store), toy.logits(undisturbed)
    assert list(found) == list(range(5))
    for model in range(5):
        np.testing.assert_array_equal(found[model], expected[model])


def test_two_jobs_on_the_same_models(train: Command, start: Any) -> None:
    """Each model is in the store once, by one of them; both end well."""
    command = ("a.lira", "--pipeline", TOY, "--recipe", "tiny", "--set", "models=12", "--set", "sleep=0.02")
    job = start(*command)
    deadline = time.monotonic() + PATIENCE
    while not Path("a.lira").exists():
        assert time.monotonic() < deadline
        assert job.poll() is None, job.communicate()
        time.sleep(0.001)
    code, _, said = train(*command)
    _, other = job.communicate(timeout=PATIENCE)
    assert (code, job.returncode) == (0, 0), (said, other)
    committed: list[int] = []
    for err in (said, other):
        mine = [int(found[1]) for found in re.finditer(r"^model (\d+): \d", err, re.MULTILINE)]
        taken = err.count("another job committed it first")
        if "training" in err:
            assert f"committed {len(mine)} of {len(mine) + taken} in " in err
        committed += mine
    store = lirastore.open("a.lira")
    assert sorted(committed) == list(range(12))
    assert store.pending() == []
    assert store.verify(progress=False).ok
    assert toy.tidy(store)


def test_torchrun() -> None:
    """Its processes make the store at once, and share the models by their ranks."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "lirastore", "train", "a.lira", "--pipeline", str(TOY), "--recipe", "tiny"]
    done = subprocess.run(
        [*launcher, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a.lira\na.lira\n"
    assert "training 3 models (shard 0/2) of a.lira on cpu\n" in done.stderr
    assert "training 2 models (shard 1/2) of a.lira on cpu\n" in done.stderr
    assert "another job" not in done.stderr
    assert lirastore.open("a.lira").pending() == []

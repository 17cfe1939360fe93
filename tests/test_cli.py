"""The command line as its users meet it: exit codes, stdout for data, one clear error.

Each command runs once as a process of its own (`program`); what else there is to say of it is asked of the
same entry point in this process (`cli`), which saves the imports.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import lirastore
from lirastore.cli import main

MODELS, EXAMPLES, CLASSES = 8, 60, 4
Done = subprocess.CompletedProcess[str]


def program(*argv: object) -> Done:
    """Runs a command as a process of its own."""
    command = [sys.executable, "-m", "lirastore", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def cli(*argv: object) -> Done:
    """Runs a command in this process, from its entry point to its exit code."""
    arguments = ["lirastore", *map(str, argv)]
    terminate = signal.getsignal(signal.SIGTERM)
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
    try:
        with (
            mock.patch.object(sys, "argv", arguments),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main()
    finally:
        signal.signal(signal.SIGTERM, terminate)
    return subprocess.CompletedProcess(arguments, ended.value.code, *map(text_of, (out, err)))


def text_of(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def ok(*argv: object, run: Callable[..., Done] = cli) -> str:
    done = run(*argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*argv: object, code: int = 1, run: Callable[..., Done] = cli) -> str:
    """The message of a command that fails as the contract says: nothing on stdout, no traceback."""
    done = run(*argv)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def fill(store: lirastore.Store) -> None:
    rng = np.random.default_rng(0)
    for model in range(store.info.models):
        logits = rng.normal(size=(EXAMPLES, 2, CLASSES)).astype(np.float32)
        logits[np.arange(EXAMPLES), :, store.labels] += 2 * store.keep_mask(model)[:, None]
        with store.writer(model, metadata={"train_accuracy": 0.9}) as writer:
            writer.write(logits, examples=slice(0, EXAMPLES))


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the labels, a store that was only planned, and one with every model."""
    folder = tmp_path_factory.mktemp("stores")
    np.save(folder / "y.npy", np.arange(EXAMPLES) % CLASSES)
    ok(
        *("init", folder / "planned.lira", "--models", MODELS, "--labels", folder / "y.npy"),
        *("--classes", CLASSES, "--augmentations", "identity,shift(+1,0)", "--name", "toy"),
        run=program,
    )
    shutil.copytree(folder / "planned.lira", folder / "filled.lira")
    fill(lirastore.open(folder / "filled.lira"))
    return folder


@pytest.fixture
def planned(made_once: Path, tmp_path: Path) -> Path:
    shutil.copy(made_once / "y.npy", tmp_path)
    return Path(shutil.copytree(made_once / "planned.lira", tmp_path / "s.lira"))


@pytest.fixture
def filled(made_once: Path, tmp_path: Path) -> Path:
    shutil.copy(made_once / "y.npy", tmp_path)
    return Path(shutil.copytree(made_once / "filled.lira", tmp_path / "s.lira"))


def test_init_plans_what_was_asked(planned: Path) -> None:
    info = lirastore.open(planned).info
    assert (info.models, info.examples, info.classes) == (MODELS, EXAMPLES, CLASSES)
    assert info.augmentations == ("identity", "shift(+1,0)")
    assert info.name == "toy"


def test_init_refuses_what_is_there(planned: Path, tmp_path: Path) -> None:
    plan = ("--models", 2, "--labels", tmp_path / "y.npy", "--classes", CLASSES, "--augmentations", 1)
    assert str(planned) in refused("init", planned, *plan)


def test_the_whole_way(filled: Path, tmp_path: Path) -> None:
    ran = ok("attack", filled, "lira_online", "loss", "memorization", run=program)
    assert [line.split("\t")[0] for line in ran.splitlines()] == ["lira_online", "loss", "memorization"]

    rows = list(csv.DictReader(io.StringIO(ok("query", filled, "metrics", "--format", "csv", run=program))))
    assert {row["attack"] for row in rows} == {"lira_online", "loss"}
    one = json.loads(
        ok("query", filled, "select count(*) as n from scores where attack = 'loss'", "--format", "json")
    )
    assert one == [{"n": MODELS * EXAMPLES}]

    ok("query", filled, "from scores", "-o", tmp_path / "scores.parquet")
    assert (tmp_path / "scores.parquet").read_bytes()[:4] == b"PAR1"

    page = ok("report", filled, "-o", tmp_path / "r.html", "--svg", tmp_path / "roc.svg", run=program)
    assert page.strip() == str(tmp_path / "r.html")
    assert "<svg" in (tmp_path / "roc.svg").read_text()

    assert json.loads(ok("status", filled, "--json", run=program)) == {
        "models": MODELS,
        "committed": MODELS,
        "pending": [],
        "stale_attempts": 0,
        "attacks": [
            {"name": name, "models": MODELS, "stale": False}
            for name in ("lira_online", "loss", "memorization")
        ],
    }
    ok("verify", filled, run=program)
    ok("gc", filled, run=program)


def test_new_variants_by_coordinates_and_from_a_file(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "def margin(block):\n"
        "    return block.signal('scaled_logit')[:, :, 0] - block.loo().mean_out[:, :, 0]\n"
    )
    coordinates = ("--signal", "scaled_logit", "--test", "out-mean", "--queries", "first")
    ok("attack", filled, "--name", "variant", *coordinates)
    monkeypatch.chdir(tmp_path)
    ok("attack", filled, "mine.py:margin")
    sql = (
        "select max(abs(a.score - b.score)) as d from scores a join scores b using (model, example)"
        " where a.attack = 'variant' and b.attack = 'margin'"
    )
    assert json.loads(ok("query", filled, "--format", "json", sql))[0]["d"] < 1e-9


def test_discard_makes_results_stale_and_says_so(filled: Path) -> None:
    ok("attack", filled, "loss")
    ok("discard", filled, "--models", "2,5:7", run=program)
    status = json.loads(ok("status", filled, "--json"))
    assert status["pending"] == [2, 5, 6]
    assert status["attacks"] == [{"name": "loss", "models": MODELS, "stale": True}]
    done = cli("query", filled, "metrics")
    assert done.returncode == 0
    assert "loss" in done.stderr
    assert "out of date" in done.stderr


def test_verify_names_the_damaged_model(filled: Path) -> None:
    victim = next((filled / "logits" / "c" / "3").rglob("0"))
    while victim.is_dir():
        victim = victim / "0"
    data = bytearray(victim.read_bytes())
    data[100] ^= 1
    victim.write_bytes(data)
    done = cli("verify", filled)
    assert done.returncode == 1
    assert "model 3" in done.stdout
    assert "model 4" not in done.stdout
    refusal = refused("attack", filled, "loss", "--signal", "hinge", "--test", "global", "--name", "h")
    assert "model 3" in refusal


def test_export_and_ingest_come_round(filled: Path, tmp_path: Path) -> None:
    ok("export", filled, tmp_path / "e.npz", run=program)
    ok("ingest", tmp_path / "again.lira", tmp_path / "e.npz", run=program)
    again, before = lirastore.open(tmp_path / "again.lira"), lirastore.open(filled)
    assert again.logits.set_digest() == before.logits.set_digest()


def test_query_without_sql_lists_every_view_with_a_comment(planned: Path) -> None:
    listing = ok("query", planned)
    for name in ("models", "scores", "metrics", "roc", "most_exposed(attack, n)", "verdict(attack, fpr)"):
        assert any(line.startswith(name) and len(line) > len(name) + 10 for line in listing.splitlines()), (
            name
        )


def test_errors_are_one_clear_message(filled: Path, tmp_path: Path) -> None:
    assert "nowhere.lira" in refused("status", tmp_path / "nowhere.lira", run=program)
    assert "lira_onlin" in refused("attack", filled, "lira_onlin")
    assert "metrix" in refused("query", filled, "from metrix")
    assert "SELECT" in refused("query", filled, "drop view scores").upper()
    assert "99" in refused("discard", filled, "--models", "99")
    assert "1 KiB" in refused("attack", filled, "loss", "--memory", "1KiB")
    assert "y.npy" in refused("ingest", tmp_path / "x.lira", tmp_path / "y.npy")
    assert not (tmp_path / "x.lira").exists()


def test_usage_errors_exit_2_and_say_what_there_is(filled: Path) -> None:
    assert "lira_online" in refused("attack", filled, code=2, run=program)
    assert "--name" in refused("attack", filled, "--signal", "loss", code=2)
    assert "2GiB" in refused("attack", filled, "loss", "--memory", "lots", code=2)
    assert "3,17,40:48" in refused("discard", filled, "--models", "three", code=2)


SLOW = """
import time
def slow(block):
    open({flag!r}, "w").close()
    time.sleep(2)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupting_an_attack(filled: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    flag = tmp_path / "started"
    (tmp_path / "slow.py").write_text(SLOW.format(flag=str(flag)))
    process = subprocess.Popen(
        [sys.executable, "-m", "lirastore", "attack", str(filled), f"{tmp_path / 'slow.py'}:slow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not flag.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, ""), err
    assert "Traceback" not in err
    assert json.loads(ok("status", filled, "--json"))["attacks"] == []


def test_a_closed_pipe_is_no_error(filled: Path) -> None:
    ok("attack", filled, "loss")
    command = f"{sys.executable} -m lirastore query {filled} 'from scores' --format csv | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.startswith("attack,model,example,score,member")


def test_all_judges_by_the_options_it_runs_with(tmp_path: Path) -> None:
    path = tmp_path / "b.lira"
    plan = {"models": 5, "augmentations": 1, "design": "bernoulli"}
    store = lirastore.create(path, labels=np.arange(EXAMPLES) % CLASSES, classes=None, **plan)
    for model in range(5):  # no logits, and so nothing that takes long is fitted
        with store.writer(model) as writer:
            values = np.random.default_rng(model).normal(size=(EXAMPLES, 1)).astype(np.float32)
            writer.write(scaled_logit=values, examples=slice(0, EXAMPLES))

    def ran(*options: str) -> set[str]:
        done = cli("attack", path, "--all", "--force", "--no-bootstrap", *options)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return {line.split("\t")[0] for line in done.stdout.splitlines()}

    assert "watson" not in ran()
    assert {"loss", "watson", "lira_offline"} <= ran("--skip-unattackable")
    assert "loss" in ran("--equal-counts")
    assert "loss" in {line.split("\t")[0] for line in ok("attack", path, "loss", "--all").splitlines()}


def test_one_attack_under_another_name(filled: Path) -> None:
    ok("attack", filled, "lira_online")
    ok("attack", filled, "lira_online", "--preset", "carlini-code", "--name", "lira_online_carlini")
    rows = json.loads(ok("query", filled, "select attack, preset from attacks", "--format", "json"))
    assert rows == [
        {"attack": "lira_online", "preset": "paper"},
        {"attack": "lira_online_carlini", "preset": "carlini-code"},
    ]
    assert "--name" in refused("attack", filled, "loss", "watson", "--name", "x", code=2)


@pytest.mark.parametrize("attack", ["influence", "memorization"])
def test_what_scores_no_targets_keeps_its_name(filled: Path, attack: str) -> None:
    message = refused("attack", filled, attack, "--name", "foo", code=2)
    assert "--name foo" in message and attack in message
    assert json.loads(ok("status", filled, "--json"))["attacks"] == []


def test_the_data_set_of_an_import_is_named(filled: Path, tmp_path: Path) -> None:
    ok("export", filled, tmp_path / "e.npz")
    store = tmp_path / "named.lira"
    ok("ingest", store, tmp_path / "e.npz", "--name", "CIFAR-10, mine")
    assert lirastore.open(store).info.name == "CIFAR-10, mine"
    ok("ingest", store, tmp_path / "e.npz")
    assert "--name" in refused("ingest", store, tmp_path / "e.npz", "--name", "CIFAR-100")


def test_limits_on_models_and_queries(filled: Path) -> None:
    done = cli("attack", filled, "lira_online", "loss", "--models", "4,8", "--queries", "1,2,all", "--quiet")
    assert done.returncode == 0, done.stderr
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [
        "lira_online__k4_q1",
        "loss__k4_q1",
        "lira_online__k4_q2",
        "loss__k4_q2",
    ]
    line, *warnings = done.stderr.splitlines()
    assert line.startswith("skipped 8 shadow models: 6 is the most that every example has")
    assert not any("--equal-counts" in warning for warning in warnings)
    variant = ("--name", "mine", "--signal", "loss", "--test", "out-mean", "--models", "2", "--queries", "1")
    assert ok("attack", filled, *variant).startswith("mine__k2_q1\t")
    named = [attack["name"] for attack in json.loads(ok("status", filled, "--json"))["attacks"]]
    assert named == ["lira_online__k4_q1", "lira_online__k4_q2", "loss__k4_q1", "loss__k4_q2", "mine__k2_q1"]
    assert "6 is the most" in refused("attack", filled, "lira_online", "--models", "8,16")
    assert "lira_online, " in refused("attack", filled, "memorization", "--models", "4")
    assert "from 1 to 2" in refused("attack", filled, "loss", "--models", "4", "--queries", "3")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("loss", "--models", "3"), "even numbers"),
        (("loss", "--models", "4,"), "even numbers"),
        (("loss", "--models", "4", "--queries", "some"), "first, all, or numbers"),
        (("loss", "--queries", "1,2"), "go with --models"),
        (("loss", "--queries", "2"), "go with --models"),
        (("loss", "--queries", "first"), "--name, --signal and --test"),
        (("--all", "--models", "4"), "leave out --all"),
        (("--models", "4"), "which attack?"),
    ],
)
def test_limits_that_cannot_be_meant(filled: Path, argv: tuple[str, ...], message: str) -> None:
    assert message in " ".join(refused("attack", filled, *argv, code=2).split())


def test_names_of_limited_attacks_are_taken(filled: Path) -> None:
    variant = ("--name", "mine__k2_q1", "--signal", "loss", "--test", "global")
    assert "choose another name" in refused("attack", filled, *variant)


def test_another_preset_says_what_it_replaces(filled: Path) -> None:
    ok("attack", filled, "lira_online")
    done = cli("attack", filled, "lira_online", "--preset", "carlini-code", "--quiet")
    assert "replaces the result with preset paper" in done.stderr

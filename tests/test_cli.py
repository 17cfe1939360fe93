"""The command line as its users meet it: real processes, exit codes, stdout for data, one clear error."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import lirastore

MODELS, EXAMPLES, CLASSES = 8, 60, 4


def cli(*argv: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lirastore", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)


def ok(*argv: object, cwd: Path | None = None) -> str:
    done = cli(*argv, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*argv: object, code: int = 1, cwd: Path | None = None) -> str:
    """The message of a command that fails as the contract says: nothing on stdout, no traceback."""
    done = cli(*argv, cwd=cwd)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def fill(store: lirastore.Store, models: range) -> None:
    rng = np.random.default_rng(0)
    for model in range(store.info.models):
        logits = rng.normal(size=(EXAMPLES, 2, CLASSES)).astype(np.float32)
        logits[np.arange(EXAMPLES), :, store.labels] += 2 * store.keep_mask(model)[:, None]
        if model in models:
            with store.writer(model, metadata={"train_accuracy": 0.9}) as writer:
                writer.write(logits, examples=slice(0, EXAMPLES))


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    np.save(tmp_path / "y.npy", np.arange(EXAMPLES) % CLASSES)
    path = tmp_path / "s.lira"
    ok(
        "init",
        path,
        "--models",
        MODELS,
        "--labels",
        tmp_path / "y.npy",
        "--classes",
        CLASSES,
        "--augmentations",
        "identity,shift(+1,0)",
        "--name",
        "toy",
    )
    return path


@pytest.fixture
def filled(planned: Path) -> Path:
    fill(lirastore.open(planned), range(MODELS))
    return planned


def test_init_plans_what_was_asked(planned: Path) -> None:
    info = lirastore.open(planned).info
    assert (info.models, info.examples, info.classes) == (MODELS, EXAMPLES, CLASSES)
    assert info.augmentations == ("identity", "shift(+1,0)")
    assert info.name == "toy"


def test_init_refuses_what_is_there(planned: Path, tmp_path: Path) -> None:
    message = refused(
        "init",
        planned,
        "--models",
        2,
        "--labels",
        tmp_path / "y.npy",
        "--classes",
        CLASSES,
        "--augmentations",
        1,
    )
    assert str(planned) in message


def test_the_whole_way(filled: Path, tmp_path: Path) -> None:
    ran = ok("attack", filled, "lira_online", "loss", "memorization")
    assert [line.split("\t")[0] for line in ran.splitlines()] == ["lira_online", "loss", "memorization"]

    rows = list(csv.DictReader(io.StringIO(ok("query", filled, "metrics", "--format", "csv"))))
    assert {row["attack"] for row in rows} == {"lira_online", "loss"}
    one = json.loads(
        ok("query", filled, "select count(*) as n from scores where attack = 'loss'", "--format", "json")
    )
    assert one == [{"n": MODELS * EXAMPLES}]

    ok("query", filled, "from scores", "-o", tmp_path / "scores.parquet")
    assert (tmp_path / "scores.parquet").read_bytes()[:4] == b"PAR1"

    assert ok("report", filled, "-o", tmp_path / "r.html", "--svg", tmp_path / "roc.svg").strip() == str(
        tmp_path / "r.html"
    )
    assert "<svg" in (tmp_path / "roc.svg").read_text()

    assert json.loads(ok("status", filled, "--json")) == {
        "models": MODELS,
        "committed": MODELS,
        "pending": [],
        "stale_attempts": 0,
        "attacks": [
            {"name": name, "models": MODELS, "stale": False}
            for name in ("lira_online", "loss", "memorization")
        ],
    }
    ok("verify", filled)
    ok("gc", filled)


def test_new_variants_by_coordinates_and_from_a_file(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def margin(block):\n"
        "    return block.signal('scaled_logit')[:, :, 0] - block.loo().mean_out[:, :, 0]\n"
    )
    ok(
        "attack",
        filled,
        "--name",
        "variant",
        "--signal",
        "scaled_logit",
        "--test",
        "out-mean",
        "--queries",
        "first",
    )
    ok("attack", filled, "mine.py:margin", cwd=tmp_path)
    worst = ok(
        "query",
        filled,
        "--format",
        "json",
        "select max(abs(a.score - b.score)) as d from scores a join scores b using (model, example)"
        " where a.attack = 'variant' and b.attack = 'margin'",
    )
    assert json.loads(worst)[0]["d"] < 1e-9


def test_all_says_what_it_skips(filled: Path) -> None:
    done = cli("attack", filled, "--all", "--preset", "carlini-code")
    assert done.returncode == 0, done.stderr
    presets = json.loads(ok("query", filled, "select distinct preset from attacks", "--format", "json"))
    assert presets == [{"preset": "carlini-code"}]


def test_discard_makes_results_stale_and_says_so(filled: Path) -> None:
    ok("attack", filled, "loss")
    ok("discard", filled, "--models", "2,5:7")
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
    ok("export", filled, tmp_path / "e.npz")
    ok("ingest", tmp_path / "again.lira", tmp_path / "e.npz")
    again, before = lirastore.open(tmp_path / "again.lira"), lirastore.open(filled)
    assert again.logits.set_digest() == before.logits.set_digest()


def test_query_without_sql_lists_every_view_with_a_comment(planned: Path) -> None:
    listing = ok("query", planned)
    for name in ("models", "scores", "metrics", "roc", "most_exposed(attack, n)", "verdict(attack, fpr)"):
        assert any(line.startswith(name) and len(line) > len(name) + 10 for line in listing.splitlines()), (
            name
        )


def test_errors_are_one_clear_message(filled: Path, tmp_path: Path) -> None:
    assert "nowhere.lira" in refused("status", tmp_path / "nowhere.lira")
    assert "lira_onlin" in refused("attack", filled, "lira_onlin")
    assert "metrix" in refused("query", filled, "from metrix")
    assert "SELECT" in refused("query", filled, "drop view scores").upper()
    assert "99" in refused("discard", filled, "--models", "99")
    assert "1 KiB" in refused("attack", filled, "loss", "--memory", "1KiB")
    assert "y.npy" in refused("ingest", tmp_path / "x.lira", tmp_path / "y.npy")
    assert not (tmp_path / "x.lira").exists()


def test_usage_errors_exit_2_and_say_what_there_is(filled: Path) -> None:
    assert "lira_online" in refused("attack", filled, code=2)
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
    np.save(tmp_path / "y.npy", np.arange(EXAMPLES) % CLASSES)
    path = tmp_path / "b.lira"
    ok("init", path, "--models", 5, "--labels", tmp_path / "y.npy", "--classes", CLASSES,
       "--augmentations", 2, "--design", "bernoulli")  # fmt: skip
    fill(lirastore.open(path), range(5))

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

"""Evaluation documents: what is computed when, what is left alone, and who reads it."""

from __future__ import annotations

import json
import os
import threading

import numpy as np
import pytest
from click.testing import CliRunner
from scored_stores import make_store, put, scores

import lirastore
from lirastore import catalog, evaluation, results
from lirastore.cli import cli
from lirastore.errors import FormatVersionError, ResultError
from lirastore.evaluation import running
from lirastore.evaluation.bootstrap import METRICS, replicates
from lirastore.evaluation.resampling import Resamples
from lirastore.evaluation.stream import Pass, Stream

EXAMPLES, MODELS = 120, 6


@pytest.fixture(autouse=True)
def few_replicates(monkeypatch):
    monkeypatch.setattr(running, "REPLICATES", 40)


@pytest.fixture
def made(tmp_path):
    return make_store(tmp_path / "s.lira", EXAMPLES, MODELS)


def evaluate(made, *found, **options):
    evaluation.evaluate(made, found, progress=False, **options)
    return [evaluation.read(made.lira, result) for result in found]


def document(made, result):
    return results.evaluation_file(made.lira, result.attack, result.run)


def some_scores(seed=0, kind="plain"):
    return scores(kind, EXAMPLES, MODELS, seed)[0]


def sections(made, result):
    return evaluation.read(made.lira, result).sections


# --- what is computed -----------------------------------------------------------------------------


def test_the_document(made):
    result = put(made, "one", some_scores())
    (found,) = evaluate(made, result)
    stored = json.loads(document(made, result).read_text())
    assert stored["format"] == 1 and stored["resampling"] == "examples"
    assert (stored["attack"], stored["run"]) == ("one", result.run)
    assert (stored["replicates"], stored["seed"]) == (40, 0) and stored["seconds"] > 0
    assert list(stored["intervals"]) == list(METRICS) and "epsilon" in stored
    assert found.intervals == {name: ends and tuple(ends) for name, ends in stored["intervals"].items()}


@pytest.mark.parametrize("kind", ["plain", "ties"])
def test_the_data_as_they_are_have_the_metrics_of_the_view(made, kind):
    """The estimator of the bootstrap is that of view `metrics`: exactly for TPRs, else to 509 bins."""
    keep = np.broadcast_to(np.arange(EXAMPLES)[:, None] % 3 > 0, (EXAMPLES, MODELS))
    result = put(made, "one", some_scores(kind=kind), keep=keep)
    evaluator = replicates(EXAMPLES, result.rows, Resamples(5, 0, budget=10**6, threads=1))
    stream = Stream(result, made.lira, threads=2, advance=lambda rows: None)
    try:
        while True:
            stream.scan([next(evaluator)])
    except StopIteration as ended:
        survey, values = ended.value
    assert survey.present.sum() == EXAMPLES * 2 // 3
    (row,) = catalog.query(made, f"select {', '.join(METRICS)} from metrics").fetchall()
    assert values[:, 0].tolist()[2:] == list(row[2:])
    assert values[:2, 0] == pytest.approx(row[:2], abs=1e-13 if kind == "ties" else 1e-3)


def test_the_views_show_the_intervals(made):
    one = put(made, "one", some_scores())
    few = put(
        made,
        "one__k4_q1",
        some_scores(2),
        kind="power",
        parameters={"attack": "one", "models": 4, "queries": 1},
    )
    columns = ", ".join(f"{name}_boot_lo, {name}_boot_hi" for name in METRICS)
    assert set(catalog.query(made, f"select {columns} from metrics").fetchall()[0]) == {None}
    first, second = evaluate(made, one, few)
    expected = [end for name in METRICS for end in first.intervals[name] or (None, None)]
    assert catalog.query(made, f"select {columns} from metrics").fetchall() == [tuple(expected)]
    assert expected[0] is not None
    sql = "select tpr_at_0_1pct_boot_lo, tpr_at_0_1pct_boot_hi from power"
    assert catalog.query(made, sql).fetchall() == [second.intervals["tpr_at_0_1pct"] or (None, None)]


def test_only_scores_are_evaluated(made):
    result = put(made, "memorization", some_scores(), kind="examples")
    evaluate(made, result)
    assert not document(made, result).exists()


def test_neither_threads_nor_memory_nor_row_groups_matter(made):
    first = put(made, "one", some_scores())
    (expected,) = evaluate(made, first)
    for rows, options in ((600, {"threads": 1}), (7, {"threads": 5}), (150, {"memory": 1})):
        result = put(made, "one", some_scores(), rows=rows)
        (found,) = evaluate(made, result, **options)
        assert found.intervals == expected.intervals


def test_attacks_of_the_same_examples_are_resampled_alike(made):
    one, other = put(made, "one", some_scores()), put(made, "other", 5 + some_scores())
    first, second = evaluate(made, one, other)
    assert first.intervals == second.intervals


def test_results_without_rows_have_no_intervals(made):
    result = put(made, "one", some_scores(), keep=np.zeros((EXAMPLES, MODELS), bool))
    (found,) = evaluate(made, result)
    assert set(found.intervals.values()) == {None}


def test_several_evaluators_share_the_passes(made, monkeypatch):
    """Each has its section, whatever it takes to fill it."""
    seen = []

    def counting(subject):
        rows = []
        yield Pass(lambda block: len(block), rows.append)
        yield Pass(lambda block: set(block.model.tolist()), seen.append, model=True)
        return {"rows": sum(rows), "attack": subject.result.attack}

    def idle(subject):
        return [1]
        yield

    monkeypatch.setattr(running, "EVALUATORS", {**running.EVALUATORS, "counting": counting, "idle": idle})
    scans = []
    scan = Stream.scan
    monkeypatch.setattr(Stream, "scan", lambda self, passes: scans.append(len(passes)) or scan(self, passes))
    result = put(made, "one", some_scores())
    (found,) = evaluate(made, result)
    assert found.sections["counting"] == {"rows": EXAMPLES * MODELS, "attack": "one"}
    assert found.sections["idle"] == [1] and list(found.sections)[-2:] == ["counting", "idle"]
    assert set().union(*seen) == set(range(MODELS))
    assert len(scans) == 3


# --- what is left alone ---------------------------------------------------------------------------


def test_nothing_is_evaluated_twice(made):
    one = put(made, "one", some_scores())
    evaluate(made, one)
    before = document(made, one).stat()
    other = put(made, "other", some_scores(1))
    evaluate(made, one, other)
    assert document(made, one).stat() == before and document(made, other).exists()
    again = put(made, "one", some_scores(2))
    assert evaluation.read(made.lira, again) is None
    (found,) = evaluate(made, again)
    assert found.run == again.run and document(made, one).exists()


def changed(**fields):
    return lambda text: json.dumps({**json.loads(text), **fields}).encode()


def without(name):
    return lambda text: json.dumps({key: v for key, v in json.loads(text).items() if key != name}).encode()


@pytest.mark.parametrize(
    "change",
    [
        changed(format=0),
        changed(replicates=39),
        changed(seed=1),
        changed(run="another"),
        changed(resampling="models"),
        changed(intervals={"auc": [0.5, 0.4]}),
        changed(intervals=None),
        without("intervals"),
        without("epsilon"),
        without("format"),
        lambda text: b"",
        lambda text: text[: len(text) // 2],
    ],
)
def test_what_is_not_as_it_would_be_is_computed_anew(made, change):
    result = put(made, "one", some_scores())
    evaluate(made, result)
    expected = sections(made, result)
    path = document(made, result)
    path.write_bytes(change(path.read_bytes()))
    evaluate(made, result)
    assert sections(made, result) == expected


def test_a_newer_format_is_refused(made):
    result = put(made, "one", some_scores())
    evaluate(made, result)
    path = document(made, result)
    path.write_bytes(changed(format=99)(path.read_bytes()))
    for act in (lambda: evaluate(made, result), lambda: catalog.query(made, "models")):
        with pytest.raises(FormatVersionError, match=r"evaluation format 99.*update lirastore"):
            act()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_evaluation_goes_on_where_it_was(made, monkeypatch, error):
    one, other = put(made, "one", some_scores()), put(made, "other", some_scores(1))
    scan, calls = Stream.scan, []

    def interrupted(self, passes):
        calls.append(passes)
        if len(calls) > 4:
            raise error
        return scan(self, passes)

    monkeypatch.setattr(Stream, "scan", interrupted)
    with pytest.raises(error):
        evaluate(made, one, other)
    monkeypatch.undo()
    monkeypatch.setattr(running, "REPLICATES", 40)
    before = document(made, one).stat()
    assert not document(made, other).exists()
    evaluate(made, one, other)
    assert document(made, one).stat() == before
    assert evaluation.read(made.lira, other).intervals["auc"] is not None


def test_an_error_in_a_block_ends_the_threads(made):
    result = put(made, "one", some_scores(), rows=10)
    stream = Stream(result, made.lira, threads=3, advance=lambda rows: None)

    def work(block):
        raise ValueError(f"row {block.start}")

    with pytest.raises(ValueError, match="row "):
        stream.scan([Pass(work, lambda found: None)])
    assert not [thread for thread in threading.enumerate() if "lirastore-evaluate" in thread.name]


@pytest.mark.parametrize("way", ["missing", "damaged"])
def test_scores_that_cannot_be_read_are_named(made, way):
    result = put(made, "one", some_scores())
    file = result.files(made.lira)[1]
    if way == "missing":
        file.unlink()
    else:
        data = file.read_bytes()
        file.write_bytes(data[:40] + b"\xff" * (len(data) // 2) + data[40 + len(data) // 2 :])
    with pytest.raises(ResultError, match=rf"{file.name}.*lirastore attack STORE one --force"):
        evaluate(made, result)
    assert not document(made, result).exists()


# --- old ones -------------------------------------------------------------------------------------


def test_gc_removes_evaluations_with_their_runs(made):
    old = put(made, "one", some_scores())
    evaluate(made, old)
    new = put(made, "one", some_scores(1))
    few = put(
        made,
        "one__k4_q1",
        some_scores(2),
        kind="power",
        parameters={"attack": "one", "models": 4, "queries": 1},
    )
    evaluate(made, new, few)
    assert results.remove_old_runs(made.lira, 0.0) == []  # the old run is young
    assert document(made, old).exists()
    aside = document(made, new).with_name(".rest.partial")
    aside.touch()
    folder = results.results_folder(made.lira) / results.run_folder("scores", "one", old.run)
    for path in (*folder.iterdir(), folder, *aside.parent.iterdir(), aside.parent):
        os.utime(path, (1e9, 1e9))
    assert results.remove_old_runs(made.lira, 0.0) == [f"scores/one/{old.run}"]
    assert not document(made, old).exists() and not aside.exists()
    assert document(made, new).exists() and document(made, few).exists()


# --- the facade -----------------------------------------------------------------------------------


@pytest.fixture
def opened(tmp_path):
    rng = np.random.default_rng(0)
    made = lirastore.create(
        tmp_path / "e.lira", labels=rng.integers(0, 3, 90), classes=3, models=8, augmentations=1
    )
    for model in range(8):
        with made.writer(model=model) as writer:
            writer.write(rng.normal(size=(90, 1, 3)).astype(np.float32), examples=slice(None))
    return made


def test_attack_evaluates(opened, capsys):
    (result,) = opened.attack("loss", bootstrap=False, progress=False)
    assert opened.sql("select auc_boot_lo from metrics").fetchall() == [(None,)]
    opened.attack("loss", progress=False)  # up to date, but not evaluated
    assert document(opened.logits, result).exists()
    ((lo, auc, hi),) = opened.sql("select auc_boot_lo, auc, auc_boot_hi from metrics").fetchall()
    assert lo < auc < hi
    assert capsys.readouterr().out == ""


def test_attack_without_the_bootstrap(opened):
    for options, evaluated in ((["--no-bootstrap"], False), ([], True)):
        done = CliRunner().invoke(cli, ["attack", str(opened.path), "loss", "--quiet", *options])
        assert done.exit_code == 0, done.output
        (result,) = results.current(opened.logits.lira).values()
        assert document(opened.logits, result).exists() == evaluated

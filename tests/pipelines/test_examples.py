"""The examples beside the pipelines run, and what pipelines/README.md says and shows is so."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

import lirastore
from lirastore import training
from lirastore.cli import cli
from lirastore.errors import InputError, NonFiniteLogits, TrainingDiverged

torch = pytest.importorskip("torch", reason="the examples train with torch")
pytest.importorskip("sklearn", reason="their data are scikit-learn's digits")

PIPELINES = Path(__file__).parents[2] / "pipelines"
README = (PIPELINES / "README.md").read_text()
PLAIN = PIPELINES / "examples" / "plain_loop.py"
CALLBACK = PIPELINES / "examples" / "trainer_callback.py"
MARK = re.compile(r"\s+# lirastore$")

Script = Callable[..., list[dict[str, Any]]]


def marked(file: Path) -> list[str]:
    """The lines that adapt a script, without their mark."""
    return [MARK.sub("", line).strip() for line in file.read_text().splitlines() if MARK.search(line)]


def unmarked(file: Path) -> str:
    """The script without them."""
    return "".join(line for line in file.read_text().splitlines(keepends=True) if not MARK.search(line))


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Script:
    """Runs source code as a program; returns the JSON lines that it prints."""

    def run(source: str, *arguments: object) -> list[dict[str, Any]]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["script.py", "--device", "cpu", *map(str, arguments)])
        exec(compile(source, "script.py", "exec"), {"__name__": "__main__"})
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def accuracies(store: lirastore.Store, model: int) -> tuple[float, float]:
    """On what the model was to see and on the rest, from its stored logits, averaged over the queries."""
    logits: npt.NDArray[Any] = store.dataset.logits.sel(model=model).to_numpy()
    right = logits.mean(axis=1).argmax(axis=1) == store.labels
    keep = store.keep_mask(model)
    return float(right[keep].mean()), float(right[~keep].mean())


def metadata(store: lirastore.Store) -> dict[int, dict[str, Any]]:
    rows = store.sql("select model, metadata from models").fetchall()
    return {model: json.loads(text) for model, text in rows}


# --- an ordinary loop ---------------------------------------------------------------------------


def test_without_the_marked_lines_it_is_an_ordinary_script(script: Script, tmp_path: Path) -> None:
    source = unmarked(PLAIN)
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    assert not names & {"lirastore", "store", "writer"}
    printed = script(source, "--runs", 2, "--epochs", 3)
    assert [run["seed"] for run in printed] == [0, 1]
    assert all(run["test_accuracy"] > 0.3 and len(run["loss_curve"]) == 3 for run in printed)
    assert not list(tmp_path.iterdir())


def test_about_a_dozen_lines_adapt_it() -> None:
    assert 8 <= len(marked(PLAIN)) <= 13
    assert 8 <= len(marked(CALLBACK)) <= 13


def test_shards_fill_the_store_and_a_rerun_finds_nothing_left(script: Script, tmp_path: Path) -> None:
    source, options = PLAIN.read_text(), ("--runs", 3, "--epochs", 2, "--store", tmp_path / "a.lira")
    first = script(source, *options, "--shard", 0, 2)
    store = lirastore.open(tmp_path / "a.lira")
    assert store.committed().tolist() == [0, 2]
    assert [run["seed"] for run in script(source, *options, "--shard", 1, 2)] == [1]
    assert script(source, *options) == []

    recorded = metadata(store)
    assert recorded[2] == first[1]
    for model in range(3):
        assert accuracies(store, model)[0] == pytest.approx(recorded[model]["train_accuracy"], abs=1e-6)
    assert list(store.info.augmentations) == ["identity", "left", "right"]
    assert store.sql("select count(*) from loss_curves").fetchall() == [(6,)]

    script(source, *options[:-1], tmp_path / "b.lira", "--shard", 2, 3)  # model 2 alone
    again = lirastore.open(tmp_path / "b.lira")
    assert again.committed().tolist() == [2]
    assert np.array_equal(*(s.dataset.logits.sel(model=2).to_numpy() for s in (store, again)))


def test_a_diverged_model_is_not_committed(script: Script, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"loss_curve|NaN or infinity"):
        script(PLAIN.read_text(), "--runs", 2, "--epochs", 2, "--lr", 1e30, "--store", tmp_path / "a.lira")
    assert lirastore.open(tmp_path / "a.lira").committed().size == 0


# --- Hugging Face's Trainer ---------------------------------------------------------------------

hugging_face = [
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator"),
]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The module trainer_callback.py, which transformers may be missing for."""
    for name in ("transformers", "accelerate"):
        pytest.importorskip(name, reason="the callback is one of transformers' Trainer")
    spec = importlib.util.spec_from_file_location("trainer_callback", CALLBACK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def digits(tmp_path: Path) -> lirastore.Store:
    """A store of 16 digits and two models."""
    return lirastore.create(
        tmp_path / "few.lira", labels=np.arange(16) % 10, classes=10, models=2, augmentations=1
    )


def trainer(example: ModuleType, store: lirastore.Store, model: int, **changes: Any) -> Any:
    """A Trainer of `model` on a few digits, with the callback."""
    data = example.load_data()[: store.info.examples]
    arguments = example.training_arguments(model, 1)
    for name, value in changes.items():
        setattr(arguments, name, value)
    made = example.Trainer(example.new_model(), arguments, train_dataset=data)
    made.add_callback(example.StoreOutputs(store, model, data, batch_size=5))
    return made


def end(made: Any) -> None:
    """Calls the callback as a Trainer does when its training has ended."""
    callback = made.callback_handler.callbacks[-1]
    callback.on_train_end(made.args, made.state, made.control, model=made.model)


class TestTrainer:
    pytestmark = hugging_face

    def test_the_script_fills_a_store(
        self, example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few = example.load_data()[:200]
        monkeypatch.setattr(example, "load_data", lambda: few)
        made = mock.Mock(wraps=example.Trainer)
        monkeypatch.setattr(example, "Trainer", made)
        arguments = ["--runs", "2", "--epochs", "2", "--store", str(tmp_path / "a.lira")]
        monkeypatch.setattr(sys, "argv", ["trainer_callback.py", *arguments])
        example.main()
        example.main()  # nothing is left
        store = lirastore.open(tmp_path / "a.lira")
        assert store.committed().tolist() == [0, 1]
        for call, keep in zip(made.call_args_list, store.membership, strict=True):
            assert call.kwargs["train_dataset"].indices.tolist() == np.flatnonzero(keep).tolist()
        for model, found in metadata(store).items():
            train, test = accuracies(store, model)
            assert (found["train_accuracy"], found["test_accuracy"]) == pytest.approx((train, test), abs=1e-6)
            assert found["loss_curve"] == [entry["loss"] for entry in found["log_history"][:2]]
            assert found["seed"] == model
        assert not np.array_equal(*store.dataset.logits.to_numpy())

    def test_a_model_that_diverges_is_not_committed(
        self, example: ModuleType, digits: lirastore.Store
    ) -> None:
        """By default the Trainer's log has no NaN in it; then the outputs tell."""
        with pytest.raises(NonFiniteLogits, match="model 0"):
            trainer(example, digits, 0, learning_rate=1e30, num_train_epochs=4).train()
        told = trainer(
            example, digits, 1, learning_rate=1e30, num_train_epochs=4, logging_nan_inf_filter=False
        )
        with pytest.raises(TrainingDiverged, match="model 1"):
            told.train()
        assert digits.committed().size == 0

    def test_only_the_main_process_writes(self, example: ModuleType, digits: lirastore.Store) -> None:
        made = trainer(example, digits, 0)
        made.state.is_world_process_zero = False
        end(made)
        assert digits.committed().size == 0
        made.state.is_world_process_zero = True
        end(made)
        assert digits.committed().tolist() == [0]

    def test_infinite_numbers_of_the_log_become_null(
        self, example: ModuleType, digits: lirastore.Store
    ) -> None:
        made = trainer(example, digits, 0)
        made.state.log_history = [{"loss": 1.0, "grad_norm": float("inf")}]
        end(made)
        assert metadata(digits)[0]["log_history"] == [{"loss": 1.0, "grad_norm": None}]

    def test_language_models_give_log_probabilities(self, example: ModuleType, tmp_path: Path) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        size = {"vocab_size": 11, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
        model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
        tokens = torch.randint(11, (6, 8), generator=torch.Generator().manual_seed(0))
        labels = tokens.clone()
        labels[2, 5:] = -100
        texts = [{"input_ids": x, "labels": y} for x, y in zip(tokens, labels, strict=True)]
        store = lirastore.create(
            tmp_path / "text.lira",
            labels=[-1] * 6,
            classes=None,
            signals=["token_logprob"],
            augmentations=1,
            models=2,
        )
        made = example.Trainer(model, example.training_arguments(0, 1), train_dataset=texts)
        made.add_callback(example.StoreTokenLogprob(store, 1, texts, batch_size=4))
        made.train()

        with torch.no_grad():
            whole = model.eval()(tokens.to(model.device)).logits.double().log_softmax(dim=-1)
        for number, length in enumerate([8, 8, 5, 8, 8, 8]):
            steps = [whole[number, at - 1, tokens[number, at]].item() for at in range(1, length)]
            t = sum(steps) / len(steps)
            row = store.dataset.sel(model=1, example=number).compute()
            assert row.token_logprob.item() == pytest.approx(t, abs=1e-5)
            assert row.scaled_logit.item() == pytest.approx(t - np.log(-np.expm1(t)), abs=1e-5)


# --- the README ---------------------------------------------------------------------------------


def test_the_readme_shows_the_marked_lines() -> None:
    (diff,) = re.findall(r"```diff\n(.*?)```", README, re.DOTALL)
    assert [line[1:].strip() for line in diff.splitlines() if line.startswith("+")] == marked(PLAIN)


def test_the_table_of_recipes() -> None:
    """The columns are pipeline, recipe, models, epochs, what, queries."""
    rows = re.findall(
        r"^\| \[`(\w+)`\].*? \| `(\w+)` \| (\d+) \| (\d+) \|.*\| (\d+) \|$", README, re.MULTILINE
    )
    shown = {(pipeline, recipe): tuple(map(int, numbers)) for pipeline, recipe, *numbers in rows}
    found = {}
    for pipeline in training.PIPELINES:
        module = importlib.import_module(f"lirastore.pipelines.{pipeline}")
        for name, recipe in module.RECIPES.items():
            queries = getattr(recipe, "queries", None) or module.AUGMENTATIONS
            count = queries if isinstance(queries, int) else len(queries)
            found[pipeline, name] = recipe.models, recipe.epochs, count
    assert shown == found


COMMANDS = re.findall(r"^ *(?:srun |torchrun .*-m )?lirastore +(.*)$", README, re.MULTILINE)


def words(command: str) -> list[str]:
    """A command's arguments, of the fourth of eight jobs."""
    return shlex.split(command.removesuffix(" &").replace("$SHARD", "3/8").replace("$i", "3"))


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("train ")])
def test_commands_that_train_are_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And their pipelines have the recipes, fields and options that they name."""
    asked = []

    def train(path: Path, pipeline: str, *, planned: Any, files: Any, running: Any) -> list[int]:
        asked.append(path)
        if pipeline != "mine.py":
            module = training.load(pipeline)
            recipe = module.RECIPES[planned.get("recipe", next(iter(module.RECIPES)))]
            assert files.keys() <= {"data", "download", "unchecked"}
            assert planned.keys() <= {"recipe", "models", "seed", *vars(recipe)}
            assert running.keys() <= inspect.signature(module.train).parameters.keys()
        return [0]

    assert "$" not in " ".join(words(command))
    monkeypatch.setattr(training, "train", train)
    done = CliRunner().invoke(cli, words(command), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert len(asked) == 1


def test_the_smallest_pipeline_and_the_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = re.findall(r"```python\n# mine.py\n(.*?)```", README, re.DOTALL)
    (tmp_path / "mine.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "mine", None)  # so that it is gone afterwards
    del sys.modules["mine"]

    def lira(*arguments: str) -> str:
        done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    (plain,) = [each for each in COMMANDS if "mine.py" in each]
    lira(*words(plain.replace("--together 2", "--plan 4")))
    store = lirastore.open("mine.lira")
    assert store.committed().tolist() == [0, 1, 2, 3]
    assert all(found["train_accuracy"] > 0.9 for found in metadata(store).values())
    queries = [words(each) for each in COMMANDS if each.startswith("query ")]
    assert len(queries) == 3
    for _, _, sql in queries:
        assert '"' in lira("query", "mine.lira", sql, "--format", "json")

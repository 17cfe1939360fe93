"""The pipelines on a GPU: the same to the bit again, without waiting in a step, and as a CPU has it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import lirastore

torch = pytest.importorskip("torch", reason="pipelines train with torch")
if not torch.cuda.is_available():  # before what is slow to import; and one line in the summary
    pytest.skip("no GPU", allow_module_level=True)
pytest.importorskip("torchvision.datasets", reason="torchvision reads CIFAR")
pytest.importorskip("tokenizers", reason="word pieces are made with tokenizers")

import cifar_files  # noqa: E402
import wikitext_files  # noqa: E402

from lirastore.pipelines import cifar, gpt, running, wikitext  # noqa: E402
from lirastore.pipelines.pictures import view  # noqa: E402

DEVICE = "cuda"
RESNET9 = {
    "examples": 200,
    "population": 16,
    "noise_queries": 3,
    "width": 8,
    "epochs": 3,
    "batch": 32,
    "inference_batch": 64,
}
WRN28 = {**RESNET9, "network": "wrn28", "width": 1, "epochs": 2}
GPT: dict[str, Any] = {  # windows so long that the gradient of attention is summed from several parts
    "examples": 48,
    "window": 256,
    "vocabulary": 300,
    "layers": 2,
    "width": 64,
    "heads": 2,
    "epochs": 2,
    "batch": 8,
    "population": 4,
}


class Pipeline:
    """One pipeline with a toy recipe and toy data."""

    def __init__(self, module: Any, changes: dict[str, Any], arrays: dict[str, str], data: Path) -> None:
        self.module, self.arrays = module, arrays
        self._changes, self._data = changes, {"data": data, "unchecked": True}

    def planned(self, path: Path) -> lirastore.Store:
        store: lirastore.Store = self.module.prepare(
            path, recipe="cpu", models=4, seed=3, **self._data, **self._changes
        )
        return store

    def train(self, store: lirastore.Store, **options: Any) -> list[int]:
        options = {"device": DEVICE, "progress": False, **options}
        trained: list[int] = self.module.train(store, **self._data, **options)
        return trained

    def trainer(self, store: lirastore.Store, device: str) -> Any:
        kind = cifar.CifarTrainer if self.module is cifar else wikitext.WikiTextTrainer
        return kind(store, running.place(device), **self._data)

    def outputs(self, store: lirastore.Store, model: int) -> dict[str, npt.NDArray[np.float32]]:
        """All that is stored of a model."""
        counts = {"examples": store.info.examples, "population": store.info.population}
        return {name: store.logits.read(name, model, 0, counts[of]) for name, of in self.arrays.items()}


@pytest.fixture(scope="module", params=["resnet9", "wrn28", "gpt"])
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    data = tmp_path_factory.mktemp("data")
    of_all = {"population_scaled_logit": "population"}
    if request.param == "gpt":
        wikitext_files.write(data, articles=80)
        of_all |= dict.fromkeys(["scaled_logit", "token_logprob"], "examples")
        return Pipeline(wikitext, GPT, of_all, data)
    cifar_files.write(data, "CIFAR-10")
    of_all |= dict.fromkeys(["logits", "merlin"], "examples")
    return Pipeline(cifar, RESNET9 if request.param == "resnet9" else WRN28, of_all, data)


@pytest.fixture(scope="module")
def trained(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> lirastore.Store:
    """By one process."""
    store = pipeline.planned(tmp_path_factory.mktemp("gpu") / "a.lira")
    assert pipeline.train(store) == [0, 1, 2, 3]
    return store


def assert_same(pipeline: Pipeline, one: lirastore.Store, other: lirastore.Store, model: int) -> None:
    found, expected = pipeline.outputs(one, model), pipeline.outputs(other, model)
    for name in pipeline.arrays:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{name} of model {model}")


def test_a_model_trained_again_is_the_same_to_the_bit(
    pipeline: Pipeline, trained: lirastore.Store, tmp_path: Path
) -> None:
    torch.manual_seed(99)  # the global generator has no say
    again = pipeline.planned(tmp_path / "a.lira")
    assert pipeline.train(again, models=[2]) == [2]
    assert_same(pipeline, again, trained, 2)
    other, third = (pipeline.outputs(trained, model)["population_scaled_logit"] for model in (2, 3))
    assert not np.array_equal(other, third)


def test_processes_side_by_side_train_the_same(
    pipeline: Pipeline, trained: lirastore.Store, tmp_path: Path
) -> None:
    store = pipeline.planned(tmp_path / "a.lira")
    assert pipeline.train(store, together=2) == [0, 1, 2, 3]
    for model in range(4):
        assert_same(pipeline, store, trained, model)


@contextmanager
def no_waiting() -> Iterator[None]:
    """Waiting for the GPU is an error in here."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_no_step_waits_for_the_gpu(
    pipeline: Pipeline, trained: lirastore.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of an epoch is copied to the device before its steps, and the loss read after them."""
    steps = []

    def unwaiting(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        with no_waiting():
            steps.append(call(*given, **named))
        return steps[-1]

    with pytest.raises(RuntimeError, match="synchronizing"):
        unwaiting(float, torch.ones((), device=DEVICE))
    trainer = pipeline.trainer(trained, DEVICE)
    monkeypatch.setattr(trainer, "_step", partial(unwaiting, trainer._step))
    if pipeline.module is cifar:  # which makes its batches on the device, too
        monkeypatch.setattr(cifar, "views", partial(unwaiting, cifar.views))
        monkeypatch.setattr(trainer, "_inputs", partial(unwaiting, trainer._inputs))
    with running.reproducible():
        trainer.fit(0, lambda loss, count: None)
    assert len(steps) > 3


def test_the_log_ends_with_the_share_that_storing_took(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.train(pipeline.planned(tmp_path / "a.lira"), progress=True)
    lines = capsys.readouterr().err.strip().splitlines()
    assert any("model 3: " in line for line in lines)
    found = re.match(r"storing: [\d.]+ s of waiting, ([\d.]+)% of the time; .*, ([\d.]+)% of all", lines[-1])
    assert found is not None, lines[-1]
    assert all(0 <= float(share) <= 100 for share in found.groups())


def test_all_that_is_stored_is_finite(pipeline: Pipeline, trained: lirastore.Store) -> None:
    for model in range(4):
        outputs = pipeline.outputs(trained, model)
        assert all(np.isfinite(values).all() for values in outputs.values())
        if "merlin" in outputs:
            assert ((outputs["merlin"] >= 0) & (outputs["merlin"] <= 1)).all()
            assert outputs["merlin"].any()
    assert trained.verify(progress=False).ok


def test_a_cpu_says_the_same_of_the_same_network(pipeline: Pipeline, trained: lirastore.Store) -> None:
    """Within what bfloat16 rounds away, which is small beside what tells the examples apart."""
    with running.reproducible():
        net = pipeline.trainer(trained, DEVICE).fit(1, lambda loss, count: None)
    here, outputs = pipeline.trainer(trained, "cpu"), pipeline.outputs(trained, 1)
    net.cpu().eval()
    with torch.inference_mode():
        if pipeline.module is cifar:
            asked = [here._ask(net, view(here.examples.pictures, query)) for query in here.queries]
            expected, found = torch.stack(asked, dim=1), outputs["logits"]
        else:
            expected = gpt.token_scores(net, here._windows.long(), bf16=True)[0].mean(dim=1)
            found = outputs["token_logprob"]
    assert found.shape == tuple(expected.shape)
    error, spread = np.abs(found - expected.numpy()), expected.std(dim=0).numpy()
    assert (error.mean(axis=0) < 0.1 * spread).all()

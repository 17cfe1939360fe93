"""The CIFAR pipeline: reading the files, augmentation and queries, training, and what is stored."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import lirastore
from lirastore.errors import InputError, SourceError, TrainingDiverged

torch = pytest.importorskip("torch", reason="the CIFAR pipeline trains with torch")
datasets = pytest.importorskip("torchvision.datasets", reason="torchvision reads CIFAR")

import cifar_files  # noqa: E402

from lirastore.pipelines import cifar, cifar_data, core, networks, pictures, running  # noqa: E402

TINY: dict[str, Any] = {
    "examples": 60,
    "population": 12,
    "queries": 2,
    "noise_queries": 3,
    "width": 2,
    "epochs": 2,
    "batch": 8,
    "inference_batch": 25,
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Toy networks gain nothing by more, and other tests run beside these."""
    with core.one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both toy sets."""
    root = tmp_path_factory.mktemp("data")
    for dataset in cifar_files.FOLDERS:
        cifar_files.write(root, dataset)
    return root


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A directory with a toy CIFAR-10 of the test's own, which it may damage."""
    cifar_files.write(tmp_path / "own", "CIFAR-10")
    return tmp_path / "own"


def planned(path: Path, data: Path, **changes: Any) -> lirastore.Store:
    models, seed = changes.pop("models", 4), changes.pop("seed", 3)
    return cifar.prepare(
        path, recipe="cpu", models=models, seed=seed, data=data, unchecked=True, **{**TINY, **changes}
    )


def train(store: lirastore.Store, data: Path, **options: Any) -> list[int]:
    return cifar.train(store, data=data, unchecked=True, device="cpu", progress=False, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path, one_thread: None) -> lirastore.Store:
    store = planned(tmp_path_factory.mktemp("cifar") / "a.lira", data)
    assert train(store, data) == [0, 1, 2, 3]
    return store


@pytest.fixture
def trainer(trained: lirastore.Store, data: Path) -> cifar.CifarTrainer:
    return cifar.CifarTrainer(trained, CPU, data=data, unchecked=True)


# --- networks and recipes -----------------------------------------------------------------------


def parameters(name: str, width: int, classes: int = 10) -> torch.nn.Sequential:
    return networks.network(name, width=width, stride=1, classes=classes, generator=core.generator(0, 0))


@pytest.mark.parametrize(("classes", "expected"), [(10, 1_467_610), (100, 1_479_220)])
def test_the_wide_network_is_wrn28_2(classes: int, expected: int) -> None:
    net = parameters("wrn28", 2, classes)
    assert sum(part.numel() for part in net.parameters()) == expected
    layers = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(layers) == 25  # 28 with the three stages' shortcuts; the last layer is not counted
    assert net.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, classes)
    assert net[:-1](torch.zeros(1, 3, 32, 32)).shape == (1, 128, 8, 8)


def test_the_small_network_has_the_shape_of_resnet9() -> None:
    net = parameters("resnet9", 64)
    assert sum(part.numel() for part in net.parameters()) == 6_573_130
    assert net[:-1].eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)


@pytest.mark.parametrize("name", list(networks.NETWORKS))
def test_logits_are_float32_under_autocast(name: str) -> None:
    net = parameters(name, 1)
    with core.autocast(CPU):
        logits = net(torch.randn(16, 3, 32, 32))
    assert logits.dtype == torch.float32
    assert (logits.bfloat16().float() != logits).any()


def test_the_learning_rate_follows_the_papers_schedule() -> None:
    recipe, steps = cifar.RECIPES["paper"], 9_800
    rate = [cifar.learning_rate(recipe, step, steps) for step in range(steps)]
    assert rate[0] < 0.1 / 90  # a warm-up of a hundredth of the training
    for step in (98, 4_900, 9_799):
        assert rate[step] == pytest.approx(0.1 * math.cos(7 * math.pi / 16 * step / steps))
    assert max(rate) == pytest.approx(0.1, rel=1e-3)


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = cifar.RECIPES["paper"]
    assert (recipe.models, recipe.network, recipe.width) == (256, "wrn28", 2)
    assert (recipe.epochs, recipe.batch, recipe.lr, recipe.momentum) == (100, 256, 0.1, 0.9)
    assert (recipe.weight_decay, recipe.mirror, recipe.shift, recipe.nesterov) == (5e-4, True, 4, False)
    assert (recipe.examples, recipe.queries, recipe.noise_queries) == (50_000, 18, 100)


def test_weights_decay_and_nothing_else_does() -> None:
    net = parameters("wrn28", 1)
    decaying, others = cifar._optimiser(cifar.RECIPES["paper"], net).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (5e-4, 0)
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(others["params"]) == 2 * len(norms) + 1  # scales, shifts, and the last layer's biases
    assert len(decaying["params"]) + len(others["params"]) == len(list(net.parameters()))


@pytest.mark.parametrize(
    "changes",
    [
        {"queries": 3},
        {"network": "vgg"},
        {"shift": 5},
        {"batch": 0},
        {"epochs": 0},
        {"stride": 3},
        {"cosine": 1},
    ],
)
def test_recipes_that_cannot_be_are_refused(tmp_path: Path, data: Path, changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(InputError, match=f"{name} = "):
        planned(tmp_path / "a.lira", data, **changes)
    assert not (tmp_path / "a.lira").exists()


def test_more_examples_than_there_are_is_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(InputError, match=r"examples = 201: CIFAR-10 .* has 200"):
        planned(tmp_path / "a.lira", data, examples=201)


# --- training -----------------------------------------------------------------------------------


def test_an_epoch_goes_through_every_member_once_and_nobody_else(
    trainer: cifar.CifarTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    shown = cifar.views

    def watched(of: torch.Tensor, examples: torch.Tensor, **how: torch.Tensor) -> torch.Tensor:
        seen.append(examples.tolist())
        return shown(of, examples, **how)

    monkeypatch.setattr(cifar, "views", watched)
    members = np.flatnonzero(trainer.store.keep_mask(1)).tolist()
    trainer.recipe = dataclasses.replace(trainer.recipe, batch=len(members) - 1)
    told: list[tuple[float, int]] = []
    trainer.fit(1, lambda loss, count: told.append((float(loss), count)))
    assert len(seen) == 2 * 2
    epochs = [[one for batch in half for one in batch] for half in (seen[:2], seen[2:])]
    assert [sorted(epoch) for epoch in epochs] == [members, members]
    assert epochs[0] != epochs[1] and epochs[0] != members
    sizes = [len(batch) for batch in seen]
    assert max(sizes) - min(sizes) <= 1
    assert [count for _, count in told] == [len(members)] * 2


def test_the_loss_of_an_epoch_is_the_mean_over_its_members(
    trainer: cifar.CifarTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    compute = torch.nn.functional.cross_entropy

    def watched(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses.extend(compute(logits.detach().float(), labels, reduction="none").tolist())
        return compute(logits, labels)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", watched)
    told: list[float] = []
    trainer.fit(0, lambda loss, count: told.append(float(loss)))
    halves = np.split(np.array(losses), 2)
    np.testing.assert_allclose(told, [half.mean() for half in halves], rtol=1e-5)


def test_augmentations_are_drawn_evenly() -> None:
    recipe, members = cifar.RECIPES["paper"], torch.arange(4_000)
    _, flip, down, right = cifar.draw_epoch(recipe, members, core.generator(0, 0))
    assert abs(flip.float().mean() - 0.5) < 0.05
    for shift in (down, right):
        assert set(shift.tolist()) == set(range(-4, 5))
    still = cifar.Recipe(models=1, mirror=False, shift=0)
    _, flip, down, right = cifar.draw_epoch(still, members, core.generator(0, 0))
    assert not flip.any() and not down.any() and not right.any()


def outputs(store: lirastore.Store, model: int) -> npt.NDArray[np.float32]:
    logits: npt.NDArray[np.float32] = store.dataset.logits.sel(model=model).values
    return logits


def test_a_model_is_the_same_whoever_else_is_trained(
    trained: lirastore.Store, data: Path, tmp_path: Path
) -> None:
    torch.manual_seed(99)  # the global generator has no say
    alone = planned(tmp_path / "a.lira", data)
    assert train(alone, data, models=[2]) == [2]
    np.testing.assert_array_equal(outputs(alone, 2), outputs(trained, 2))
    merlin = [store.dataset.merlin.sel(model=2).values for store in (alone, trained)]
    np.testing.assert_array_equal(*merlin)
    assert not np.array_equal(outputs(trained, 2), outputs(trained, 3))


def test_another_seed_is_another_model(trained: lirastore.Store, data: Path, tmp_path: Path) -> None:
    other = planned(tmp_path / "a.lira", data, seed=4)
    train(other, data, models=[2])
    assert not np.array_equal(outputs(other, 2), outputs(trained, 2))


def test_float32_without_channels_last_trains_as_well(data: Path, tmp_path: Path) -> None:
    plain = {"bf16": False, "channels_last": False, "network": "wrn28", "width": 1, "epochs": 1}
    store = planned(tmp_path / "a.lira", data, **plain, dataset="CIFAR-100", examples=30, queries=1)
    assert train(store, data, models=[0]) == [0]
    assert store.info.classes == 100 and store.info.name.startswith("CIFAR-100, recipe cpu")
    np.testing.assert_array_equal(
        store.labels, cifar_data.load("CIFAR-100", data, download=False, unchecked=True)[0].labels[:30]
    )


def test_a_model_that_diverges_is_not_committed(data: Path, tmp_path: Path) -> None:
    store = planned(tmp_path / "a.lira", data, lr=1e30, warmup=0.0)
    with pytest.raises(TrainingDiverged, match="0"):
        train(store, data, models=[0])
    assert store.pending() == [0, 1, 2, 3]


# --- what is stored -----------------------------------------------------------------------------


def test_the_store_says_what_it_holds(trained: lirastore.Store, data: Path) -> None:
    info = trained.info
    assert info.name.startswith("CIFAR-10, recipe cpu (")
    assert "the first 60 training images" in info.name and "unchecked" in info.name
    assert list(info.augmentations) == ["identity", "flip"]
    assert dict(info.signals) == {"merlin": ("model", "example")} and info.population == 12
    assert info.training is not None
    assert info.training["settings"]["width"] == 2 and "running statistics" in info.training["inference"]
    split = cifar_data.load("CIFAR-10", data, download=False, unchecked=True)[0].first(60)
    np.testing.assert_array_equal(trained.labels, split.labels)
    np.testing.assert_array_equal(trained.dataset.preview.values, split.pictures)


def test_logits_are_those_of_the_network_in_eval_mode(trainer: cifar.CifarTrainer) -> None:
    """Each example's logits are the same alone as in a batch, and the stored ones are these."""
    net = trainer.fit(2, lambda loss, count: None).eval()
    stored = outputs(trainer.store, 2)
    for example in (0, 24, 25, 59):
        for place, query in enumerate(pictures.queries(2)):
            shown = trainer.examples.pictures[example : example + 1].numpy()
            shown = shown[:, :, ::-1].copy() if query.flip else shown
            with torch.inference_mode():
                x = torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 127.5 - 1
                with core.autocast(CPU):
                    logits = net(x.to(memory_format=torch.channels_last))[0]
            np.testing.assert_allclose(stored[example, place], logits.numpy(), atol=0.05)


def test_population_and_accuracies_are_those_of_the_network(trainer: cifar.CifarTrainer) -> None:
    store, model = trainer.store, 2
    net = trainer.fit(model, lambda loss, count: None)
    net.eval()
    with torch.inference_mode():
        logits = trainer._ask(net, trainer.population.pictures)
    labels = trainer.population.labels
    phi = store.dataset.population_scaled_logit.sel(model=model).values
    np.testing.assert_allclose(phi, pictures.scaled_logit(logits, labels).numpy(), atol=1e-4)
    right = outputs(store, model)[:, 0].argmax(axis=1) == store.labels
    member = store.keep_mask(model)
    ((text,),) = store.sql("select metadata from models where model = 2").fetchall()
    accuracy = {name: value for name, value in json.loads(text).items() if name.endswith("_accuracy")}
    assert accuracy == pytest.approx(
        {
            "train_accuracy": right[member].mean(),
            "out_accuracy": right[~member].mean(),
            "test_accuracy": float((logits.argmax(dim=1) == labels).float().mean()),
        }
    )


def test_merlin_is_stored_and_its_noise_is_the_same_for_all_models(
    trainer: cifar.CifarTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[float]] = []
    merlin = cifar.merlin

    def watched(phi: Any, x: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        drawn.append(torch.randn(3, generator=generator.clone_state()).tolist())
        return merlin(phi, x, count, generator)

    monkeypatch.setattr(cifar, "merlin", watched)
    written = [Written(), Written()]
    for model, writer in enumerate(written):
        trainer.write(trainer.fit(model, lambda loss, count: None), model, writer)  # type: ignore[arg-type]
    assert drawn[:3] == drawn[3:] and len({tuple(one) for one in drawn}) == 3
    stored = trainer.store.dataset.merlin.values
    for model, writer in enumerate(written):
        np.testing.assert_allclose(np.concatenate(writer.merlin), stored[model])
        assert writer.starts == [0, 25, 50]


class Written:
    """Takes what a trainer writes."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.starts: list[int] = []
        self.merlin: list[npt.NDArray[np.float32]] = []

    def write(self, logits: torch.Tensor, *, examples: slice, merlin: torch.Tensor) -> None:
        assert logits.dtype == torch.float32 and logits.shape == (examples.stop - examples.start, 2, 10)
        self.starts.append(examples.start)
        self.merlin.append(merlin.numpy())

    def write_population(self, phi: torch.Tensor) -> None:
        assert phi.shape == (12,)


def test_without_noise_queries_and_population_there_are_none(data: Path, tmp_path: Path) -> None:
    store = planned(tmp_path / "a.lira", data, noise_queries=0, population=0, epochs=1)
    assert train(store, data, models=[0]) == [0]
    assert not store.info.signals and store.info.population is None


# --- going on -----------------------------------------------------------------------------------


def test_what_is_there_is_gone_on_with(trained: lirastore.Store, data: Path) -> None:
    again = planned(trained.path, data)
    assert train(again, data) == []
    assert cifar.prepare(trained.path).path == trained.path


@pytest.mark.parametrize(
    "changes", [{"epochs": 3}, {"seed": 5}, {"models": 8}, {"queries": 18}, {"dataset": "CIFAR-100"}]
)
def test_another_experiment_is_refused(trained: lirastore.Store, data: Path, changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(InputError, match=f"holds another experiment .*{name}"):
        planned(trained.path, data, **changes)


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch"])
def test_changed_data_is_refused(own: Path, tmp_path: Path, file: str) -> None:
    store = planned(tmp_path / "a.lira", own)
    path = own / cifar_files.FOLDERS["CIFAR-10"] / file
    with path.open("rb") as stream:
        entry = pickle.load(stream, encoding="bytes")
    entry[b"data"][3, 7] ^= 1
    cifar_files.dump(path, entry)
    with pytest.raises(SourceError, match=r"planned with.*give the directory that was used"):
        train(store, own, models=[0])
    assert store.pending() == [0, 1, 2, 3]


def test_processes_side_by_side_can_make_a_trainer(
    trained: lirastore.Store, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(store: lirastore.Store, make: Any, **options: Any) -> list[int]:
        trainer = pickle.loads(pickle.dumps(make))(store, CPU)
        assert len(trainer.examples) == 60 and options["together"] == 2 and options["shard"] == (1, 2)
        return []

    monkeypatch.setattr(running, "train", run)
    assert train(trained, data, together=2, shard=(1, 2)) == []


def test_training_can_be_asked_to_get_the_data(
    trained: lirastore.Store, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(datasets.CIFAR10, "download", lambda self: asked.append(Path(self.root)))
    assert train(trained, data, download=True) == []
    assert asked == [data]

"""The digits pipeline: its data, that it trains on members only, and that it can be run again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import lirastore
from lirastore.errors import InputError, UnknownModel

torch = pytest.importorskip("torch", reason="the digits pipeline trains with torch")
pytest.importorskip("sklearn", reason="the digits are scikit-learn's")

from sklearn.datasets import load_digits  # noqa: E402

from lirastore.pipelines import core, digits  # noqa: E402

MODELS, EPOCHS = 4, 2


@pytest.fixture(scope="module", autouse=True)
def few_noise_queries() -> Iterator[None]:
    """A hundred take seconds for each model that is written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "NOISE_QUERIES", 5)
        yield


@pytest.fixture
def store(tmp_path: Path) -> lirastore.Store:
    return digits.prepare(tmp_path / "digits.lira", models=MODELS, epochs=EPOCHS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, few_noise_queries: None) -> lirastore.Store:
    store = digits.prepare(tmp_path_factory.mktemp("digits") / "digits.lira", models=MODELS, epochs=EPOCHS)
    digits.train(store)
    return store


@pytest.fixture
def job() -> digits.Job:
    rng = np.random.default_rng(0)
    return digits.Job(
        seed=0,
        models=[0, 5],
        inputs=torch.from_numpy(rng.random((40, len(digits.SHIFTS), 64), dtype=np.float32)),
        labels=torch.from_numpy(rng.integers(0, 10, 40)),
        member=torch.from_numpy(rng.random((2, 40)) < 0.5),
        batches=1,
        epochs=3,
        progress=False,
    )


# --- data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_asked_share_of_labels_becomes_another_class(share: float) -> None:
    truth = np.arange(1000) % 10
    labels = digits.noisy_labels(truth, share, seed=3)
    assert np.count_nonzero(labels != truth) == round(1000 * share)
    assert labels.min() >= 0
    assert labels.max() <= 9
    assert np.array_equal(labels, digits.noisy_labels(truth, share, seed=3))


def test_seeds_randomise_different_labels() -> None:
    truth = np.zeros(1000, dtype=np.int64)
    assert not np.array_equal(
        digits.noisy_labels(truth, 0.1, seed=0), digits.noisy_labels(truth, 0.1, seed=1)
    )


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_outside_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="label_noise"):
        digits.noisy_labels(np.zeros(10, dtype=np.int64), share, seed=0)


def test_shifts_move_the_picture_and_zeros_move_in() -> None:
    image = np.arange(1.0, 65.0).reshape(1, 8, 8)
    views = (16 * digits.shifted_images(image)).reshape(len(digits.SHIFTS), 8, 8)
    shifted = dict(zip(digits.AUGMENTATIONS, views, strict=True))
    assert np.array_equal(shifted["identity"], image[0])
    assert np.array_equal(shifted["shift(+1,0)"][1:], image[0, :-1])
    assert not shifted["shift(+1,0)"][0].any()
    assert np.array_equal(shifted["shift(0,-1)"][:, :-1], image[0, :, 1:])
    assert not shifted["shift(0,-1)"][:, -1].any()


# --- the store ----------------------------------------------------------------------------------


def test_prepare_twice_opens_the_same_store(store: lirastore.Store) -> None:
    again = digits.prepare(store.path, models=MODELS)
    assert again.info == store.info
    assert again.info.augmentations == tuple(digits.AUGMENTATIONS)


@pytest.mark.parametrize("other", [{"models": 8}, {"label_noise": 0.2}, {"seed": 1}])
def test_another_experiment_at_the_same_path_is_refused(
    store: lirastore.Store, other: dict[str, int]
) -> None:
    with pytest.raises(InputError, match="another experiment"):
        digits.prepare(store.path, **{"models": MODELS, **other})


def test_randomised_labels_are_told_from_the_store_alone(store: lirastore.Store) -> None:
    wrong = digits.randomised(lirastore.open(store.path))
    assert wrong.sum() == 180
    assert np.array_equal(store.logits.labels()[~wrong], load_digits().target[~wrong])


def test_a_store_of_other_data_is_refused(tmp_path: Path) -> None:
    other = lirastore.create(
        tmp_path / "other.lira", labels=[0, 1, 0, 1], classes=2, models=4, augmentations=["identity"]
    )
    with pytest.raises(InputError, match="digits"):
        digits.train(other)


# --- training -----------------------------------------------------------------------------------


def test_every_member_is_seen_once_an_epoch_and_nobody_else(job: digits.Job) -> None:
    order, weight, shift = digits.draw_epoch(
        job, [torch.Generator().manual_seed(model) for model in job.models]
    )
    for row, member in enumerate(job.member):
        seen = order[row][weight[row] > 0]
        assert sorted(seen.tolist()) == torch.nonzero(member).flatten().tolist()
    assert shift.shape == job.member.shape
    assert shift.max() < len(digits.SHIFTS)


def test_non_members_leave_no_trace_in_the_parameters(job: digits.Job) -> None:
    row = dataclasses.replace(job, models=job.models[:1], member=job.member[:1])
    outside = ~row.member[0]
    labels = torch.where(outside, (row.labels + 1) % 10, row.labels)
    inputs = torch.where(outside[:, None, None], 1 - row.inputs, row.inputs)
    changed = dataclasses.replace(row, labels=labels, inputs=inputs)
    for before, after in zip(digits.fit(row), digits.fit(changed), strict=True):
        assert torch.equal(before, after)


def test_a_model_does_not_depend_on_what_is_trained_beside_it(job: digits.Job) -> None:
    alone = dataclasses.replace(job, models=job.models[1:], member=job.member[1:])
    for together, single in zip(digits.fit(job), digits.fit(alone), strict=True):
        torch.testing.assert_close(together[1:], single, rtol=1e-3, atol=1e-4)


def test_training_commits_every_model_with_its_accuracies(trained: lirastore.Store) -> None:
    assert trained.committed().tolist() == list(range(MODELS))
    for commit in trained.logits.commits().values():
        assert commit.metadata["epochs"] == EPOCHS
        assert 0.4 < commit.metadata["test_accuracy"] < commit.metadata["train_accuracy"] + 0.05


def test_only_what_is_missing_is_trained(store: lirastore.Store, trained: lirastore.Store) -> None:
    assert digits.train(store, models=[2, 0]) == [0, 2]
    assert digits.train(store) == [1, 3]
    assert digits.train(store) == []
    for model in range(MODELS):
        here, there = (s.logits.read("logits", model, 0, 1797) for s in (store, trained))
        np.testing.assert_allclose(here, there, atol=2e-2)


def test_an_unknown_model_is_refused_before_any_training(store: lirastore.Store) -> None:
    with pytest.raises(UnknownModel, match="17"):
        digits.train(store, models=[1, 17])
    assert store.committed().size == 0


def test_progress_stays_off_stdout(store: lirastore.Store, capsys: pytest.CaptureFixture[str]) -> None:
    digits.train(store, models=[0])
    assert capsys.readouterr().out == ""


def test_summary_splits_the_members_by_their_label(trained: lirastore.Store) -> None:
    trained.attack("loss", progress=False)
    rows = {(row.attack, row.labels): row for row in digits.summary(trained)}
    wrong = digits.randomised(trained)
    member = trained.membership
    clean, randomised = rows["loss", "clean"], rows["loss", "randomised"]
    assert (clean.members, randomised.members) == (member[:, ~wrong].sum(), member[:, wrong].sum())
    whole = trained.sql("select tpr_at_1pct from metrics").fetchall()[0][0]
    found = clean.tpr_at_1pct * clean.members + randomised.tpr_at_1pct * randomised.members
    assert found == pytest.approx(whole * member.sum())


# --- merlin -------------------------------------------------------------------------------------


def test_merlins_share_counts_noisy_copies_with_a_larger_loss() -> None:
    """Against a plain loop over the same noise, model by model."""
    rng = np.random.default_rng(1)
    inputs = torch.from_numpy(rng.random((700, 64), dtype=np.float32))
    labels = torch.from_numpy(rng.integers(0, 10, 700))
    parameters = digits._initial([core.generator(0, model) for model in (0, 1)])
    found = digits.merlin(parameters, inputs, labels, seed=5)

    generator, larger = torch.Generator().manual_seed(5), torch.zeros(2, 700)
    for part in torch.arange(700).split(digits.WRITE_BATCH):
        for _ in range(digits.NOISE_QUERIES):
            noisy = inputs[part] + digits.NOISE * torch.randn(len(part), 64, generator=generator)
            for model in range(2):
                one = [layer[model : model + 1] for layer in parameters]
                losses = [
                    torch.nn.functional.cross_entropy(
                        digits.forward(one, batch[None])[0], labels[part], reduction="none"
                    )
                    for batch in (inputs[part], noisy)
                ]
                larger[model, part] += losses[1] > losses[0]
    # rounding decides a tie now and then: another order of sums
    assert (found * digits.NOISE_QUERIES - larger).abs().max() <= 1
    assert 0.2 < found.mean() < 0.8


def test_merlins_share_is_stored_beside_the_logits(trained: lirastore.Store) -> None:
    shares = trained.dataset.merlin.values
    assert shares.shape == (MODELS, trained.info.examples)
    assert shares.min() >= 0
    assert shares.max() <= 1

"""The wikitext pipeline: its files, windows and language model, and the store that it fills."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wikitext_files as files

import lirastore
from lirastore.errors import InputError, MissingDependency, SourceError, TrainingDiverged

torch = pytest.importorskip("torch", reason="the wikitext pipeline trains with torch")
pytest.importorskip("tokenizers", reason="its word pieces are made with tokenizers")

from lirastore.pipelines import core, gpt, wikitext, windows  # noqa: E402

TOY: dict[str, Any] = {
    "models": 4,
    "examples": 48,
    "window": 8,
    "vocabulary": 300,
    "layers": 2,
    "width": 16,
    "heads": 2,
    "epochs": 2,
    "batch": 8,
    "population": 12,
    "bf16": False,
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """More of them wait for each other longer than they compute."""
    with core.one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files.write(tmp_path_factory.mktemp("text"))


def planned(path: Path, data: Path, **changes: Any) -> lirastore.Store:
    return wikitext.prepare(path, recipe="cpu", data=data, **{**TOY, **changes})


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> lirastore.Store:
    store = planned(tmp_path_factory.mktemp("plain") / "w.lira", data, models=8)
    wikitext.train(store, data=data, progress=False)
    return store


@pytest.fixture(scope="module")
def with_tokens(data: Path, tmp_path_factory: pytest.TempPathFactory) -> lirastore.Store:
    store = planned(tmp_path_factory.mktemp("tokens") / "w.lira", data, models=8, tokens=True)
    wikitext.train(store, data=data, progress=False)
    return store


def corpus(data: Path, **changes: int) -> windows.Corpus:
    asked = {"vocabulary": 299, "window": 8, "examples": 48, "population": 12, **changes}
    return windows.load(data, **asked)


def values(store: lirastore.Store, array: str = "scaled_logit") -> np.ndarray[Any, Any]:
    """(M, E, …) of the committed models."""
    count = store.info.examples
    return np.stack([store.logits.read(array, model, 0, count) for model in store.committed().tolist()])


# --- files ----------------------------------------------------------------------------------------


def test_articles_begin_at_headings_between_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / files.VALID
    file.write_text(
        " \n = One = \n \n a table : \n = a cell = \n 戦 <unk> . \n \n = = Part = = \n \n b \n"
        " \n = Two ( 2 = 2 ) = \n \n c \n \n"
    )
    found = windows.read(file)
    titles = [article.decode().split("\n")[0] for article in found.articles]
    assert titles == [" = One = ", " = Two ( 2 = 2 ) = "]
    assert "".join(article.decode() for article in found.articles) == file.read_text()[2:]
    assert found.words == len(file.read_text().split()) + file.read_text().count("\n")


def test_the_official_training_text_comes_before_a_part_of_it(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = files.write(tmp_path / "both", part=True, seed=3)
    part = windows.files(both)[0]
    assert part.name == files.PART
    planned(tmp_path / "a.lira", both)
    assert str(part) in capsys.readouterr().err
    (part.parent / files.TRAIN).write_bytes((data / "wikitext-103" / files.TRAIN).read_bytes())
    store = planned(tmp_path / "b.lira", both / "wikitext-103")
    assert f"training text from {part.parent / files.TRAIN}: 12 articles" in capsys.readouterr().err
    assert store.info.training["data_sha256"] == corpus(both).sha256
    assert np.array_equal(corpus(both).windows, corpus(data).windows)  # not those of the part


def test_a_part_may_end_anywhere(tmp_path: Path) -> None:
    folder = files.write(tmp_path, part=True)
    whole = corpus(folder)
    with (folder / "wikitext-103" / files.PART).open("ab") as file:
        file.write("went to 戦".encode()[:-1])  # in the middle of a character
    assert corpus(folder).sha256 == whole.sha256


DAMAGES = {
    "empty": (lambda text: b"", "is empty"),
    "blank": (lambda text: b" \n \n", "is empty"),
    "cut off": (lambda text: text[:-200], "ends in the middle of a line"),
    "no UTF-8": (lambda text: text[:700] + b"\xff" + text[700:], "no UTF-8"),
    "a hole": (lambda text: text[:700] + bytes(1) + text[700:], "damaged at byte 700: a zero byte"),
    "another text": (lambda text: text.replace(b" = ", b" # "), "has no article"),
    "the end of a file": (lambda text: text[text.index(b"= = History") - 1 :], "beginning is missing"),
}


@pytest.mark.parametrize("name", [files.TRAIN, files.VALID])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    file = files.write(tmp_path) / "wikitext-103" / name
    change, message = DAMAGES[damage]
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(SourceError, match=message) as caught:
        planned(tmp_path / "w.lira", tmp_path)
    assert str(file) in str(caught.value)
    assert "unpack wikitext-103-v1.zip again" in str(caught.value)
    assert not (tmp_path / "w.lira").exists()


def test_the_byte_of_a_wrong_character_is_named(tmp_path: Path) -> None:
    file = files.write(tmp_path) / "wikitext-103" / files.TRAIN
    text = file.read_bytes()
    at = text.index("戦".encode()) + 1
    file.write_bytes(text[:at] + b"x" + text[at:])
    with pytest.raises(SourceError, match=f"damaged at byte {at - 1:,}: no UTF-8"):
        windows.read(file)


@pytest.mark.parametrize("name", [files.TRAIN, files.VALID])
def test_an_absent_file_is_named(tmp_path: Path, name: str) -> None:
    file = files.write(tmp_path) / "wikitext-103" / name
    file.unlink()
    with pytest.raises(SourceError, match=name):
        corpus(tmp_path)


def test_unchecked_takes_the_whole_lines_of_what_was_cut_off(tmp_path: Path) -> None:
    folder = files.write(tmp_path)
    file = folder / "wikitext-103" / files.TRAIN
    file.write_bytes(file.read_bytes()[:-200])
    store = planned(tmp_path / "w.lira", folder, unchecked=True)
    with pytest.raises(SourceError, match="--unchecked"):
        wikitext.train(store, data=folder, progress=False)
    assert wikitext.train(store, data=folder, models=[1], unchecked=True, progress=False) == [1]


def test_nothing_is_downloaded(tmp_path: Path, data: Path) -> None:
    with pytest.raises(InputError, match="downloads nothing"):
        planned(tmp_path / "w.lira", data, download=True)


def test_without_tokenizers(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependency, match=r"lirastore\[train\]"):
        corpus(data)


# --- windows --------------------------------------------------------------------------------------


def test_windows_are_runs_of_one_article_in_order(data: Path) -> None:
    found = corpus(data, vocabulary=280)
    articles = windows.read(windows.files(data)[0]).articles
    encoded = [found.tokenizer.encode(article.decode()).ids for article in articles]
    all_of_them = [tuple(ids[start : start + 8]) for ids in encoded for start in range(0, len(ids) - 7, 8)]
    different = list(dict.fromkeys(all_of_them))  # the first of equal ones
    expected = [list(different[place * len(different) // 48]) for place in range(48)]
    assert found.windows.tolist() == expected
    assert any(len(ids) % 8 for ids in encoded)
    assert 0 <= found.windows.min() <= found.windows.max() < 280


def test_the_articles_that_examples_come_from_are_counted(data: Path) -> None:
    few, many = corpus(data, examples=3), corpus(data, examples=300)
    assert (few.articles, many.articles) == (3, 12)
    assert not many.whole


def test_no_window_is_there_twice(tmp_path: Path) -> None:
    """Neither among the examples, of which a model may have seen the twin, nor in the population."""
    folder = files.write(tmp_path)
    train, valid = windows.files(folder)
    train.write_bytes(train.read_bytes() * 2)
    valid.write_bytes(valid.read_bytes() + train.read_bytes())
    once = windows.read(train).articles
    found = corpus(folder, vocabulary=280, examples=200, population=40)
    rows = [tuple(row) for row in np.concatenate([found.windows, found.population]).tolist()]
    assert len(set(rows)) == len(rows) == 240
    assert len(once) == 24
    assert found.articles <= 12


def test_tokens_give_the_text_back(data: Path) -> None:
    text = windows.read(windows.files(data)[0]).articles[0].decode()
    found = corpus(data, examples=300)
    ids = found.tokenizer.encode(text).ids
    assert found.tokenizer.decode(ids) == text
    assert len(ids) < len(text.encode())  # pieces, not bytes


def test_more_windows_than_there_are(data: Path) -> None:
    with pytest.raises(
        InputError, match=r"has [\d,]+ different windows of 8 tokens, and examples is 1,000,000"
    ):
        corpus(data, examples=1_000_000)
    with pytest.raises(InputError, match="population is 99,999"):
        corpus(data, population=99_999)


def test_word_pieces_are_the_same_in_every_process(data: Path) -> None:
    code = (
        "import sys; from lirastore.pipelines import windows\n"
        "print(windows.load(sys.argv[1], vocabulary=299, window=8, examples=48, population=12).sha256)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(data)],
            env={**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.strip()
        for seed, threads in (("1", "1"), ("2", "4"))
    }
    assert found == {corpus(data).sha256}


# --- the language model ---------------------------------------------------------------------------


def network(model: int = 0, **shape: int) -> gpt.GPT:
    asked = {"vocabulary": 50, "window": 8, "layers": 2, "width": 16, "heads": 2, **shape}
    return gpt.make(gpt.Shape(**asked), core.generator(0, model), CPU)


def some_windows(count: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randint(49, (count, 8), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def naive_logp(net: gpt.GPT, asked: torch.Tensor) -> torch.Tensor:
    """Token by token, each from a sequence that ends before it; the softmax in float64."""
    logp = torch.empty(asked.shape, dtype=torch.float64)
    begin = torch.full((len(asked), 1), net.shape.vocabulary - 1)
    for place in range(asked.shape[1]):
        hidden = net(torch.cat([begin, asked[:, :place]], dim=1))[:, -1]
        logits = (hidden @ net.head.T).double()
        logp[:, place] = logits.log_softmax(dim=1).gather(1, asked[:, place, None])[:, 0]
    return logp


@pytest.mark.parametrize("scale", [1.0, 60.0])
@pytest.mark.parametrize("logit_bytes", [1, 4 * 50 * 7, 1 << 25])
def test_log_probabilities_are_those_of_the_logits(
    monkeypatch: pytest.MonkeyPatch, scale: float, logit_bytes: int
) -> None:
    monkeypatch.setattr(gpt, "LOGIT_BYTES", {"cpu": logit_bytes})
    net, asked = network(), some_windows()
    with torch.no_grad():
        net.last.weight.mul_(scale)  # sure of what it says: p near 1 for some tokens, near 0 for others
    found, right = gpt.token_scores(net, asked, bf16=False)
    assert found.dtype == torch.float64
    assert found.shape == right.shape == asked.shape
    torch.testing.assert_close(found, naive_logp(net, asked), rtol=1e-5, atol=1e-5)


def test_a_sure_token_has_a_log_probability_below_zero() -> None:
    logits = torch.full((1, 50), -9.0)
    logits[0, 3] = 9.0
    (logp,), (right,) = gpt._scores(logits, torch.tensor([[3]]))
    assert logp.item() == pytest.approx(-49 * np.exp(-18), rel=1e-5)
    assert right


def test_tokens_that_follow_change_nothing() -> None:
    net, asked = network(), some_windows()
    later = asked.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 49
    before, after = (gpt.token_scores(net, tokens, bf16=False)[0] for tokens in (asked, later))
    torch.testing.assert_close(before[:, :5], after[:, :5], rtol=1e-6, atol=1e-7)
    assert (before[:, 5:] != after[:, 5:]).all()


def test_the_training_loss_is_the_mean_of_the_log_probabilities() -> None:
    net, asked = network(), some_windows()
    loss = gpt.training_loss(net, net.head, net.shifted(asked), asked)
    torch.testing.assert_close(loss.double(), -naive_logp(net, asked).mean(), rtol=1e-5, atol=1e-5)


def test_the_paper_s_recipe_is_gpt_2_small() -> None:
    with torch.device("meta"):
        net = gpt.GPT(wikitext.RECIPES["paper"].shape)
    blocks = sum(part.numel() for part in net.blocks.parameters())
    assert blocks == 12 * (12 * 768**2 + 13 * 768)  # GPT-2's 85 million without its embeddings
    assert wikitext.RECIPES["paper"].epochs == 20


def test_weights_begin_as_gpt_2_s() -> None:
    net = network(width=64, vocabulary=2000)
    parts = (net.head, net.blocks[0].mlp.weight, net.blocks[1].mlp_out.weight)
    assert [part.std().item() for part in parts] == pytest.approx([0.02, 0.02, 0.01], rel=0.05)
    assert not any(part.any() for name, part in net.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 10, "heads": 3}, "multiple"),
        ({"vocabulary": 200}, "258"),
        ({"window": 1}, "at least 2"),
        ({"examples": 0}, "at least 1"),
    ],
)
def test_numbers_that_make_no_model(tmp_path: Path, data: Path, wrong: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned(tmp_path / "w.lira", data, **wrong)


# --- training -------------------------------------------------------------------------------------


def trainer(store: lirastore.Store, data: Path) -> wikitext.WikiTextTrainer:
    return wikitext.WikiTextTrainer(store, CPU, data=data)


def weights(trainer: wikitext.WikiTextTrainer, model: int) -> torch.Tensor:
    net = trainer.fit(model, lambda loss, count: None)
    return torch.cat([part.detach().flatten() for part in net.parameters()])


def test_a_model_depends_on_its_seed_and_id_alone(tmp_path: Path, data: Path) -> None:
    store = planned(tmp_path / "w.lira", data)
    state = torch.get_rng_state()
    first = trainer(store, data)
    one, other = weights(first, 1), weights(first, 2)
    torch.manual_seed(7)
    assert torch.equal(weights(trainer(store, data), 2), other)
    assert not torch.equal(one, other)
    torch.set_rng_state(state)
    reseeded = planned(tmp_path / "v.lira", data, seed=1)
    assert not torch.equal(weights(trainer(reseeded, data), 1), one)


def test_other_windows_than_the_model_s_own_change_nothing(tmp_path: Path, data: Path) -> None:
    store = planned(tmp_path / "w.lira", data)
    mine = trainer(store, data)
    before = weights(mine, 3)
    outside = torch.from_numpy(~store.keep_mask(3))
    mine._windows = mine._windows.clone()
    mine._windows[outside] = 0
    assert torch.equal(weights(mine, 3), before)
    mine._windows[:] = 0
    assert not torch.equal(weights(mine, 3), before)


def test_each_epoch_says_its_loss_and_its_tokens(tmp_path: Path, data: Path) -> None:
    store = planned(tmp_path / "w.lira", data, epochs=12, learning_rate=0.01)
    said: list[tuple[float, int]] = []
    trainer(store, data).fit(0, lambda loss, count: said.append((float(loss), count)))
    members = int(store.keep_mask(0).sum())
    assert [count for _, count in said] == [members * 8] * 12
    losses = [loss for loss, _ in said]
    assert losses[0] == pytest.approx(np.log(300), rel=0.1)
    assert losses[-1] < losses[0] - 1


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    recipe = dataclasses.replace(wikitext.RECIPES["cpu"], warmup=0.1, learning_rate=2.0)
    rates = list(wikitext._schedule(recipe, 50))
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert all(np.diff(rates[5:]) < 0)
    assert 0 < rates[-1] < 0.01


def test_bf16_is_the_recipe_s_to_say(tmp_path: Path, data: Path) -> None:
    plain, rough = (planned(tmp_path / f"{bf16}.lira", data, bf16=bf16) for bf16 in (False, True))
    exact, rounded = (weights(trainer(store, data), 0) for store in (plain, rough))
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, rtol=0.5, atol=0.02)


def test_a_model_that_diverges_is_not_committed(tmp_path: Path, data: Path) -> None:
    store = planned(tmp_path / "w.lira", data, learning_rate=1e30, clip=1e30)
    with pytest.raises(TrainingDiverged):
        wikitext.train(store, data=data, models=[0], progress=False)
    assert store.pending() == [0, 1, 2, 3]


# --- the store ------------------------------------------------------------------------------------


def test_what_the_store_holds(trained: lirastore.Store, data: Path) -> None:
    info = trained.info
    assert (info.classes, info.augmentations, info.population) == (None, ("identity",), 12)
    assert info.signals == {"token_logprob": ("model", "example")}
    assert info.name.startswith("WikiText-103 (part: 48 windows of 8 tokens")
    assert (trained.labels == -1).all()
    assert info.training["settings"]["window"] == 8
    assert info.training["data_sha256"] == corpus(data).sha256
    assert trained.verify(progress=False).ok


def test_scaled_logits_are_those_of_the_mean_log_probability(trained: lirastore.Store) -> None:
    t = values(trained, "token_logprob").astype(np.float64)
    phi = values(trained)[:, :, 0]
    np.testing.assert_allclose(phi, t - np.log(-np.expm1(t)), rtol=1e-5)


def test_outputs_are_the_network_s(trained: lirastore.Store, data: Path) -> None:
    net = trainer(trained, data).fit(2, lambda loss, count: None)
    asked = torch.from_numpy(corpus(data).windows).long()
    np.testing.assert_allclose(
        values(trained, "token_logprob")[2], naive_logp(net, asked).mean(dim=1), rtol=1e-5
    )
    points = torch.from_numpy(corpus(data).population).long()
    t = naive_logp(net, points).mean(dim=1)
    found = trained.logits.read("population_scaled_logit", 2, 0, 12)
    np.testing.assert_allclose(found, t - torch.log(-torch.expm1(t)), rtol=1e-5)


def test_what_is_said_of_a_model(trained: lirastore.Store, data: Path) -> None:
    t, member = values(trained, "token_logprob"), trained.membership
    said = json.loads(trained.sql("select metadata from models where model = 2").fetchall()[0][0])
    assert said["train_loss"] == pytest.approx(-t[2][member[2]].mean(), rel=1e-5)
    assert said["out_loss"] == pytest.approx(-t[2][~member[2]].mean(), rel=1e-5)
    net = trainer(trained, data).fit(2, lambda loss, count: None)
    logp, right = gpt.token_scores(net, torch.from_numpy(corpus(data).population).long(), bf16=False)
    assert said["test_loss"] == pytest.approx(-float(logp.mean()), rel=1e-6)
    assert said["test_perplexity"] == pytest.approx(np.exp(said["test_loss"]))
    assert said["test_accuracy"] == pytest.approx(float(right.double().mean()))
    assert 0 <= said["train_accuracy"] <= 1
    assert said["clipped"] == 0
    assert said["tokens_per_second"] > 0


def test_log_probabilities_of_nothing_are_cut_and_counted() -> None:
    tally = wikitext._Tally(CPU)
    t = torch.tensor([0.0, -1e-9, -2e-7, -3.0], dtype=torch.float64)
    phi = tally.scaled_logit(t)
    assert phi[0] == phi[1] == pytest.approx(-np.log(1e-7), rel=1e-6)
    p = t[2:].exp().numpy()
    np.testing.assert_allclose(phi[2:].numpy(), np.log(p / (1 - p)), rtol=1e-6)
    assert tally.facts() == {"clipped": 2}


def test_every_attack_that_needs_no_classes_runs(trained: lirastore.Store) -> None:
    able, refused = trained.attacks()
    assert set(refused) == {
        "shokri", "modified_entropy", "long", "quantile", "memorization", "influence", "merlin", "morgan",
    }  # fmt: skip
    trained.attack(*able, bootstrap=False, progress=False)
    rows = trained.sql(
        "select attack, tpr_at_0_1pct, published_tpr_at_0_1pct, data_set from paper_table"
    ).fetchall()
    filled = {attack: published for attack, tpr, published, data_set in rows if tpr is not None}
    assert {row[3] for row in rows if row[2] is not None} == {"wikitext103"}
    assert {"loss", "sablayrolles", "watson", "ye", "lira_online", "lira_offline"} <= set(filled)
    assert (filled["loss"], filled["watson"], filled["lira_online"]) == (0.001, 0.011, 0.014)


# --- per token ------------------------------------------------------------------------------------


def test_a_window_s_value_is_the_mean_of_its_tokens(with_tokens: lirastore.Store) -> None:
    assert with_tokens.info.augmentations == ("identity", *(f"token({place})" for place in range(8)))
    t, phi = values(with_tokens, "token_logprob"), values(with_tokens)
    assert t.shape == phi.shape == (8, 48, 9)
    np.testing.assert_allclose(t[:, :, 0], t[:, :, 1:].mean(axis=2), rtol=1e-6)
    np.testing.assert_allclose(phi, t - np.log(-np.expm1(t.astype(np.float64))), rtol=1e-4, atol=1e-5)


def test_tokens_are_those_of_the_window(with_tokens: lirastore.Store, data: Path) -> None:
    net = trainer(with_tokens, data).fit(5, lambda loss, count: None)
    asked = torch.from_numpy(corpus(data).windows).long()
    found = values(with_tokens, "token_logprob")[5][:, 1:]
    np.testing.assert_allclose(found, naive_logp(net, asked), rtol=1e-5, atol=1e-6)


def test_named_attacks_are_the_same_to_the_bit_with_tokens(
    trained: lirastore.Store, with_tokens: lirastore.Store
) -> None:
    able, refused = with_tokens.attacks()
    assert (able, refused.keys()) == (trained.attacks()[0], trained.attacks()[1].keys())
    scores = []
    for store in (trained, with_tokens):
        store.attack(*able, bootstrap=False, progress=False)
        scores.append(store.sql("from scores order by attack, model, example").fetchall())
    assert scores[0] == scores[1]
    assert len(scores[0]) > 10 * 8 * 48


def test_an_attack_of_ones_own_on_tokens(with_tokens: lirastore.Store) -> None:
    @lirastore.attack("min_20", signals=("token_logprob",))
    def min_20(block: Any) -> Any:
        """Mean log p of the two least likely tokens."""
        return np.sort(block.signal("token_logprob", queries="tokens"), axis=2)[:, :, :2].mean(axis=2)

    with_tokens.attack(min_20, bootstrap=False, progress=False)
    found = with_tokens.sql("from scores where attack = 'min_20' order by model, example").df()
    tokens = np.sort(values(with_tokens, "token_logprob")[:, :, 1:], axis=2)
    np.testing.assert_allclose(found["score"], tokens[:, :, :2].mean(axis=2).ravel(), rtol=1e-6)


# --- again and later ------------------------------------------------------------------------------


def test_the_words_of_some_windows(trained: lirastore.Store, data: Path) -> None:
    found = wikitext.text(trained, data, [47, 0])
    assert found[1].startswith(" = Articl")
    articles = [article.decode() for article in windows.read(windows.files(data)[0]).articles]
    assert any(found[0].strip("\ufffd") in article for article in articles[-2:])
    with pytest.raises(InputError, match="0 to 47"):
        wikitext.text(trained, data, [48])


def test_another_text_is_refused(tmp_path: Path, data: Path) -> None:
    store = planned(tmp_path / "w.lira", data)
    other = files.write(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="gives other windows"):
        wikitext.train(store, data=other, progress=False)
    with pytest.raises(InputError, match="gives other windows"):
        wikitext.text(store, other, [0])
    assert len(store.pending()) == 4


def test_another_version_of_tokenizers_is_named(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = planned(tmp_path / "w.lira", data)
    then = store.info.training["tokenizers"]
    assert then == windows.version()
    other = files.write(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="pass the --data of then, or"):
        wikitext.text(store, other, [0])
    monkeypatch.setattr(windows, "version", lambda: "99.9")
    assert wikitext.text(store, data, [0])  # the same windows all the same
    with pytest.raises(InputError, match=rf"tokenizers 99\.9\).* and install tokenizers {then}"):
        wikitext.text(store, other, [0])


def test_what_is_committed_is_not_trained_again(tmp_path: Path, data: Path) -> None:
    store = planned(tmp_path / "w.lira", data)
    assert wikitext.train(store, data=data, models=[2, 0], progress=False) == [0, 2]
    again = wikitext.prepare(tmp_path / "w.lira", data="nowhere")
    assert wikitext.train(again, data=data, progress=False) == [1, 3]
    assert wikitext.train(again, data="nowhere", progress=False) == []
    with pytest.raises(InputError, match="window 8, not 16"):
        wikitext.prepare(tmp_path / "w.lira", data=data, window=16)


SLOW = """
import sys, time
from lirastore.pipelines import core, gpt, wikitext
store = wikitext.prepare(sys.argv[1], data=sys.argv[2])
fit = wikitext.WikiTextTrainer.fit
def slow(self, model, epoch):
    net = fit(self, model, epoch)
    if model == 1:
        print("training 1", flush=True)
        time.sleep(60)
    return net
wikitext.WikiTextTrainer.fit = slow
wikitext.train(store, data=sys.argv[2], progress=False)
"""


def test_a_killed_job_goes_on_as_if_it_had_not_been(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "w.lira"
    store = planned(path, data)
    job = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(path), str(data)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert job.stdout is not None
        assert job.stdout.readline() == "training 1\n"
        while store.pending()[0] == 0:  # it is committed while the next one trains
            assert job.poll() is None
            time.sleep(0.02)
    finally:
        job.send_signal(signal.SIGKILL)
        job.communicate()
    assert store.pending() == [1, 2, 3]
    assert wikitext.train(store, data=data, progress=False) == [1, 2, 3]
    whole = planned(tmp_path / "v.lira", data)
    wikitext.train(whole, data=data, progress=False)
    assert np.array_equal(values(store), values(whole))
    assert store.verify(progress=False).ok

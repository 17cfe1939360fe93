"""Names, decorators and files: how an attack is found, and what is refused."""

from __future__ import annotations

import hashlib
import json
import pickle
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attack_harness import Experiment, null, scores

from lirastore.attacks import (
    Attack,
    Block,
    MinimumCounts,
    Summary,
    attack,
    check_name,
    check_scores,
    compose,
    load,
    named,
    presets,
    registered,
    registry,
    resolve,
    stages,
)
from lirastore.errors import AttackError, MissingData

PUBLISHED = [
    *("loss", "sablayrolles", "watson", "ye"),
    *("lira_online", "lira_offline", "lira_online_fixed", "lira_offline_fixed"),
    *("lira_online_shrunk", "lira_offline_shrunk", "lira_online_full"),
    *("shokri", "merlin", "morgan", "modified_entropy", "long", "quantile"),
    *("ye_population", "rmia", "rmia_offline"),
    *("memorization", "influence"),
]
ABLATIONS = [
    *("global_loss", "global_phi", "global_phi_all"),
    *("out_loss", "out_phi", "out_gauss", "out_gauss_all"),
    *("inout_loss", "inout_phi", "inout_gauss", "inout_gauss_all"),
]


@pytest.fixture(autouse=True)
def forget_user_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_user_attacks", {})


@pytest.fixture
def block() -> Block:
    return next(iter(null("balanced", 8, 5).blocks(5, {}, {"scaled_logit"})))


def write(path: Path, source: str) -> Path:
    path.write_text(textwrap.dedent(source))
    return path


# --- the built-in ones --------------------------------------------------------------------------


def test_every_named_attack_is_there_and_documented() -> None:
    found = registered()
    assert list(found) == PUBLISHED + [f"ablation_{row}" for row in ABLATIONS]
    for name, made in found.items():
        assert made.name == name
        assert "higher means member" in made.doc.lower() or made.kind in ("examples", "pairs")
        assert json.loads(json.dumps(dict(made.parameters)))["preset"] == "paper"


@pytest.mark.parametrize(
    ("alias", "of"),
    [
        ("ablation_global_loss", "loss"),
        ("ablation_out_loss", "watson"),
        ("ablation_inout_loss", "sablayrolles"),
        ("ablation_out_gauss_all", "lira_offline"),
        ("ablation_inout_gauss_all", "lira_online"),
    ],
)
def test_aliases_share_the_computation(alias: str, of: str, block: Block) -> None:
    assert named(alias).function == named(of).function
    assert named(alias).parameters == named(of).parameters
    if named(of).signals == ("scaled_logit",):
        assert named(alias).function(block) is named(of).function(block)


@pytest.mark.parametrize("preset", list(presets.PRESETS))
def test_attacks_can_be_sent_to_other_processes(preset: str) -> None:
    for made in presets.attacks(preset).values():
        again = pickle.loads(pickle.dumps(made.function))
        assert again == made.function
        sent = pickle.loads(pickle.dumps(made.summaries))
        assert [summary.key for summary in sent] == [summary.key for summary in made.summaries]


def test_a_preset_defines_its_own_attacks_only() -> None:
    assert named("lira_online", preset="carlini-code").parameters["centre"] == "median"
    with pytest.raises(AttackError, match=r"'watson' has no 'carlini-code' numerics.*lira_online"):
        named("watson", preset="carlini-code")
    with pytest.raises(AttackError, match=r"preset 'carlini'.*paper, carlini-code"):
        named("loss", preset="carlini")


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(AttackError, match=r"no attack is called 'lira'.*lira_online.*file\.py:function"):
        named("lira")


@pytest.mark.parametrize(
    "name", ["", "Loss", "1st", "a-b", "a b", "a/../b", "a" * 65, "naïve", "loss\n", None, 3]
)
def test_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(AttackError, match="attack name"):
        check_name(name)


def test_the_longest_name_is_accepted() -> None:
    assert check_name("a" * 64) == "a" * 64


def test_attacks_that_score_each_model_by_itself_say_so() -> None:
    made = [attack for preset in presets.PRESETS for attack in presets.attacks(preset).values()]
    found = {(attack.parameters["preset"], attack.name) for attack in made if attack.separate}
    assert found == {
        *(("paper", name) for name in ("loss", "merlin", "ye_population")),
        *(("paper", f"ablation_global_{what}") for what in ("loss", "phi", "phi_all")),
        ("carlini-code", "ablation_global_phi_all"),
        *(("misleading-evals", f"ablation_global_{what}") for what in ("phi", "hinge")),
    }
    assert all(attack.separate is (attack.parameters.get("test") == "global") for attack in made
               if "test" in attack.parameters)  # fmt: skip


@pytest.mark.parametrize("name", ["loss", "merlin", "ye_population", "ablation_global_phi_all"])
@pytest.mark.parametrize("points", [0, 30])
def test_separate_scores_do_not_change_with_the_other_models(name: str, points: int) -> None:
    """A model is scored alike whatever the others answer and hold; `watson`, for one, is not."""
    rng = np.random.default_rng(5)
    first, others = null("balanced", 8, 40, seed=1), null("bernoulli", 8, 40, seed=9)

    def beside(rest: Experiment) -> Experiment:
        member = np.concatenate([first.member[:1], rest.member[1:]])
        signals = {
            key: np.concatenate([first.signals[key][:1], rest.signals[key][1:]]) for key in rest.signals
        }
        population = np.concatenate([known, rng.normal(size=(7, points))]) if points else None
        return replace(first, member=member, signals=signals, population=population)

    known = rng.normal(size=(1, points))
    one, two = beside(first), beside(others)
    np.testing.assert_array_equal(scores(named(name), one)[0], scores(named(name), two)[0])
    assert (scores(named("watson"), one)[0] != scores(named("watson"), two)[0]).any()


# --- coordinates --------------------------------------------------------------------------------


def test_parameters_hold_the_coordinates_that_matter() -> None:
    made = compose("mine", signal="hinge", test="out-rank", queries="first")
    assert made.parameters == {"preset": "paper", "signal": "hinge", "test": "out-rank", "queries": "first"}
    made = compose("mine", signal="loss", test="gaussian-out", variance="global", centre="median")
    assert made.parameters == {
        "preset": "paper",
        "signal": "loss",
        "test": "gaussian-out",
        "queries": "all",
        "variance": "global",
        "centre": "median",
    }


@pytest.mark.parametrize(
    ("coordinates", "message"),
    [
        ({"test": "gauss"}, r"test 'gauss': expected one of global, out-mean"),
        ({"test": "global", "queries": "second"}, r"queries 'second': expected one of first, all"),
        (
            {"test": "gaussian-out", "variance": "pooled"},
            r"variance 'pooled': expected one of example, global",
        ),
        ({"test": "gaussian-out", "centre": "mode"}, r"centre 'mode': expected one of mean, median"),
        ({"test": "out-mean", "variance": "global"}, r"'out-mean' uses no variance"),
        ({"test": "out-rank", "centre": "median"}, r"'out-rank' uses no centre"),
        ({"test": "global", "centre": "median"}, r"'global' uses no centre"),
    ],
)
def test_coordinates_that_do_not_exist_are_refused(coordinates: dict[str, str], message: str) -> None:
    with pytest.raises(AttackError, match=message):
        compose("mine", signal="loss", **coordinates)  # type: ignore[arg-type]


# --- minimum counts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("test", "variance", "n_in", "n_out"),
    [
        ("global", "example", 0, 0),
        ("out-mean", "example", 0, 1),
        ("out-rank", "example", 0, 1),
        ("in-out-mean", "example", 1, 1),
        ("gaussian-out", "example", 0, 2),
        ("gaussian-out", "global", 0, 1),
        ("gaussian-in-out", "example", 2, 2),
        ("gaussian-in-out", "global", 1, 1),
    ],
)
def test_minimum_counts_belong_to_the_test(test: str, variance: str, n_in: int, n_out: int) -> None:
    made = compose("mine", signal="loss", test=test, variance=variance)  # type: ignore[arg-type]
    assert made.minimum == MinimumCounts(n_in, n_out, degrees=2 if variance == "global" else 0)


def test_examples_that_fall_short_for_some_target() -> None:
    member = np.arange(6)[:, None] < np.array([0, 1, 2, 3, 4, 5, 6])  # k_in = 0 … 6 of 6 models
    assert MinimumCounts().short(member).tolist() == [False] * 7
    assert MinimumCounts(0, 1).short(member).tolist() == [False] * 5 + [True] * 2
    assert MinimumCounts(2, 2).short(member).tolist() == [True] * 3 + [False] + [True] * 3
    assert (
        MinimumCounts(0, 1).short(member, equal_counts=True).tolist() == [True] * 2 + [False] * 3 + [True] * 2
    )
    alone = MinimumCounts(1, 1, leave_one_out=False)
    assert alone.short(member).tolist() == [True] + [False] * 5 + [True]
    made = compose("mine", signal="loss", test="out-mean")
    mask = np.array([True, False] * 3 + [True])
    assert made.scored(member, mask).tolist() == [True, False, True, False, True, False, False]


# --- summaries ----------------------------------------------------------------------------------


def test_stages_put_required_summaries_first_and_each_key_once() -> None:
    def summary(key: str, *requires: Summary) -> Summary:
        return Summary(key, (), lambda block: 0, lambda a, b: a + b, lambda state: state, requires)

    counts = summary("counts")
    spread = summary("spread", counts)
    passes = stages([spread, summary("spread", counts), summary("other")])
    assert [[part.key for part in one] for one in passes] == [["other", "counts"], ["spread"]]
    assert stages([]) == []


def test_a_block_refuses_what_the_attack_did_not_declare(block: Block) -> None:
    with pytest.raises(MissingData, match=r"signal 'loss' is not in this block, which holds scaled_logit"):
        block.signal("loss")
    with pytest.raises(MissingData, match=r"summary 'nothing'"):
        block.summary(Summary("nothing", (), lambda b: 0, lambda a, b: 0, lambda s: 0))


# --- decorated functions ------------------------------------------------------------------------


def test_a_decorated_function_is_an_attack(block: Block) -> None:
    @attack("mine", minimum=MinimumCounts(n_out=1))
    def mine(block: Block) -> np.ndarray:
        """Above the OUT mean."""
        return (block.signal("scaled_logit") - block.loo("scaled_logit").mean_out).mean(axis=2)

    assert registered()["mine"] is mine is named("mine") is resolve("mine") is resolve(mine)
    assert named("mine", preset="carlini-code") is mine
    assert mine.doc == "Above the OUT mean."
    assert mine.parameters["source_sha256"] == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    assert mine(block).shape == (8, 5)
    expected = compose("other", signal="scaled_logit", test="out-mean")
    np.testing.assert_allclose(mine(block), expected(block), rtol=1e-12, atol=1e-12)


def test_decorating_again_replaces_but_never_another_attack() -> None:
    def make(value: int) -> Attack:
        @attack("mine")
        def mine(block: Block) -> int:
            return value

        return mine

    make(1)
    second = make(2)
    assert named("mine") is second

    def other(block: Block) -> int:
        return 0

    with pytest.raises(AttackError, match=r"'mine' is .*make\.<locals>\.mine already"):
        attack("mine")(other)
    with pytest.raises(AttackError, match="'loss' is the name of a built-in attack"):
        attack("loss")(other)
    with pytest.raises(AttackError, match="attack name 'Mine'"):
        attack("Mine")
    with pytest.raises(AttackError, match="decorates a function"):
        attack("yours")(3)  # type: ignore[arg-type]


def test_a_function_typed_at_a_prompt_is_identified_by_its_code() -> None:
    space: dict[str, object] = {"__name__": "nowhere"}
    exec("def prompt(block):\n    return 1", space)
    made = attack("prompt")(space["prompt"])  # type: ignore[arg-type]
    assert len(made.parameters["bytecode_sha256"]) == 64


def test_only_what_its_parameters_describe_is_described() -> None:
    def mine(block: Block) -> int:
        return 0

    for preset in presets.PRESETS:
        assert all(made.described for made in presets.attacks(preset).values())
    assert compose("other", signal="loss", test="global").described
    assert not attack("mine")(mine).described
    assert not Attack("mine", mine).described


# --- files --------------------------------------------------------------------------------------


def test_a_function_of_a_file(tmp_path: Path, block: Block) -> None:
    file = write(
        tmp_path / "idea-1.py",
        '''
        from __future__ import annotations
        from dataclasses import dataclass

        @dataclass
        class Settings:  # dataclasses look their module up
            query: int = 0

        def idea(block):
            """The first query."""
            return block.signal("scaled_logit")[:, :, Settings().query]
        ''',
    )
    made = resolve(f"{file}:idea")
    assert (made.name, made.doc, made.signals) == ("idea", "The first query.", ("scaled_logit",))
    assert made.parameters == {
        "function": "idea",
        "source_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    np.testing.assert_array_equal(made(block), block.signal("scaled_logit")[:, :, 0])
    assert not (tmp_path / "__pycache__").exists()


def test_a_decorated_function_of_a_file_follows_its_edits(tmp_path: Path) -> None:
    source = """
        from lirastore.attacks import attack

        @attack("careful", signals=("loss",))
        def anything(block):
            return block.signal("loss")[:, :, 0]
        """
    file = write(tmp_path / "mine.py", source)
    first = load(f"{file}:anything")
    assert (first.name, first.signals) == ("careful", ("loss",))
    assert first.parameters["source_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    write(file, source.replace("[:, :, 0]", "[:, :, 1]"))
    second = load(f"{file}:anything")
    assert second.parameters != first.parameters
    assert named("careful") is second


@pytest.mark.parametrize(
    ("source", "location", "message"),
    [
        ("def f(b): pass", "mine.txt:f", r"expected path/to/file\.py:function"),
        ("def f(b): pass", "mine.py:f()", r"expected path/to/file\.py:function"),
        ("def f(b): pass", "absent.py:f", r"cannot read the attack file .*absent\.py: No such file"),
        ("def f(b): pass\nimport os", "mine.py:g", r"defines no function 'g'; it defines f$"),
        ("f = 3", "mine.py:f", r"defines no function 'f'; it defines none"),
        ("def f(b:\n", "mine.py:f", r"mine\.py fails: SyntaxError: .*\(line 1\)"),
        ("x = 1\ny = 1 / 0\n", "mine.py:f", r"mine\.py fails: ZeroDivisionError: .* \(line 2\)"),
        ("raise SystemExit(3)", "mine.py:f", r"mine\.py fails: SystemExit: 3 \(line 1\)"),
        ("import no_such_module_at_all", "mine.py:f", r"mine\.py fails: ModuleNotFoundError"),
        ("def loss(b): pass", "mine.py:loss", r"'loss' is the name of a built-in attack"),
        ("def Loud(b): pass", "mine.py:Loud", r"attack name 'Loud'"),
        ("\0", "mine.py:f", r"mine\.py fails: SyntaxError|ValueError"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, source: str, location: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(AttackError, match=message):
        load(f"{tmp_path}/{location}")


def test_only_attacks_and_names_are_resolved() -> None:
    with pytest.raises(AttackError, match="is no attack"):
        resolve(len)  # type: ignore[arg-type]


# --- results of functions that nobody vouches for -----------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"NoneType of shape \(\) and dtype object"),
        (np.zeros((5, 8)), r"ndarray of shape \(5, 8\)"),
        (np.zeros((8, 5, 2)), r"shape \(8, 5, 2\)"),
        (np.zeros((8, 5), complex), r"complex128"),
        (
            np.full((8, 5), "x"),
            r"expected one real number per model and example of the block, shape \(8, 5\)",
        ),
    ],
)
def test_malformed_scores_are_refused(block: Block, value: object, message: str) -> None:
    made = Attack("mine", lambda block: value)
    with pytest.raises(AttackError, match=rf"'mine' returned .*{message}"):
        check_scores(made, block, value)


def test_scores_that_are_not_finite_are_named() -> None:
    experiment = null("balanced", 8, 30)
    made = Attack("mine", lambda block: np.where(block.examples == 17, np.nan, np.ones(block.member.shape)))
    with pytest.raises(AttackError, match=r"'mine' returned 8 scores .* models 0, 1, .* and examples 17;"):
        scores(made, experiment, tile=10)


def test_examples_without_models_enough_may_hold_anything(block: Block) -> None:
    made = Attack("mine", lambda block: None, minimum=MinimumCounts(n_in=4))  # balanced leaves 3
    assert check_scores(made, block, np.full((8, 5), np.nan)).shape == (8, 5)


def test_integer_scores_become_float64(block: Block) -> None:
    made = Attack("mine", lambda block: None)
    assert check_scores(made, block, block.member).dtype == np.float64

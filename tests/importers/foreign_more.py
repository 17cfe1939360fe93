"""Writes small experiments as other tools lay them out: files, names and shapes are those of their sources.

Each writes what the tool leaves lying beside its outputs, too, and pickles that must never be loaded: they
leave a mark if they are.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import foreign
import numpy as np

Truth = foreign.Truth
HASH = "0f" * 32


class Mark:
    """A pickle of this makes the file named by `path` when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def trap(path: Path, *, mark: Path | None = None) -> Path:
    """A pickle at `path` that makes `mark`, by default `loaded` beside it, when it is loaded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(Mark(mark or path.with_name("loaded"))))
    return path


def no_pickle_was_loaded(root: Path) -> bool:
    return not list(root.rglob("loaded"))


def labels(path: Path, truth: Truth) -> Path:
    np.save(path, truth.labels)
    return path


def lira_pytorch(path: Path, truth: Truth, *, kinds: tuple[str, ...] = ("logits", "scores")) -> Path:
    """`--savedir` after train.py, inference.py and score.py; plot.py writes into the working directory."""
    for model in reversed(range(truth.models)):
        run = path / str(model)
        run.mkdir(parents=True)
        np.save(run / "keep.npy", truth.membership[model])
        trap(run / "model.pt")
        if "logits" in kinds:
            np.save(run / "logits.npy", truth.logits[model])
        if "scores" in kinds:
            np.save(run / "scores.npy", truth.scaled[model])
    (path / "fprtpr.png").touch()
    (path / ".ipynb_checkpoints").mkdir()
    return path


def lira_analysis(path: Path, truth: Truth, *, kinds: tuple[str, ...] = ("logits", "scores")) -> Path:
    """`experiments/{dataset}/{architecture}/{run}` after training and a leave-one-out attack."""
    path.mkdir(parents=True)
    np.save(path / "keep_indices.npy", truth.membership)
    np.save(path / "membership_labels.npy", truth.membership)
    np.save(path / "online_scores_leave_one_out.npy", np.zeros(truth.membership.shape))
    for name in ("train_config.yaml", "train_log.log", "attack_results_leave_one_out_summary.csv"):
        (path / name).write_text("seed: 42\n")
    for model in reversed(range(truth.models)):
        run = path / f"model_{model}"
        run.mkdir()
        trap(run / "best_model.pth")
        for kind in kinds:
            (run / kind).mkdir()
            values = truth.logits[model][:, None] if kind == "logits" else truth.scaled[model]
            np.save(run / kind / f"{kind}.npy", values)
    return path


def misleading_evals(path: Path, truth: Truth, canaries: np.ndarray, *, suffix: str | None = None) -> Path:
    """`EXPERIMENT_DIR/NAME` after training and attack; examples that are no canaries are IN everywhere."""
    import torch

    path.mkdir(parents=True, exist_ok=True)
    attack = path if suffix is None else path / f"attack_{suffix}"
    attack.mkdir(exist_ok=True)
    torch.save(torch.from_numpy(truth.labels), attack / "attack_ys.pt")
    torch.save(torch.from_numpy(truth.membership.T.copy()), attack / "shadow_membership_mask.pt")
    torch.save(torch.from_numpy(canaries), attack / "canary_indices.pt")
    torch.save(torch.zeros(5, dtype=torch.float64), attack / "attack_scores_lira_logit.pt")
    for model in reversed(range(truth.models)):
        run = path / ("shadow" if suffix is None else f"shadow_{suffix}") / str(model)
        run.mkdir(parents=True)
        torch.save(torch.from_numpy(truth.logits[model]), run / "predictions_train.pt")
        torch.save(torch.zeros(7, 1, truth.logits.shape[-1]), run / "predictions_test.pt")
        trap(run / "model.pt")
        metrics = {"train_accuracy_full": 0.9, "train_accuracy_in": 0.99, "test_accuracy": 0.5 + model / 100}
        (run / "metrics.json").write_text(json.dumps(metrics | {"train_accuracy_canaries_in": float("nan")}))
    (path.parent / "mlruns").mkdir(exist_ok=True)
    return path


def canary_experiment(models: int = 4, examples: int = 53, queries: int = 18) -> tuple[Truth, np.ndarray]:
    """An experiment whose non-canaries are IN everywhere, and its canaries, in no order."""
    truth = foreign.experiment(models=models, examples=examples, augmentations=queries)
    canaries = np.random.default_rng(5).permutation(examples)[:11]
    truth.membership[:, np.setdiff1d(np.arange(examples), canaries)] = True
    return truth, canaries


def confidences(truth: Truth, dtype: type = np.float32) -> np.ndarray:
    """(E, M) softmax of the true class, of the first query."""
    phi = truth.scaled[:, :, 0]
    return np.ascontiguousarray((1 / (1 + np.exp(-phi))).T, dtype=dtype)


def paired(truth: Truth) -> Truth:
    """The same with masks as ml_privacy_meter draws them: models 2k and 2k + 1 are trained on complements."""
    random = np.random.RandomState(12345)
    indices = np.arange(len(truth.labels))
    for pair in range(truth.models // 2):
        random.shuffle(indices)
        half = indices[len(indices) // 2 :]
        truth.membership[2 * pair] = ~np.isin(np.arange(len(indices)), half)
        truth.membership[2 * pair + 1] = ~truth.membership[2 * pair]
    return truth


def privacy_meter(
    path: Path,
    truth: Truth,
    signals: np.ndarray | None = None,
    *,
    population: np.ndarray | None = None,
    algorithm: str = "rmia",
) -> Path:
    """`log_dir` after run_mia.py."""
    (path / "models").mkdir(parents=True)
    (path / "signals").mkdir()
    (path / "report" / "exp").mkdir(parents=True)
    np.save(path / "models" / "memberships.npy", truth.membership)
    told = {
        str(model): {
            "num_train": int(truth.membership[model].sum()),
            "optimizer": "SGD",
            "epochs": 100,
            "train_acc": 0.99,
            "test_acc": 0.7,
            "train_loss": float("nan"),
        }
        for model in range(truth.models)
    }
    (path / "models" / "models_metadata.json").write_text(json.dumps(told, indent=4))
    for model in range(truth.models):
        trap(path / "models" / f"model_{model}.pkl")
    np.savez(path / "report" / "exp" / "attack_result_0.npz", auc=0.5)
    signals = confidences(truth) if signals is None else signals
    np.save(path / "signals" / f"{algorithm}_signals.npy", signals)
    if population is not None:
        np.save(path / "signals" / f"{algorithm}_signals_pop.npy", population)
    return path


def leakpro(path: Path, truth: Truth, orders: dict[int | str, np.ndarray] | np.ndarray) -> Path:
    """`output_dir` after an audit. The last model of the truth is the target, the others are shadow models.

    orders: which example of the truth each row is, for all files, or by number and `target`.
    """
    cache = path / "attack_cache"
    cache.mkdir(parents=True)
    for number in [*reversed(range(truth.models - 1)), "target"]:
        order = orders[number] if isinstance(orders, dict) else orders
        model = truth.models - 1 if number == "target" else number
        name = f"target_{HASH}" if number == "target" else f"sm_{number}_{HASH[::-1]}"
        np.save(cache / f"{name}_logits.npy", truth.logits[model, order, 0])
        np.save(cache / f"{name}_indices.npy", order)
        if number != "target":
            trap(path / "attack_objects" / "shadow_model" / f"metadata_{number}.pkl")
            trap(path / "attack_objects" / "shadow_model" / f"shadow_model_{number}.pkl")
    (path / "results").mkdir()
    return path


def audited(models: int = 5, examples: int = 40, seed: int = 3) -> tuple[Truth, np.ndarray]:
    """An experiment for LeakPro, and its rows: what the target was trained on, then the others, shuffled."""
    truth = foreign.experiment(models=models, examples=examples, augmentations=1)
    random = np.random.default_rng(seed)
    members = np.flatnonzero(truth.membership[-1])
    others = np.flatnonzero(~truth.membership[-1])
    return truth, np.concatenate([random.permutation(members), random.permutation(others)])

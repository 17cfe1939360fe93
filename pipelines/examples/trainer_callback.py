"""A callback for Hugging Face's `Trainer` that stores a model's outputs when its training ends.

Copy `StoreOutputs` (classifiers: logits) or `StoreTokenLogprob` (causal language models: the mean log
probability of a text's tokens) into your project. What a training script gains is shown by `main`, which
trains vision transformers of 18,000 parameters on scikit-learn's digits: the lines that end in `# lirastore`.

    pip install transformers accelerate scikit-learn
    python trainer_callback.py --store digits.lira
    lirastore attack digits.lira lira_online_shrunk loss

A model is not committed if its training ends with an exception, or a loss or an output is not finite. (By
default `Trainer` keeps such losses out of its log, `logging_nan_inf_filter`; the outputs tell all the same.)
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.utils.data import Subset
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    default_data_collator,
    set_seed,
)

import lirastore  # lirastore
from lirastore.errors import TrainingDiverged

Batch = dict[str, torch.Tensor]


class StoreOutputs(TrainerCallback):
    """Streams a classifier's logits of all `examples` into the store and commits the model.

    store: with one augmentation. model: its number in the store. examples: the whole data set, of which the
    model is trained on those in `store.keep_mask(model)`. collate: makes a batch of a list of examples.

    The model is used in eval mode and in the precision of its weights, by the main process; a model that is
    cut in pieces over several (FSDP, DeepSpeed ZeRO-3) has to be put together first.
    """

    def __init__(
        self,
        store: lirastore.Store,
        model: int,
        examples: Sequence[Any],
        collate: Callable[[list[Any]], Mapping[str, torch.Tensor]] = default_data_collator,
        batch_size: int = 64,
    ) -> None:
        self.store, self.id, self.examples = store, model, examples
        self.collate, self.batch_size = collate, batch_size

    def outputs(self, model: PreTrainedModel, batch: Batch) -> Batch:
        """What `writer.write` is to have of a batch: (n, C) logits."""
        return {"logits": model(**batch).logits}

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        """Raises TrainingDiverged, NonFiniteLogits, AlreadyCommitted; nothing is committed then."""
        if not state.is_world_process_zero:
            return
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        if not all(map(math.isfinite, losses)):
            raise TrainingDiverged(f"model {self.id}: the training losses {losses} are not finite")
        record = {
            "seed": args.seed,
            "epochs": state.epoch,
            "loss_curve": losses,
            # the gradient's norm, say, is infinite now and then in float16; JSON takes null for that
            "log_history": json.loads(json.dumps(state.log_history), parse_constant=lambda _: None),
        }
        with self.store.writer(self.id, metadata=record) as writer:
            self.write(model.eval(), writer)

    @torch.inference_mode()
    def write(self, model: PreTrainedModel, writer: lirastore.ModelWriter) -> None:
        """Streams the outputs; the accuracies of a classifier on members and on the rest become metadata."""
        right = []
        for start in range(0, len(self.examples), self.batch_size):
            ids = range(start, min(start + self.batch_size, len(self.examples)))
            batch = self.collate([self.examples[i] for i in ids])
            batch = {name: value.to(model.device) for name, value in batch.items()}
            found = self.outputs(model, batch)
            writer.write(**found, examples=ids)
            if "logits" in found:
                right.append((found["logits"].argmax(dim=1) == batch["labels"]).cpu())
        if right:
            seen = torch.from_numpy(self.store.keep_mask(self.id))
            for name, part in {"train_accuracy": seen, "test_accuracy": ~seen}.items():
                writer.metadata[name] = torch.cat(right)[part].float().mean().item() if part.any() else None


class StoreTokenLogprob(StoreOutputs):
    """The same for a causal language model: the mean log probability of an example's tokens.

    The store is made with `classes=None` and `signals=["token_logprob"]`. Tokens whose label is -100 do not
    count, nor does the first, which nothing predicts. An example of no other tokens is refused as not finite.
    """

    def outputs(self, model: PreTrainedModel, batch: Batch) -> Batch:
        """(n,) token_logprob t, and φ = t − log(1 − e^t)."""
        targets = batch["labels"][:, 1:]
        logits = model(**batch).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits.mT, targets, ignore_index=-100, reduction="none")
        logprob = -losses.sum(dim=1) / (targets != -100).sum(dim=1)
        certain = logprob.clamp(max=-1e-7)
        return {"token_logprob": logprob, "scaled_logit": certain - torch.log(-torch.expm1(certain))}


def load_data() -> list[dict[str, Any]]:
    """1,797 digits: (1, 8, 8) pixels from -1 to 1, and the class."""
    digits = load_digits()
    images = torch.tensor(digits.images / 8 - 1, dtype=torch.float32)[:, None]
    return [{"pixel_values": x, "labels": int(y)} for x, y in zip(images, digits.target, strict=True)]


def new_model() -> PreTrainedModel:
    """A vision transformer of two layers, with random weights."""
    shape = {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": 10}
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return ViTForImageClassification(ViTConfig(**shape, **size))


def training_arguments(seed: int, epochs: int) -> TrainingArguments:
    """One line of the log for each epoch; nothing is saved."""
    return TrainingArguments(
        output_dir=tempfile.gettempdir(),
        num_train_epochs=epochs,
        per_device_train_batch_size=64,
        learning_rate=3e-3,
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        seed=seed,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--store", default="digits.lira")  # lirastore
    args = parser.parse_args()

    data = load_data()
    runs = range(args.runs)
    examples, labels = data, [example["labels"] for example in data]  # lirastore
    plan = {"labels": labels, "classes": 10, "models": args.runs, "augmentations": 1}  # lirastore
    try:  # lirastore
        store = lirastore.create(args.store, **plan)  # lirastore
    except lirastore.errors.StoreExists:  # lirastore
        store = lirastore.open(args.store)  # lirastore
    runs = store.pending()  # lirastore

    for run in runs:
        set_seed(run)
        data = Subset(examples, store.keep_mask(run).nonzero()[0])  # lirastore
        trainer = Trainer(new_model(), training_arguments(run, args.epochs), train_dataset=data)
        trainer.add_callback(StoreOutputs(store, run, examples))  # lirastore
        trainer.train()


if __name__ == "__main__":
    main()

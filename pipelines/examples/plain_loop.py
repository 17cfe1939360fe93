"""An ordinary training script, and all that lirastore adds to it: the lines that end in `# lirastore`.

Without them it trains `--runs` networks on scikit-learn's digits, one per seed, and prints how good they are.
With them each network is a shadow model: it sees the half of the training set that the store drew for it, and
its logits of the whole training set are stored. Run it again after an interruption, and it trains the rest;
give n processes `--shard 0 n` to `--shard n-1 n`, and they share the work, whenever they start.

    python plain_loop.py --runs 16 --store digits.lira
    lirastore attack digits.lira lira_online_shrunk loss
    lirastore query digits.lira "select attack, auc, tpr_at_1pct from metrics"
"""

import argparse
import json
import random

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, random_split

import lirastore  # lirastore

SHIFTS = {"identity": 0, "left": -1, "right": 1}  # pixels; drawn in training, averaged over in tests


def load_data() -> list[Subset]:
    """1,400 digits to train on and 397 to test with: (8, 8) pixels from 0 to 1, and the class."""
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)
    data = TensorDataset(images, torch.tensor(digits.target))
    return random_split(data, [1400, 397], generator=torch.Generator().manual_seed(0))


def train(data: Dataset, args: argparse.Namespace) -> tuple[nn.Module, list[float]]:
    """Returns a network and its mean training loss in each epoch."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)).to(args.device)
    optimiser = torch.optim.Adam(net.parameters(), lr=args.lr)
    losses = []
    for _ in range(args.epochs):
        total = 0.0
        for images, labels in DataLoader(data, batch_size=64, shuffle=True):
            images = images.roll(random.choice(list(SHIFTS.values())), dims=-1)
            loss = nn.functional.cross_entropy(net(images.to(args.device)), labels.to(args.device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(labels)
        losses.append(total / len(data))
    return net.eval(), losses


@torch.inference_mode()
def predict(net: nn.Module, data: Dataset, device: str) -> torch.Tensor:
    """(len(data), 3, 10): the logits of each image and its shifts."""
    logits = []
    for images, _ in DataLoader(data, batch_size=256):
        views = [images.roll(shift, dims=-1).to(device) for shift in SHIFTS.values()]
        logits.append(torch.stack([net(view) for view in views], dim=1))
    return torch.cat(logits)


def accuracy(net: nn.Module, data: Dataset, device: str) -> float:
    """The share of `data` that the mean of the logits gets right."""
    labels = torch.tensor([int(label) for _, label in data])
    return (predict(net, data, device).mean(dim=1).argmax(dim=1).cpu() == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--store", default="digits.lira")  # lirastore
    parser.add_argument("--shard", type=int, nargs=2, default=(0, 1), metavar=("I", "N"))  # lirastore
    args = parser.parse_args()

    train_set, test_set = load_data()
    runs = range(args.runs)
    examples, labels = train_set, [int(label) for _, label in train_set]  # lirastore
    plan = {"labels": labels, "classes": 10, "models": args.runs, "augmentations": list(SHIFTS)}  # lirastore
    try:  # lirastore
        store = lirastore.create(args.store, **plan)  # lirastore
    except lirastore.errors.StoreExists:  # lirastore
        store = lirastore.open(args.store)  # lirastore
    runs = [run for run in store.pending() if run % args.shard[1] == args.shard[0]]  # lirastore

    for run in runs:
        torch.manual_seed(run)
        random.seed(run)
        train_set = Subset(examples, store.keep_mask(run).nonzero()[0])  # lirastore
        net, losses = train(train_set, args)
        results = {
            "seed": run,
            "loss_curve": losses,
            "train_accuracy": accuracy(net, train_set, args.device),
            "test_accuracy": accuracy(net, test_set, args.device),
        }
        print(json.dumps(results))
        with store.writer(run, metadata=results) as writer:  # lirastore
            writer.write(predict(net, examples, args.device), examples=range(len(examples)))  # lirastore


if __name__ == "__main__":
    main()

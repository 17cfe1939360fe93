"""Which of the paper's data sets a name means."""

from __future__ import annotations

import pytest

from lirastore.datasets import dataset_key


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("CIFAR-10", "cifar10"),
        ("cifar_10, fast recipe", "cifar10"),
        ("exp/CIFAR100", "cifar100"),
        ("cifar 100", "cifar100"),
        ("WikiText-103 (part)", "wikitext103"),
        ("wt103", "wikitext103"),
        ("purchase100", "purchase100"),
        ("cifar", None),
        ("cifar-1000", None),
        ("scikit-learn digits, 10% of the labels randomised", None),
        ("", None),
    ],
)
def test_the_name_tells(name: str, key: str | None) -> None:
    assert dataset_key(name) == key

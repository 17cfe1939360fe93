"""Pictures on the device against numpy: queries, crops and mirror images, Merlin's noisy copies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lirastore.errors import InputError

torch = pytest.importorskip("torch", reason="pictures are torch tensors")

from lirastore.pipelines import pictures  # noqa: E402


def naive(
    picture: npt.NDArray[Any], *, flip: bool = False, down: int = 0, right: int = 0
) -> npt.NDArray[Any]:
    """A copy, mirrored and shifted, by numpy's padding and a crop."""
    mirrored = picture[:, ::-1] if flip else picture
    padded = np.pad(mirrored, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    return padded[4 - down : 36 - down, 4 - right : 36 - right]


def noise(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_queries_are_named_and_nest() -> None:
    lists = {count: [query.name for query in pictures.queries(count)] for count in (1, 2, 18, 162)}
    assert lists[1] == ["identity"]
    assert lists[2] == ["identity", "flip"]
    assert {"shift(+4,0)", "flip+shift(+4,0)", "shift(-4,+4)", "flip+shift(0,-4)"} <= set(lists[18])
    assert "flip+shift(+1,-3)" in lists[162] and "shift(+4,-1)" not in lists[18]
    for count, names in lists.items():
        assert len(set(names)) == count
        assert names == lists[162][:count]


@pytest.mark.parametrize("count", [0, 3, 10, 161, -1])
def test_other_numbers_of_queries_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"queries = {count}: expected 1, 2"):
        pictures.queries(count)


def test_queries_show_what_they_say() -> None:
    given = noise(3)
    for query in pictures.queries(162):
        seen = pictures.view(torch.from_numpy(given), query).numpy()
        expected = [naive(one, flip=query.flip, down=query.down, right=query.right) for one in given]
        np.testing.assert_array_equal(seen, expected, err_msg=query.name)


def test_a_shift_moves_the_picture_down_and_right() -> None:
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    picture[0, 10, 20] = 255
    moved = pictures.view(torch.from_numpy(picture), pictures.Query(down=4, right=-3)).numpy()
    assert [tuple(place) for place in np.argwhere(moved[0, :, :, 0])] == [(14, 17)]


def test_random_views_are_crops_of_the_padded_picture() -> None:
    given, rng = noise(5), np.random.default_rng(1)
    examples = rng.integers(0, 5, 40)
    flip, (down, right) = rng.random(40) < 0.5, rng.integers(-4, 5, (2, 40))
    seen = pictures.views(
        torch.from_numpy(given),
        torch.from_numpy(examples),
        flip=torch.from_numpy(flip),
        down=torch.from_numpy(down),
        right=torch.from_numpy(right),
    ).numpy()
    for row, example in enumerate(examples):
        expected = naive(given[example], flip=flip[row], down=down[row], right=right[row])
        np.testing.assert_array_equal(seen[row], expected)


@pytest.mark.parametrize("channels_last", [False, True])
def test_inputs_are_pixels_from_0_to_1(channels_last: bool) -> None:
    given = noise(2)
    made = pictures.inputs(torch.from_numpy(given), channels_last=channels_last)
    np.testing.assert_allclose(made.numpy(), given.transpose(0, 3, 1, 2) / 255, rtol=1e-6)
    form = torch.channels_last if channels_last else torch.contiguous_format
    assert made.is_contiguous(memory_format=form)


def test_scaled_logits_are_exact_where_the_loss_is_rounded_to_nought() -> None:
    logits = torch.tensor([[60.0, 0.0, 1.0], [-3.0, 2.0, 2.0]])
    phi = pictures.scaled_logit(logits, torch.tensor([0, 0])).tolist()
    assert phi == pytest.approx([60 - math.log(1 + math.e), -3 - math.log(2 * math.exp(2))])


def test_merlin_is_the_share_of_noisy_copies_with_a_larger_loss() -> None:
    weight = torch.randn(3 * 32 * 32, generator=torch.Generator().manual_seed(5))
    x = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(6))

    def phi(given: torch.Tensor) -> torch.Tensor:
        return given.flatten(1) @ weight

    share = pictures.merlin(phi, x, 20, torch.Generator().manual_seed(7))
    generator, larger = torch.Generator().manual_seed(7), np.zeros(6)
    for _ in range(20):
        copies = x + 0.01 * torch.randn(x.shape, generator=generator)
        for row in range(6):  # the loss is larger where φ is smaller
            larger[row] += float(phi(copies[row : row + 1])) < float(phi(x[row : row + 1]))
    np.testing.assert_allclose(share.numpy(), larger / 20, atol=1e-6)
    assert 0 < share.mean() < 1

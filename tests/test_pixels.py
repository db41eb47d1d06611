from collections.abc import Callable
from typing import get_args

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from cvae.data.pixels import ONCE, Binarize, binarize, ink, uniform_bytes
from cvae.noise import Stream, generator

BYTES = torch.arange(256, dtype=torch.uint8)


def test_each_byte_becomes_ink_in_exactly_its_share_of_the_draws() -> None:
    draws = torch.arange(255, dtype=torch.uint8)
    pixels = binarize(BYTES[:, None], draws[None, :])
    assert pixels.dtype == torch.uint8
    assert set(pixels.unique().tolist()) == {0, 255}
    assert (pixels == 255).sum(dim=1).tolist() == list(range(256))


def test_uniform_bytes_are_even_over_0_to_254() -> None:
    draws = uniform_bytes((51, 20_000), generator(Stream.PIXELS, 5))
    counts = torch.bincount(draws.flatten().long(), minlength=256)
    assert draws.shape == (51, 20_000)
    assert draws.dtype == torch.uint8
    assert counts[255] == 0
    # A sound generator falls outside of either bound once in a million seeds; a generator that
    # leaves out one value (or folds 255 onto 0) adds 4,000 to a statistic of about 254.
    assert 1e-6 < chisquare(counts[:255].numpy()).pvalue < 1 - 1e-6


def test_uniform_bytes_depend_on_the_generator_alone() -> None:
    first, again, other = (
        uniform_bytes((3, 28, 28), generator(Stream.PIXELS, seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_ink_is_255() -> None:
    assert ink(torch.tensor([True, False])).tolist() == [255, 0]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("threshold", lambda b: 255 * (b / 255 > 0.5)),
        ("none", lambda b: b),
    ],
)
def test_the_modes_without_a_draw(mode: Binarize, expected: Callable[[int], int]) -> None:
    pixels = ONCE[mode](BYTES, generator(Stream.PIXELS, 0))
    assert pixels.dtype == torch.uint8
    assert pixels.tolist() == [expected(byte) for byte in range(256)]


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_the_modes_that_draw_once(mode: Binarize) -> None:
    images = BYTES.repeat(500, 1)

    def draw(seed: int) -> Tensor:
        return ONCE[mode](images, generator(Stream.PIXELS, seed))

    pixels = draw(0)
    assert torch.equal(pixels, draw(0))
    assert not torch.equal(pixels, draw(1))
    assert set(pixels.unique().tolist()) == {0, 255}
    assert (pixels[:, 0] == 0).all()
    assert (pixels[:, 255] == 255).all()
    probability = torch.arange(256) / 255
    error = (pixels == 255).float().mean(dim=0) - probability
    # The largest of 256 deviations passes 4.5 standard errors once in 600 seeds.
    assert (error.abs() <= 4.5 * (probability * (1 - probability) / 500).sqrt()).all()


def test_every_mode_is_described() -> None:
    assert set(ONCE) == set(get_args(Binarize))

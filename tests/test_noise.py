import hashlib
import struct
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from cvae.noise import Stream, categorical, generator, rank_slice


def draw(stream: Stream, *counters: int) -> Tensor:
    return torch.randn(16, generator=generator(stream, *counters))


def test_numbers_depend_on_stream_and_counters_alone() -> None:
    first = draw(Stream.LATENT, 3, 14)
    torch.manual_seed(99)
    draw(Stream.PIXELS, 7)
    torch.randn(5)
    assert torch.equal(draw(Stream.LATENT, 3, 14), first)


def test_numbers_stay_the_same_from_version_to_version() -> None:
    """A run could not be resumed or repeated if the seeds changed."""
    packed = struct.pack("<3q", 2, 0, 0)  # z's stream, the run's seed, the step
    seed = int.from_bytes(hashlib.blake2b(packed, digest_size=4).digest(), "little")
    assert generator(Stream.LATENT, 0, 0).initial_seed() == seed == 3762840317


def test_streams_keep_their_numbers_from_version_to_version() -> None:
    assert {stream.name: stream.value for stream in Stream} == {
        "ORDER": 0,
        "PIXELS": 1,
        "LATENT": 2,
        "PICTURES": 3,
        "FIXED_PIXELS": 4,
        "FIXED_LATENT": 5,
        "EVIDENCE": 6,
        "GENERATION": 7,
        "AGGREGATE": 8,
        "SAMPLES": 9,
        "ANSWER": 10,
        "FIXED_ANSWER": 11,
        "IMAGE_NOISE": 12,
        "REFERENCES": 13,
        "LATENTS": 14,
    }


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    draw(Stream.ORDER, 1)
    assert torch.equal(torch.rand(3), expected)


def test_other_counters_give_other_numbers() -> None:
    counters = [(), (0,), (0, 0), (1,), (0, 1), (1, 0), (1, 1), (-1, 0), (2**32, 0), (2**32, 1)]
    draws = [draw(stream, *numbers) for stream in Stream for numbers in counters]
    assert all(not torch.equal(one, other) for one, other in combinations(draws, 2))


def test_numbers_of_successive_steps_are_uncorrelated() -> None:
    steps = torch.stack(
        [torch.randn(1000, generator=generator(Stream.LATENT, 0, step)) for step in range(200)]
    )
    products = (steps[1:] * steps[:-1]).mean()
    # 5 standard errors of a mean of 199,000 products of variance 1
    assert abs(float(products)) < 5 / 199_000**0.5


@pytest.mark.parametrize("counter", [2**32, 2**40 + 5, 2**63 - 1, -1, -(2**63)])
def test_large_and_negative_counters_are_seeds_like_any_other(counter: int) -> None:
    assert draw(Stream.LATENT, counter, 0).isfinite().all()
    assert torch.equal(draw(Stream.LATENT, 0, counter), draw(Stream.LATENT, 0, counter))
    assert not torch.equal(draw(Stream.LATENT, counter), draw(Stream.LATENT, counter % 2**32))


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_slices_of_all_ranks_are_the_global_draws(world_size: int) -> None:
    draws = torch.randn(24, 2, generator=generator(Stream.LATENT, 0))
    parts = [rank_slice(draws, rank, world_size) for rank in range(world_size)]
    assert {len(part) for part in parts} == {24 // world_size}
    assert torch.equal(torch.cat(parts), draws)


def test_slices_of_an_uneven_batch_leave_nothing_out() -> None:
    draws = torch.arange(10)
    parts = [rank_slice(draws, rank, 4) for rank in range(4)]
    assert torch.equal(torch.cat(parts), draws)
    assert {len(part) for part in parts} == {2, 3}


def test_an_index_is_where_the_uniform_draw_falls() -> None:
    probabilities = torch.tensor([[0.4, 0.2, 0.0, 0.4]]).expand(6, -1)
    uniform = torch.tensor([0.0, 0.39, 0.41, 0.59, 0.61, 0.9999999])
    assert categorical(probabilities, uniform).tolist() == [0, 0, 1, 1, 3, 3]
    short = torch.tensor([[0.3, 0.3, 0.3]])  # rounding may leave a sum below one
    assert categorical(short, torch.tensor([0.95])).tolist() == [2]


def test_drawing_an_index_needs_nothing_that_is_not_deterministic_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draws = torch.Generator().manual_seed(0)
    probabilities = torch.rand(10_000, 7, generator=draws)
    probabilities /= probabilities.sum(1, keepdim=True)
    sums = probabilities.cumsum(1)
    uniform = sums[:, 3] + torch.randint(-1, 2, (10_000,), generator=draws) * 2**-24  # at the edge
    above = torch.cat([sums[:, :-1] > uniform.unsqueeze(1), torch.ones(10_000, 1).bool()], 1)

    def refused(*_: Any) -> None:
        raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation")

    monkeypatch.setattr(torch.Tensor, "cumsum", refused)
    monkeypatch.setattr(torch, "cumsum", refused)
    assert torch.equal(categorical(probabilities, uniform), above.int().argmax(1))
    combs = torch.stack([uniform, uniform.flip(0)])
    both = torch.stack([categorical(probabilities, one) for one in combs])
    assert torch.equal(categorical(probabilities, combs), both)

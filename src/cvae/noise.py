"""Random numbers as a function of counters, so that a run does not depend on where it ran.

And which index a uniform one draws, by sums that a GPU, too, makes alike each time.
"""

import hashlib
import struct
from enum import IntEnum
from itertools import accumulate

import torch
from torch import Tensor


class Stream(IntEnum):
    """What a draw is for; two streams of the same step have generators of their own."""

    ORDER = 0
    PIXELS = 1
    LATENT = 2
    PICTURES = 3
    FIXED_PIXELS = 4  # of validation, test and static binarisation: the same in every run
    FIXED_LATENT = 5
    EVIDENCE = 6
    GENERATION = 7
    AGGREGATE = 8
    SAMPLES = 9
    ANSWER = 10  # of one of several annotators
    FIXED_ANSWER = 11
    IMAGE_NOISE = 12
    REFERENCES = 13
    LATENTS = 14


def generator(
    stream: Stream, *counters: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator whose numbers depend on the stream and the counters alone.

    Seeding by (seed, step) makes a run repeatable from any step on, without a saved state. The
    counters are hashed because the CPU's Mersenne Twister keeps only 32 bits of its seed. So of n
    generators about n²/2³³ pairs are alike: of a million steps, a hundred pairs share their ε.

    Args:
        stream: what the numbers are for.
        counters: for example the run's seed and the training step.
        device: where the numbers are drawn; CPU and GPU give different ones.
    """
    packed = struct.pack(f"<{len(counters) + 1}q", stream, *counters)
    seed = int.from_bytes(hashlib.blake2b(packed, digest_size=4).digest(), "little")
    return torch.Generator(device).manual_seed(seed)


def rank_slice(draws: Tensor, rank: int, world_size: int) -> Tensor:
    """This rank's part of draws that were made for the global batch: (B, …) to (B / world, …)."""
    return draws.tensor_split(world_size)[rank]


def categorical(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Indices drawn as often as probabilities of (B, A) say, (…, B).

    The first whose cumulative probability is above u.

    Args:
        probabilities: adding up to 1, (B, A).
        uniform: u, from 0 to below 1, (…, B).
    """
    sums = running_sum(probabilities).float()
    above = sums > uniform.unsqueeze(-1)
    above[..., -1] = True  # rounding may leave the sum below one
    return above.int().argmax(-1)


def running_sum(numbers: Tensor) -> Tensor:
    """What `cumsum` makes of the last dimension on the CPU, of few numbers one after the other.

    On a GPU `cumsum` is not deterministic, and an error where the trainer is to be. Added up in
    float64 and rounded once.
    """
    return torch.stack([*accumulate(numbers.double().unbind(-1))], -1).to(numbers.dtype)

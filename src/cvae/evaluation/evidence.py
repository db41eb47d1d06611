"""−log p(y|x) by sampling: which z are drawn and weighed, and how many at once."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from cvae.errors import UserError
from cvae.evaluation.nll import Evidence
from cvae.evaluation.parallel import in_parallel
from cvae.memory import at_once
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator

REPEATS = 10  # disjoint parts of the K samples
ROWS = 2500  # z that are decoded at once: what bounds the memory, and a size that caches like

Weigh = Callable[[ConditionalVAE, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def from_posterior(
    model: ConditionalVAE, x: Tensor, y: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """log p(y|x,z) and log w = log p(y|x,z) p(z|x) / q(z|x,y) for z from q(z|x,y), (K, B) each.

    Source: Burda et al. 2016, eq. 8; Sohn et al. 2015, eq. 7.
    """
    elbo = model.elbo(x, y, noise)
    return elbo.log_likelihood, elbo.log_weights


def from_prior(model: ConditionalVAE, x: Tensor, y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """log p(y|x,z) for z from p(z|x), twice, (K, B): its mean of weights is the estimate.

    Source: the "Monte Carlo" estimate of Sohn et al. 2015, eq. 6.
    """
    log_likelihood = model.sample(x, noise).log_prob(y)
    return log_likelihood, log_likelihood


def estimate(
    weigh: Weigh,
    model: ConditionalVAE,
    x: Tensor,
    y: Tensor,
    num_samples: int,
    seed: int = 0,
    advance: Callable[[int], object] = lambda rows: None,
) -> Evidence:
    """Estimate −log p(y|x) for each example with K samples of z.

    Memory is bounded by ROWS decoded z at once on each thread, fewer for large images. The same
    seed gives the same number on the same kind of device, however many threads there are.

    Args:
        weigh: `from_posterior` or `from_prior`.
        model: the composition, on the device of x and y.
        x: the condition, (N, …).
        y: what is modelled, (N, …).
        num_samples: K, a multiple of REPEATS.
        seed: of the noise.
        advance: told of the number of z that have been decoded since the last call.

    Raises:
        UserError: K cannot be divided among the repeats.
    """
    check_num_samples(num_samples)
    _, size = shape_of_chunk(num_samples, y[0].numel())

    # one place for all: thousands of small results, each allocated where a chunk has just been
    # freed, would break up the space that the next chunk needs
    with torch.inference_mode(False):  # so that other threads may fill it
        numbers = torch.empty(2 * REPEATS + 1, len(x), dtype=torch.float64, device=x.device)
    log_means, log_squares, (reconstruction,) = numbers.split([REPEATS, REPEATS, 1])

    def part(start: int) -> int:
        some = slice(start, start + size)
        draws = generator(Stream.EVIDENCE, seed, start, device=x.device)
        log_means[:, some], log_squares[:, some], reconstruction[some] = _weigh_part(
            weigh, model, x[some], y[some], num_samples, draws
        )
        return len(x[some])

    for count in in_parallel(part, range(0, len(x), size), x.device):
        advance(count * num_samples)
    return Evidence(log_means, log_squares, reconstruction, num_samples)


@torch.inference_mode()
def _weigh_part(
    weigh: Weigh, model: ConditionalVAE, x: Tensor, y: Tensor, num_samples: int, draws: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """`log_means`, `log_squares` and `reconstruction` of an `Evidence`, for some examples."""
    most, _ = shape_of_chunk(num_samples, y[0].numel())
    samples = []
    for done in range(0, num_samples, most):
        shape = min(most, num_samples - done), len(x), model.latent_dim
        noise = torch.randn(shape, device=x.device, generator=draws)
        samples.append(torch.stack(weigh(model, x, y, noise)))
    log_likelihood, log_weights = torch.cat(samples, 1).double()
    repeats = log_weights.unflatten(0, (REPEATS, -1))
    log_means = repeats.logsumexp(1) - math.log(repeats.shape[1])
    return log_means, (2 * repeats).logsumexp(1), log_likelihood.mean(0)


def check_num_samples(num_samples: int) -> None:
    """Refuse a K that cannot be divided among the repeats.

    Raises:
        UserError: it cannot.
    """
    if num_samples < REPEATS or num_samples % REPEATS:
        raise UserError(f"--num-samples {num_samples}: give {REPEATS} or a multiple of it")


def shape_of_chunk(num_samples: int, pixels: int) -> tuple[int, int]:
    """How many samples z of how many examples are decoded at once.

    As many samples of an example as can be: what the decoder makes of x alone serves all of them.
    """
    rows = at_once(ROWS, pixels)
    return min(num_samples, rows), max(1, rows // num_samples)

"""What a model is worth in nats: the ELBO's terms, −log p(y|x), and how fast that was sampled."""

from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from cvae.evaluation.evidence import Weigh, estimate, from_posterior, from_prior, shape_of_chunk
from cvae.evaluation.nll import Evidence
from cvae.evaluation.products import Products, now
from cvae.metrics import mean_and_error
from cvae.model import ConditionalVAE


def bounds(
    model: ConditionalVAE, x: Tensor, y: Tensor, kl: Tensor, num_samples: int, seed: int
) -> dict[str, Any]:
    """The ELBO's terms and −log p(y|x), with z from the posterior and with z from the prior.

    Args:
        model: the composition, on the device of x and y.
        x: the condition, (N, …).
        y: what is modelled, (N, …).
        kl: KL(q(z|x,y) ‖ p(z|x)), (N,), nats.
        num_samples: K.
        seed: of the noise.

    Raises:
        UserError: K cannot be divided.
    """
    importance, speed = _timed(model, x, y, num_samples, seed)
    prior = _estimated("prior", from_prior, model, x, y, num_samples, seed)
    reconstruction, kl = importance.reconstruction.cpu(), kl.double()
    return {
        "elbo": mean_and_error(reconstruction - kl),
        "reconstruction": mean_and_error(reconstruction),
        "kl": mean_and_error(kl),
        "reconstruction_from_prior": mean_and_error(prior.reconstruction),
        "nll": {"importance": importance.numbers(), "prior": prior.numbers()},
        "speed": speed,
    }


def _timed(
    model: ConditionalVAE, x: Tensor, y: Tensor, num_samples: int, seed: int
) -> tuple[Evidence, dict[str, float]]:
    """The estimate with z from the posterior, and its speed beside that of its products alone."""
    flops, before = _products(model, x, y, num_samples)
    started = now(x.device)
    importance = _estimated("importance", from_posterior, model, x, y, num_samples, seed)
    seconds = now(x.device) - started
    _, after = _products(model, x, y, num_samples)
    # what a rate that changes can do in a time is its mean over the time: near to that of its ends
    alone = (before + after) / 2
    reached = flops * len(y) * num_samples / seconds
    return importance, {
        "seconds": seconds,
        "gflops": reached / 1e9,
        "gflops_of_products": alone / 1e9,
        "share": reached / alone,
    }


def _estimated(
    name: str,
    weigh: Weigh,
    model: ConditionalVAE,
    x: Tensor,
    y: Tensor,
    num_samples: int,
    seed: int,
) -> Evidence:
    """An estimate, with a bar of its progress."""
    with tqdm(total=len(y) * num_samples, desc=name, unit="z", unit_scale=True) as bar:
        return estimate(weigh, model, x, y, num_samples, seed, bar.update)


def _products(model: ConditionalVAE, x: Tensor, y: Tensor, num_samples: int) -> tuple[float, float]:
    """The products' operations for each z, and their rate with as many z as are decoded at once.

    What the products hold, a whole chunk's activations, is freed before anything else is sampled.
    """
    samples, most = shape_of_chunk(num_samples, y[0].numel())
    examples = min(most, len(x))
    noise = torch.randn(samples, examples, model.latent_dim, device=x.device)
    products = Products(lambda: from_posterior(model, x[:examples], y[:examples], noise))
    return products.flops / (samples * examples), products.rate(x.device)

"""What a model is worth in nats: the ELBO's terms, −log p(y|x), and how fast that was sampled."""

from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from cvae.evaluation.evidence import estimate, from_posterior, from_prior, shape_of_chunk
from cvae.evaluation.products import Products, now
from cvae.metrics import mean_and_error
from cvae.model import ConditionalVAE

ESTIMATES = {"importance": from_posterior, "prior": from_prior}


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
    flops, alone = _products(model, x, y, num_samples)
    found, seconds = {}, {}
    for name, weigh in ESTIMATES.items():
        started = now(x.device)
        with tqdm(total=len(y) * num_samples, desc=name, unit="z", unit_scale=True) as bar:
            found[name] = estimate(weigh, model, x, y, num_samples, seed, bar.update)
        seconds[name] = now(x.device) - started
    reconstruction, kl = found["importance"].reconstruction.cpu(), kl.double()
    reached = flops * len(y) * num_samples / seconds["importance"]
    return {
        "elbo": mean_and_error(reconstruction - kl),
        "reconstruction": mean_and_error(reconstruction),
        "kl": mean_and_error(kl),
        "reconstruction_from_prior": mean_and_error(found["prior"].reconstruction),
        "nll": {name: estimated.numbers() for name, estimated in found.items()},
        "speed": {
            "seconds": seconds["importance"],
            "gflops": reached / 1e9,
            "gflops_of_products": alone / 1e9,
            "share": reached / alone,
        },
    }


def _products(model: ConditionalVAE, x: Tensor, y: Tensor, num_samples: int) -> tuple[float, float]:
    """The products' operations for each z, and how many of them a second they do alone."""
    samples, most = shape_of_chunk(num_samples, y[0].numel())
    examples = min(most, len(x))
    noise = torch.randn(samples, examples, model.latent_dim, device=x.device)
    products = Products(lambda: from_posterior(model, x[:examples], y[:examples], noise))
    return products.flops / (samples * examples), products.rate(x.device)

"""Mixed precision: the networks' products are rounded, the densities are not."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from cvae.data.base import InMemory
from cvae.model import ConditionalVAE, Elbo
from cvae.noise import Stream, generator
from cvae.run import Run

SMALL = ("network.hidden=[128]", "trainer.limit_train_batches=200")
# A product is rounded by half a unit in its last place, an output sums the errors of a few layers,
# and over 784 pixels these largely cancel: so many units of the last place bound an image, and a
# tenth of them the mean. A square's 64 pixels are mostly certain, where log p is −exp(−|logit|) and
# its relative error the absolute one of the logit: eight units, as that is its size.
CASES = {
    "bernoulli": (SMALL, 10),
    "gaussian": ((*SMALL, "likelihood=gaussian"), 10),  # its scale is learned
    "continuous_bernoulli": ((*SMALL, "likelihood=continuous_bernoulli"), 10),
    "conv": (("network=conv", "network.channels=[8,16]", "trainer.limit_train_batches=50"), 10),
    "unet": (("trainer.max_epochs=20",), 20),
}


class Trained(NamedTuple):
    """A trained model, what it is given, and how many units of the last place it may be off."""

    model: ConditionalVAE
    x: Tensor
    y: Tensor
    noise: Tensor
    units: float

    @torch.no_grad()
    def elbo(self, dtype: torch.dtype) -> Elbo:
        """With the networks under autocast."""
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            return self.model.elbo(self.x, self.y, self.noise)

    @torch.no_grad()
    def size(self, exact: Elbo) -> Tensor:
        """What an image's ELBO is a sum of, without the signs: Σ|log p(y_i|x,z)| + kl, (B,)."""
        pixels = self.model.decoder(self.x, exact.z).base_dist.log_prob(self.y)
        return pixels.abs().flatten(1).sum(1) + exact.kl


@pytest.fixture(scope="module", params=CASES)
def trained(
    request: pytest.FixtureRequest, reference: Callable[..., Path], of_squares: tuple[str, ...]
) -> Trained:
    words, units = CASES[request.param]
    data_words = of_squares if request.param == "unet" else ()
    run = Run(reference(*data_words, *words))
    data = run.part(InMemory, "data")
    data.setup()
    test, model = data.examples("test"), run.load_model()
    x, y = test.x[:500], test.y[:500]
    draws = generator(Stream.FIXED_LATENT, 1)
    noise = torch.randn(len(y), model.latent_dim, generator=draws)
    return Trained(model, x, y, noise, units)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_the_elbo_is_near_that_of_float32(trained: Trained, dtype: torch.dtype) -> None:
    exact, mixed = trained.elbo(torch.float32), trained.elbo(dtype)
    assert mixed.posterior.mean.dtype == mixed.log_likelihood.dtype == torch.float32
    assert not torch.equal(mixed.elbo, exact.elbo)  # it was mixed indeed
    unit, size = torch.finfo(dtype).eps, trained.size(exact)
    assert ((mixed.elbo - exact.elbo).abs() / size).max() < trained.units * unit
    assert (mixed.elbo - exact.elbo).mean().abs() / size.mean() < trained.units / 10 * unit
    for term in ("reconstruction", "kl"):
        first, second = getattr(mixed, term).mean(), getattr(exact, term).mean()
        assert abs(first / second - 1) < 10 * unit, term

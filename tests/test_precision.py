"""Mixed precision: the networks' products are rounded, the densities are not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cvae.data.pixels import ONCE
from cvae.data.source import MNIST
from cvae.data.views import Label
from cvae.model import Elbo
from cvae.noise import Stream, generator
from cvae.run import Run


@pytest.fixture(scope="module")
def evaluate(reference: Callable[..., Path]) -> Callable[[torch.dtype], Elbo]:
    """The ELBO of 1,000 test images in a trained run, its networks under autocast."""
    model = Run(reference("trainer.limit_train_batches=400", "network.hidden=[128]")).load_model()
    arrays = MNIST().load(None)
    pixels = ONCE["dynamic"](arrays.test_images[:1000], generator(Stream.FIXED_PIXELS, 1))
    x, y = Label()(pixels, arrays.test_labels[:1000])
    noise = torch.randn(1000, model.latent_dim, generator=generator(Stream.FIXED_LATENT, 1))

    def elbo(dtype: torch.dtype) -> Elbo:
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            return model.elbo(x, y, noise)

    return elbo


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_the_elbo_is_near_that_of_float32(
    evaluate: Callable[[torch.dtype], Elbo], dtype: torch.dtype
) -> None:
    exact, mixed = evaluate(torch.float32), evaluate(dtype)
    assert mixed.posterior.mean.dtype == mixed.log_likelihood.dtype == torch.float32
    assert not torch.equal(mixed.elbo, exact.elbo)  # it was mixed indeed
    # A product is rounded by half a unit in its last place; a logit sums the errors of a few
    # layers, which largely cancel over 784 pixels: ten units of the last place bound an image.
    assert (mixed.elbo / exact.elbo - 1).abs().max() < 10 * torch.finfo(dtype).eps
    assert (mixed.elbo.mean() / exact.elbo.mean() - 1).abs() < torch.finfo(dtype).eps
    for term in ("reconstruction", "kl"):
        first, second = getattr(mixed, term).mean(), getattr(exact, term).mean()
        assert abs(first / second - 1) < 10 * torch.finfo(dtype).eps, term

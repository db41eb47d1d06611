import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Laplace, Normal, kl_divergence
from torch.profiler import ProfilerActivity, profile

from cvae.errors import UserError
from cvae.evaluation.latents import DRAWN, _log_mixture, latents
from cvae.model import ConditionalVAE
from gaussian_latents import gaussian_latents


def _same(mean: Tensor, scale: Tensor, examples: int = 50) -> tuple[Tensor, Tensor]:
    return mean.expand(examples, -1), scale.expand(examples, -1)


def test_a_learned_prior_that_agrees_with_the_posterior_leaves_no_kl_between_mixtures() -> None:
    draws = torch.Generator().manual_seed(0)
    means = 5 * torch.randn(200, 4, generator=draws)
    scales = torch.rand(200, 4, generator=draws) + 0.1
    shuffled = torch.randperm(200, generator=draws)  # a mixture does not care which is whose
    found, _ = gaussian_latents(means, scales, means[shuffled], scales[shuffled]).aggregate_kl()
    assert found == pytest.approx(0, abs=1e-9)  # float64, the same densities


@pytest.mark.parametrize("examples", [1, 2, 391, 393, 2000])  # the last two in several parts
def test_a_mixture_in_parts_is_the_mixture(examples: int) -> None:
    draws = torch.Generator().manual_seed(0)
    means, scales = torch.randn(2, examples, generator=draws)
    scales = 0.01 + scales.square()
    z = 20 * torch.randn(DRAWN, generator=draws)  # some with densities below the least of float64
    apart = Normal(means.double(), scales.double()).log_prob(z.double().unsqueeze(1))
    wanted = apart.logsumexp(1) - math.log(examples)
    found = _log_mixture(z, means, scales, torch.zeros(examples))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_the_memory_of_a_mixture_does_not_grow_with_its_components() -> None:
    most = []
    for examples in (5_000, 20_000):
        means = torch.linspace(-1, 1, examples)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as kept:
            _log_mixture(torch.zeros(DRAWN), means, torch.ones(examples), 0 * means)
        allocated = (event.cpu_memory_usage for event in kept.events())
        most.append(max(allocated))
    assert most[0] == most[1] < 8 * DRAWN * 1000  # bytes


def test_components_that_are_the_same_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[int] = []
    split = torch.Tensor.split
    monkeypatch.setattr(Tensor, "split", lambda t, size: parts.append(len(t)) or split(t, size))
    z = torch.linspace(-3, 3, DRAWN)
    found = _log_mixture(z, torch.full((50,), 0.5), torch.full((50,), 2.0), torch.zeros(50))
    torch.testing.assert_close(found, Normal(0.5, 2.0).log_prob(z).double())
    assert set(parts) == {1}


def test_many_narrow_posteriors_that_fill_the_prior_leave_no_kl() -> None:
    draws = torch.Generator().manual_seed(0)
    scales = torch.full((10_000, 15), 0.3)
    means = (1 - 0.3**2) ** 0.5 * torch.randn(10_000, 15, generator=draws)  # together N(0, I)
    use = gaussian_latents(means, scales, torch.zeros_like(means), torch.ones_like(means))
    assert use.kl_per_dimension.sum(1).mean() > 11  # mixtures in all dimensions would leave 2
    found, error = use.aggregate_kl()
    # in each dimension the N means that chance gave leave half of a χ², (√(2π / (1 − v)) / (2s√π)
    # − 1) / 2N for v = 1 − s² / 2: that is 0.008 in all
    assert found == pytest.approx(0.008, abs=4 * error)
    assert error < 0.005  # so that this says something


def test_the_kl_is_of_each_example_and_dimension_and_can_be_taken_of_some() -> None:
    draws = torch.Generator().manual_seed(0)
    numbers = [torch.rand(7, 3, generator=draws) + 0.1 for _ in range(4)]
    use = gaussian_latents(*numbers)
    exact = kl_divergence(Normal(numbers[0], numbers[1]), Normal(numbers[2], numbers[3]))
    torch.testing.assert_close(use.kl_per_dimension, exact)
    mask = torch.tensor([True, False] * 3 + [True])
    torch.testing.assert_close(use.of(mask).kl_per_dimension, exact[mask])


def test_numbers_of_a_class_have_its_name() -> None:
    draws = torch.Generator().manual_seed(0)
    use = gaussian_latents(*(torch.rand(7, 3, generator=draws) + 0.1 for _ in range(4)))
    labels = torch.tensor([2, 0, 2, 2, 0, 0, 2])
    found = use.numbers(labels, ["thin", "nobody's", "thick"], seed=0)
    kl = use.kl_per_dimension.sum(1)
    wanted = {"thin": kl[labels == 0].mean().item(), "thick": kl[labels == 2].mean().item()}
    assert found["kl_per_class"] == pytest.approx(wanted)
    mean, error = use.of(labels == 0).aggregate_kl(0)
    assert found["aggregate_kl_per_class"].keys() == wanted.keys()
    assert found["aggregate_kl_per_class"]["thin"] == {"mean": mean, "monte_carlo_error": error}


class _Shift(nn.Module):
    """N(sum of what it is given, 2), whatever that is."""

    def forward(self, *given: Tensor) -> Distribution:
        mean = torch.stack(given).sum(0)
        return Independent(Normal(mean, torch.full_like(mean, 2.0)), 1)


def test_posterior_and_prior_are_read_for_every_example_in_order() -> None:
    x = torch.arange(1203.0).unsqueeze(1)  # more than two batches, the last not full
    y = 10 * x
    found = latents(ConditionalVAE(_Shift(), _Shift(), nn.Identity(), 1), x, y)
    torch.testing.assert_close(found.posterior_mean, x + y)
    torch.testing.assert_close(found.heaviest, x)
    assert (found.prior_scale == 2).all()
    assert (found.posterior_scale == 2).all()


class _Pointed(nn.Module):
    """A Laplace density, which has a mean and a standard deviation too."""

    def forward(self, *given: Tensor) -> Distribution:
        return Independent(Laplace(given[0], torch.ones_like(given[0])), 1)


@pytest.mark.parametrize("pair", [(_Shift(), _Pointed()), (_Pointed(), _Shift())], ids=["p", "q"])
def test_no_density_is_taken_for_the_gaussian_of_its_mean_and_scale(
    pair: tuple[nn.Module, nn.Module],
) -> None:
    x = torch.zeros(5, 1)
    with pytest.raises(UserError, match="Independent\\(Laplace\\) is no density of z"):
        latents(ConditionalVAE(*pair, nn.Identity(), 1), x, x)

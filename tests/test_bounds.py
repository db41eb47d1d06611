"""What docs/theory.md says of bounds, priors and latents, where no other test holds it."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from cvae.densities import BernoulliHead, StandardNormal
from cvae.evaluation.evidence import from_posterior, from_prior
from cvae.evaluation.latents import Latents
from cvae.model import ConditionalVAE
from cvae.models import PriorFactory, conditional_vae, fixed_prior, learned_prior
from cvae.networks import MLP
from cvae.objectives import Iwae
from gaussian_latents import gaussian_latents

SIGMA = 0.5
SCALE = math.sqrt(SIGMA**2 / (1 + SIGMA**2))  # of the posterior for p(z) = N(0, 1)
X, Y, D, B = 3, 6, 2, 4


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def normal(mean: Tensor, scale: float) -> Distribution:
    return Independent(Normal(mean, torch.full_like(mean, scale)), 1)


class Line(nn.Module):
    """As a decoder N(z, σ²); as an encoder the exact posterior N(y / (1 + σ²), s²), or near it."""

    def __init__(self, slope: float, scale: float, shift: float = 0.0) -> None:
        super().__init__()
        self.slope, self.scale, self.shift = slope, scale, shift

    def forward(self, x: Tensor, given: Tensor) -> Distribution:
        return normal(self.slope * given + self.shift, self.scale)


def line(shift: float = 0.0, stretch: float = 1.0) -> ConditionalVAE:
    encoder = Line(1 / (1 + SIGMA**2), stretch * SCALE, shift)
    return ConditionalVAE(encoder, StandardNormal(1), Line(1.0, SIGMA), 1)


def examples(n: int, y: float | None = None) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(n, 1, dtype=torch.float64)
    return torch.zeros(n, 1), drawn if y is None else torch.full_like(drawn, y)


def network_model(prior: PriorFactory) -> ConditionalVAE:
    torch.manual_seed(0)
    return conditional_vae((X,), (Y,), MLP([16], "tanh"), prior, BernoulliHead(), D)


def test_more_samples_never_lower_the_bound_on_average() -> None:
    """Over which of K samples is left out, for any draws: Jensen's inequality for the log."""
    x, y = examples(50)
    noise, model = torch.randn(8, 50, 1, dtype=torch.float64), line(shift=0.3, stretch=1.5)

    def bound(draws: Tensor) -> Tensor:
        return Iwae(len(draws))(model, x, y, draws, epoch=0).own["iwae"]

    for k in range(2, 9):
        without = [torch.cat([noise[:i], noise[i + 1 : k]]) for i in range(k)]
        assert (bound(noise[:k]) > torch.stack([bound(part) for part in without]).mean(0)).all()


def test_one_sample_gives_the_elbo_on_average() -> None:
    x, y = examples(20_000, y=1.2)
    noise = torch.randn(1, 20_000, 1, dtype=torch.float64)
    terms = Iwae(1)(line(shift=0.3, stretch=1.5), x, y, noise, epoch=0)
    off = terms.own["iwae"] - terms.elbo.elbo
    # they differ by what is drawn and what is in closed form of the KL; 5 standard errors
    assert off.std() > 0.1
    assert off.mean().abs() < 5 * off.std() / math.sqrt(20_000)


@torch.no_grad()
def test_a_learned_prior_can_be_the_fixed_one() -> None:
    """A network that puts out zeros is N(0, I), so the best learned prior is no worse."""
    learned, fixed = network_model(learned_prior), network_model(fixed_prior)
    learned.encoder, learned.decoder = fixed.encoder, fixed.decoder
    x, y, noise = torch.randn(B, X), torch.rand(B, Y).round(), torch.randn(5, B, D)
    assert (learned.elbo(x, y, noise).kl != fixed.elbo(x, y, noise).kl).all()
    last = learned.prior.network.rest[-1]
    last.weight.zero_()
    last.bias.zero_()
    for of in ("elbo", "kl_per_dimension", "log_weights"):
        first, second = (getattr(model.elbo(x, y, noise), of) for model in (learned, fixed))
        torch.testing.assert_close(first, second)
    torch.testing.assert_close(learned.sample(x, noise).mean, fixed.sample(x, noise).mean)


def test_weights_from_the_prior_vary_by_what_the_posterior_is_narrower() -> None:
    """Var[w] / p(y|x)² = ∫ p(z|x,y)² / p(z|x) dz − 1, and e^KL − 1 is below it."""
    (x, y), samples = examples(1, y=1.0), 400_000
    noise = torch.randn(samples, 1, 1, dtype=torch.float64)
    mean = 1 / (1 + SIGMA**2)
    truth = Normal(0.0, math.sqrt(1 + SIGMA**2)).log_prob(torch.tensor(1.0)).double()
    shares = (from_prior(line(), x, y, noise)[1] - truth).exp()
    # the Gaussian integral by completing the square
    known = math.exp(mean**2 / (2 - SCALE**2)) / (SCALE * math.sqrt(2 - SCALE**2)) - 1
    # the weights are below 3 times the evidence, so their variance is known to a few in a thousand
    assert float(shares.var()) == pytest.approx(known, rel=0.01)
    kl = -math.log(SCALE) + (SCALE**2 + mean**2 - 1) / 2
    assert math.exp(kl) - 1 < known
    # from the exact posterior they do not vary
    exact = from_posterior(line(), x, y, noise[:100])[1]
    torch.testing.assert_close(exact, truth.expand(100, 1), rtol=0, atol=1e-6)


def use(fixed: bool) -> Latents:
    """Three examples of one latent dimension."""
    return gaussian_latents(
        posterior_mean=torch.tensor([[-1.0], [0.0], [2.0]]),
        posterior_scale=torch.tensor([[0.3], [0.5], [0.8]]),
        prior_mean=torch.zeros(3, 1) if fixed else torch.tensor([[0.0], [0.5], [1.0]]),
        prior_scale=torch.ones(3, 1) if fixed else torch.tensor([[1.0], [0.7], [1.2]]),
    )


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "learned"])
def test_the_aggregate_kl_is_that_of_quadrature(fixed: bool) -> None:
    some, grid = use(fixed), torch.linspace(-12, 12, 4801, dtype=torch.float64)
    each, prior = (
        Normal(mean.double(), scale.double()).log_prob(grid).exp()
        for mean, scale in (
            (some.posterior_mean, some.posterior_scale),
            (some.prior_mean, some.prior_scale),
        )
    )
    mixture, reference = each.mean(0), prior.mean(0)

    def kl(q: Tensor, p: Tensor) -> float:
        return float(torch.xlogy(q, q / p).nan_to_num().sum(-1).mean()) * 0.005

    found, error = some.aggregate_kl()
    assert found == pytest.approx(kl(mixture, reference), abs=5 * error)
    assert 0 < error < 0.05
    mean_kl = float(some.kl_per_dimension.sum(1).mean())
    assert found < mean_kl
    if fixed:
        information = kl(each, mixture)
        assert 0 < information < math.log(3)
        assert mean_kl == pytest.approx(found + information, abs=5 * error)


def test_of_one_example_the_aggregate_kl_is_its_kl() -> None:
    one = use(fixed=False).of(torch.tensor([False, False, True]))
    found, error = one.aggregate_kl()
    assert found == pytest.approx(float(one.kl_per_dimension.sum()), abs=5 * error)


def test_a_unit_is_active_where_its_mean_varies_by_more_than_a_hundredth() -> None:
    """Means of ±a have a variance of a²; the scales do not count."""
    spread = torch.tensor([0.0, 0.099, 0.101, 3.0])
    means = torch.stack([1 - spread, 1 + spread])
    scales = torch.tensor([9.0, 9.0, 0.1, 0.1]).expand(2, 4)
    some = gaussian_latents(means, scales, torch.zeros(2, 4), torch.ones(2, 4))
    assert some.active.tolist() == [False, False, True, True]

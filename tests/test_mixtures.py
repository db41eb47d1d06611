"""A mixture of Gaussians against quadrature, brute force and one Gaussian."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from cvae.densities import GaussianHead, MixtureDensity
from cvae.errors import UserError
from cvae.evaluation.latents import KL_DRAWS, Latents, latents
from cvae.latent import components, kl_per_dimension, nearest, reparameterize
from cvae.mixtures import GaussianMixture
from cvae.model import ConditionalVAE
from cvae.models import conditional_vae, gsnn, mixture_prior
from cvae.networks import MLP
from cvae.objectives import BetaElbo, Hybrid

B, M, D = 3, 4, 2


def random_mixture(seed: int = 0, dtype: torch.dtype = torch.float64) -> GaussianMixture:
    draws = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, M, generator=draws, dtype=dtype)
    loc = 3 * torch.randn(B, M, D, generator=draws, dtype=dtype)
    scale = 0.2 + torch.rand(B, M, D, generator=draws, dtype=dtype)
    return GaussianMixture(logits, Normal(loc, scale))


def normal_noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def test_its_dimensions_add_up_to_its_density() -> None:
    mixture, z = random_mixture(), 4 * normal_noise(5, B, D)
    per_dimension = mixture.log_prob_per_dimension(z)
    assert per_dimension.shape == z.shape
    torch.testing.assert_close(per_dimension.sum(-1), mixture.log_prob(z))
    # the first one is the marginal's
    weights, first = (
        mixture.log_weights,
        Normal(mixture.normal.loc[..., 0], mixture.normal.scale[..., 0]),
    )
    marginal = (weights + first.log_prob(z[..., :1])).logsumexp(-1)
    torch.testing.assert_close(per_dimension[..., 0], marginal)


def test_its_dimensions_need_nothing_that_is_not_deterministic_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: Any) -> None:
        raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation")

    mixture, z = random_mixture(), normal_noise(5, B, D).requires_grad_()
    monkeypatch.setattr(torch.Tensor, "cumsum", refused)
    monkeypatch.setattr(torch, "cumsum", refused)
    mixture.log_prob_per_dimension(z).sum().backward()


def test_the_density_of_what_noise_becomes_is_the_mixtures() -> None:
    """p(z) |det ∂z/∂ε| = N(ε; 0, I), the change of variables that makes z a draw of the mixture."""
    mixture, noise = random_mixture(), normal_noise(B, D)
    z = mixture.transport(noise)
    jacobian = torch.autograd.functional.jacobian(mixture.transport, noise)
    determinants = torch.stack([torch.linalg.det(jacobian[b, :, b]) for b in range(B)])
    normal = Normal(0.0, 1.0).log_prob(noise).sum(-1)
    torch.testing.assert_close(mixture.log_prob(z) + determinants.log(), normal)


def test_the_same_noise_is_the_same_z_and_near_noise_is_near() -> None:
    mixture, noise = random_mixture(), normal_noise(10, B, D)
    z = mixture.transport(noise)
    assert torch.equal(z, mixture.transport(noise))
    assert float((mixture.transport(noise + 1e-9) - z).abs().max()) < 1e-5


def test_draws_have_the_mixtures_mean_and_variance() -> None:
    mixture = random_mixture()
    z = mixture.transport(normal_noise(40_000, B, D))
    error = mixture.stddev / math.sqrt(len(z))
    assert ((z.mean(0) - mixture.mean).abs() < 5 * error).all()
    kurtosis = ((z - mixture.mean) ** 4).mean(0) / mixture.variance**2
    of_variance = ((kurtosis - 1) / len(z)).sqrt()
    assert ((z.var(0) / mixture.variance - 1).abs() < 5 * of_variance).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("spread", [1.0, 12.0], ids=["usual", "far out"])
def test_with_one_component_it_is_mean_and_scale(spread: float, dtype: torch.dtype) -> None:
    loc, scale = normal_noise(2, B, 1, D, dtype=dtype)
    normal = Normal(loc, scale.abs() + 0.1)
    noise = spread * normal_noise(50, B, D, dtype=dtype).clamp(-1, 1)
    # the second weighs nothing, but the search begins between the two
    away = Normal(*(torch.cat([t, t + 9.0], 1) for t in (normal.loc, normal.scale)))
    nothing = torch.tensor([0.0, -1e9], dtype=dtype).expand(B, 2)
    z = GaussianMixture(nothing, away).transport(noise)
    torch.testing.assert_close(z, normal.loc.squeeze(1) + normal.scale.squeeze(1) * noise)


def test_gradients_are_those_of_finite_differences() -> None:
    mixture, noise = random_mixture(), normal_noise(B, D)

    def drawn(logits: Tensor, loc: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
        return GaussianMixture(logits, Normal(loc, scale, validate_args=False)).transport(noise)

    parameters = (mixture.log_weights, mixture.normal.loc, mixture.normal.scale, noise)
    leaves = [parameter.detach().clone().requires_grad_() for parameter in parameters]
    assert torch.autograd.gradcheck(drawn, leaves)


def gaussian(seed: int) -> Independent[Normal]:
    draws = torch.Generator().manual_seed(seed)
    loc, raw = torch.randn(2, B, D, generator=draws, dtype=torch.float64)
    return Independent(Normal(loc, raw.exp()), 1)


def test_kl_with_a_mixture_is_that_of_quadrature() -> None:
    q, p = gaussian(2), random_mixture()
    grid = torch.linspace(-15, 15, 601, dtype=torch.float64)
    z = torch.cartesian_prod(grid, grid).unsqueeze(1).expand(-1, B, D)
    ratio = q.log_prob(z) - p.log_prob(z)
    exact = (q.log_prob(z).exp() * ratio).sum(0) * float(grid[1] - grid[0]) ** 2
    z = reparameterize(q, normal_noise(40_000, B, D))
    found = kl_per_dimension(q, p, z).sum(-1)
    error = (q.log_prob(z) - p.log_prob(z)).std(0) / math.sqrt(len(z))
    assert ((found - exact).abs() < 5 * error).all()
    assert (error < 0.2 * exact).all()


def test_kl_of_equal_components_is_the_gaussians() -> None:
    q, p = gaussian(2), gaussian(3)
    many = Normal(*(t.unsqueeze(1).expand(B, M, D) for t in (p.base_dist.loc, p.base_dist.scale)))
    z = reparameterize(q, normal_noise(20_000, B, D))
    found = kl_per_dimension(q, GaussianMixture(torch.zeros(B, M).double(), many), z)
    error = (q.base_dist.log_prob(z) - p.base_dist.log_prob(z)).std(0) / math.sqrt(len(z))
    assert ((found - kl_per_dimension(q, p, z)).abs() < 5 * error).all()


def test_the_nearest_component_is_the_likeliest() -> None:
    mixture = random_mixture()
    for place in range(M):  # the mean of each narrow component is likeliest of it
        narrow = GaussianMixture(mixture.log_weights, Normal(mixture.normal.loc, 0.01))
        found = nearest(narrow, mixture.normal.loc[:, place])
        assert torch.equal(found.loc, mixture.normal.loc[:, place])
    gaussians = gaussian(2)
    assert nearest(gaussians, gaussians.mean) is gaussians.base_dist


def test_the_components_of_a_gaussian_are_its_own() -> None:
    density = gaussian(2)
    mean, scale, log_weight = components(density)
    alone = GaussianMixture(log_weight, Normal(mean, scale))
    z = 3 * normal_noise(5, B, D)
    torch.testing.assert_close(alone.log_prob(z), density.log_prob(z))
    mixture = random_mixture()
    torch.testing.assert_close(components(mixture)[2].exp().sum(1), torch.ones(B).double())


def test_components_begin_apart_and_depend_on_x() -> None:
    torch.manual_seed(0)
    density = MixtureDensity(MLP([7], "relu").encoder([(5,)], (M, 2 * D + 1)), M, D)
    x = torch.randn(B, 5)
    mixture = density(x)
    assert mixture.batch_shape == (B,)
    apart = torch.pdist(mixture.normal.loc[0])
    assert float(apart.min().detach()) > 0.1
    assert not torch.equal(mixture.log_weights[0], mixture.log_weights[1])


def small(prior: object) -> ConditionalVAE:
    torch.manual_seed(0)
    return conditional_vae((5,), (6,), MLP([8], "relu"), prior, GaussianHead(), D)  # type: ignore[arg-type]


def test_the_bound_with_a_mixture_has_its_density_in_it() -> None:
    model = small(mixture_prior)
    x, y, noise = torch.randn(B, 5), torch.randn(B, 6), torch.randn(7, B, D)
    elbo = model.elbo(x, y, noise)
    ratio = elbo.posterior.log_prob(elbo.z) - elbo.prior.log_prob(elbo.z)
    torch.testing.assert_close(elbo.kl, ratio.mean(0))
    torch.testing.assert_close(elbo.log_weights, elbo.log_likelihood - ratio)
    (-elbo.importance_bound.mean()).backward()
    assert isinstance(model.prior, MixtureDensity)
    assert all(float(p.grad.abs().sum()) > 0 for p in model.prior.parameters())


def test_with_one_component_it_is_the_learned_prior() -> None:
    model = small(partial(mixture_prior, components=1))
    x, noise = torch.randn(B, 5), torch.randn(9, B, D)
    density = model.prior(x)
    mean, scale, _ = components(density)
    own = Independent(Normal(mean[:, 0], scale[:, 0]), 1)
    torch.testing.assert_close(reparameterize(density, noise), reparameterize(own, noise))
    torch.testing.assert_close(density.log_prob(noise), own.log_prob(noise))


def test_what_learns_through_z_of_the_prior_refuses_a_mixture() -> None:
    with pytest.raises(UserError, match="model=gsnn learns through z of its prior"):
        gsnn((5,), (6,), MLP([8], "relu"), mixture_prior, GaussianHead(), D)
    model, data = small(mixture_prior), (torch.randn(B, 5), torch.randn(B, 6))
    with pytest.raises(UserError, match="objective=hybrid learns through z"):
        Hybrid()(model, *data, torch.randn(2, B, D), 0.0)
    with pytest.raises(UserError, match="kl_balance are for a KL in closed form"):
        BetaElbo(free_bits=0.1)(model, *data, torch.randn(1, B, D), 0.0)
    BetaElbo()(model, *data, torch.randn(1, B, D), 0.0)


def test_latents_have_all_components_and_the_mean_kl_of_many_draws() -> None:
    model = small(mixture_prior)
    x, y = torch.randn(50, 5), torch.randn(50, 6)
    use = latents(model, x, y)
    q, p = model.encoder(x, y), model.prior(x)
    z = reparameterize(q, torch.randn(2000, 50, D))
    ratio = (q.log_prob(z) - p.log_prob(z)).detach()
    error = ratio.std(0) / math.sqrt(KL_DRAWS)
    assert ((use.kl_per_dimension.sum(1) - ratio.mean(0)).abs() < 5 * error).all()
    assert use.prior_mean.shape == (50, M, D)
    torch.testing.assert_close(use.prior_log_weight, p.log_weights.detach())
    assert not torch.equal(use.kl_per_dimension, latents(model, x, y, seed=1).kl_per_dimension)
    assert use.arrays()["prior_scale"].shape == (50, M, D)
    assert "prior_log_weight" in use.arrays()


def test_the_aggregate_prior_holds_each_component_by_its_weight() -> None:
    """Two examples whose posteriors are together their priors' light and heavy components."""
    means = torch.tensor([-3.0, 3.0])
    weights = torch.tensor([0.1, 0.9]).log()
    count = 1000
    light = torch.arange(count) < count // 10
    posterior_mean = torch.where(light, means[0], means[1]).unsqueeze(1)
    prior = means.expand(count, 2).unsqueeze(-1), torch.ones(count, 2, 1), weights.expand(count, 2)
    use = Latents(posterior_mean, torch.ones(count, 1), *prior, torch.zeros(count, 1))
    found, _ = use.aggregate_kl()
    assert found == pytest.approx(0, abs=1e-6)  # the same density, in float32's weights
    draws = use.prior_draws(torch.Generator().manual_seed(0))
    assert float((draws < 0).double().mean()) == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / count))
    assert torch.equal(use.heaviest, torch.full((count, 1), 3.0))

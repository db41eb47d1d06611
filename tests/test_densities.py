import re
from collections.abc import Callable
from math import prod
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    Laplace,
    MixtureSameFamily,
    Normal,
)

from cvae.densities import (
    MAX_SCALE,
    MIN_SCALE,
    BernoulliHead,
    ConditionalDensity,
    ContinuousBernoulliHead,
    GaussianHead,
    Head,
    StandardNormal,
    bounded,
)
from cvae.errors import UserError
from cvae.latent import diagonal, kl_per_dimension, reparameterize
from cvae.networks import MLP
from cvae.wrappers import Unconditional

LEADING = [(), (6,), (3, 6)]


def bernoulli_log_prob(y: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return stats.bernoulli.logpmf(y, special.expit(logits))


def continuous_bernoulli_log_prob(y: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The exponential family exp(y·l) on [0, 1], whose normaliser is l / (exp(l) − 1)."""
    return y * logits + np.log(logits / np.expm1(logits))


def fixed_gaussian_log_prob(y: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return stats.norm.logpdf(y, mean, 0.3)


def learned_gaussian_log_prob(y: np.ndarray, mean: np.ndarray, raw: np.ndarray) -> np.ndarray:
    low, high = np.log(0.1), np.log(2.0)
    centre, half = (low + high) / 2, (high - low) / 2
    scale = np.exp(centre + half * np.tanh((raw - centre) / half))
    return stats.norm.logpdf(y, mean, scale)


class Case(NamedTuple):
    head: Head
    event: tuple[int, ...]
    log_prob: Callable[..., np.ndarray]
    num_parameters: int
    binary: bool


CASES = {
    "bernoulli": Case(BernoulliHead(), (1, 4, 3), bernoulli_log_prob, 1, True),
    "continuous_bernoulli": Case(
        ContinuousBernoulliHead(), (2, 3, 2), continuous_bernoulli_log_prob, 1, False
    ),
    "gaussian_fixed": Case(GaussianHead(scale=0.3), (5,), fixed_gaussian_log_prob, 1, False),
    "gaussian_learned": Case(
        GaussianHead(min_scale=0.1, max_scale=2.0), (1, 3, 3), learned_gaussian_log_prob, 2, False
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def density_of(case: Case, *leading: int) -> tuple[Distribution, Tensor]:
    """A density with random parameters, and those parameters."""
    torch.manual_seed(0)
    parameters = 2 * torch.randn(*leading, case.num_parameters, *case.event)
    return ConditionalDensity(nn.Identity(), case.head, len(case.event))(parameters), parameters


@every_case
def test_head_declares_its_parameters_and_its_support(case: Case) -> None:
    assert case.head.num_parameters == case.num_parameters
    assert case.head.binary == case.binary


@every_case
@pytest.mark.parametrize("leading", LEADING, ids=str)
def test_log_prob_is_scipys_summed_over_an_event(case: Case, leading: tuple[int, ...]) -> None:
    density, parameters = density_of(case, *leading)
    y = density.sample()
    assert y.shape == (*leading, *case.event)

    axis = -1 - len(case.event)
    arrays = np.moveaxis(parameters.double().numpy(), axis, 0)
    events = tuple(range(axis + 1, 0))
    expected = case.log_prob(y.double().numpy(), *arrays).sum(events)

    actual = density.log_prob(y)
    assert actual.shape == leading
    # float32 keeps seven digits, and a Gaussian's (y − mean)/σ loses two of them
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4, atol=1e-4)


@every_case
def test_log_prob_broadcasts_one_y_over_samples_of_z(case: Case) -> None:
    density, parameters = density_of(case, 3, 6)
    y = density.sample()[0]
    single = [
        ConditionalDensity(nn.Identity(), case.head, len(case.event))(part).log_prob(y)
        for part in parameters
    ]
    torch.testing.assert_close(density.log_prob(y), torch.stack(single))


@every_case
def test_samples_average_to_the_mean(case: Case) -> None:
    density, _ = density_of(case, 2)
    draws = density.sample(torch.Size([4000])).double()
    standard_error = draws.std(0) / 4000**0.5
    # 5 standard errors are exceeded once in two million normal draws
    assert ((draws.mean(0) - density.mean).abs() < 5 * standard_error).all()


@every_case
def test_densities_are_float32_where_the_network_is_bfloat16(case: Case) -> None:
    torch.manual_seed(0)
    shape = (case.num_parameters, *case.event)
    network = nn.Sequential(nn.Linear(3, int(np.prod(shape))), nn.Unflatten(-1, shape))
    density = ConditionalDensity(network, case.head, len(case.event))
    given = torch.randn(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        parameters = network(given)
        autocast = density(given)
        y = autocast.sample()
        log_prob = autocast.log_prob(y)
    assert parameters.dtype == torch.bfloat16
    assert {autocast.mean.dtype, y.dtype, log_prob.dtype} == {torch.float32}

    exact = ConditionalDensity(nn.Identity(), case.head, len(case.event))(parameters.float())
    torch.testing.assert_close(log_prob, exact.log_prob(y))


@pytest.mark.parametrize(
    "logit", [-40.0, -12.0, -1.0, -4e-3, 0.0, 1e-3, 0.5, 8.0, 15.0, 30.0, 80.0]
)
def test_continuous_bernoulli_is_a_density_on_the_unit_interval(logit: float) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(200)
    nodes, weights = (nodes + 1) / 2, weights / 2
    density = ContinuousBernoulliHead()(torch.tensor(logit))
    density_at = density.log_prob(torch.tensor(nodes, dtype=torch.float32)).double().exp().numpy()
    # the quadrature is exact here to 1e-12, float32's exponent of some tens is not
    assert weights @ density_at == pytest.approx(1, abs=1e-4)
    assert weights @ (nodes * density_at) == pytest.approx(float(density.mean), abs=1e-4)


@pytest.mark.parametrize("logit", [-80.0, -30.0, -2.0, 1e-2, 3.0, 30.0, 80.0])
def test_continuous_bernoulli_has_the_articles_normaliser(logit: float) -> None:
    """C(λ) = 2 artanh(1 − 2λ)/(1 − 2λ), which is l / tanh(l/2) for the logit l."""
    y = torch.tensor([0.0, 0.3, 1.0])
    unnormalised = y * logit - np.logaddexp(0, logit)
    expected = unnormalised + np.log(logit / np.tanh(logit / 2))
    actual = ContinuousBernoulliHead()(torch.tensor(logit)).log_prob(y)
    # float32 keeps 1e-5 of a log-probability of 80
    torch.testing.assert_close(actual, expected.float(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])  # the least and the greatest of torch.rand
def test_continuous_bernoulli_draws_within_0_and_1(
    uniform: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.tensor([-200.0, -17.0, -1.0, 0.0, 1.0, 15.0, 17.0, 30.0, 200.0])
    density = ContinuousBernoulliHead()(logits)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, uniform))
    drawn = density.rsample()
    assert (drawn >= 0).all()
    assert (drawn <= 1).all()


def test_continuous_bernoulli_has_the_gradient_of_an_exponential_family() -> None:
    logits = torch.tensor([-1e12, -40.0, -3.0, -0.05, 0.0, 0.2, 9.0, 25.0, 1e12]).requires_grad_()
    density = ContinuousBernoulliHead()(logits)
    density.log_prob(torch.full_like(logits, 0.3)).sum().backward()
    # a mean near one half is a difference of large numbers in float32
    torch.testing.assert_close(logits.grad, 0.3 - density.mean.detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("low", "high"), [(-7.0, 7.0), (float(np.log(0.1)), 0.0), (1.0, 1.5)])
def test_bounded_is_increasing_within_its_limits_with_slope_one_at_the_centre(
    low: float, high: float
) -> None:
    centre, half = (low + high) / 2, (high - low) / 2
    # tanh reaches 1 in float64 at 19 half-widths
    raw = torch.linspace(centre - 15 * half, centre + 15 * half, 301, dtype=torch.float64)
    squashed = bounded(raw, low, high)
    assert (low < squashed).all()
    assert (squashed < high).all()
    assert (squashed.diff() > 0).all()

    step = 1e-4
    around = torch.tensor([centre - step, centre, centre + step], dtype=torch.float64)
    below, middle, above = bounded(around, low, high)
    assert float(middle) == pytest.approx(centre, abs=1e-12)
    # the third-order term of tanh
    assert float(above - below) / (2 * step) == pytest.approx(1, abs=(step / half) ** 2)


def test_bounded_is_finite_with_finite_gradient_for_extreme_inputs() -> None:
    raw = torch.tensor([-1e6, -1e3, 0.0, 1e3, 1e6], requires_grad=True)
    squashed = bounded(raw, -7, 7)
    squashed.sum().backward()
    assert (squashed.abs() <= 7).all()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


def test_learned_scale_stays_between_its_limits_for_extreme_outputs_of_a_network() -> None:
    raw = torch.tensor([-1e6, 0.0, 1e6])
    latent = GaussianHead()(torch.zeros(3), raw).stddev
    # exp and log each lose a digit of float32's seven
    torch.testing.assert_close(
        latent[[0, 2]], torch.tensor([MIN_SCALE, MAX_SCALE]), rtol=1e-5, atol=0
    )
    pixels = GaussianHead(min_scale=0.1, max_scale=1.0)(torch.zeros(3), raw).stddev
    torch.testing.assert_close(pixels[[0, 2]], torch.tensor([0.1, 1.0]), rtol=1e-5, atol=0)


def gaussian(mean: Tensor, scale: Tensor) -> Independent:
    return Independent(Normal(mean, scale), 1)


def random_diagonal(*shape: int, spread: float, seed: int) -> Independent:
    generator = torch.Generator().manual_seed(seed)
    mean, raw = torch.randn(2, *shape, generator=generator)
    return gaussian(mean, (spread * raw).clamp(-7, 7).exp())


def test_kl_is_the_closed_formula() -> None:
    q, p = random_diagonal(5, 3, spread=1, seed=0), random_diagonal(5, 3, spread=1, seed=1)
    (m, s), (n, t) = (
        (density.mean.double().numpy(), density.stddev.double().numpy()) for density in (q, p)
    )
    expected = np.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 1 / 2
    actual = kl_per_dimension(q, p, q.mean)
    assert actual.shape == (5, 3)
    # float32's seven digits, less one for the differences
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_kl_is_the_mean_log_ratio() -> None:
    q, p = random_diagonal(4, 3, spread=0.5, seed=2), random_diagonal(4, 3, spread=0.5, seed=3)
    torch.manual_seed(0)
    z = q.sample(torch.Size([20000]))
    ratio = (q.base_dist.log_prob(z) - p.base_dist.log_prob(z)).double()
    standard_error = ratio.std(0) / 20000**0.5
    assert ((ratio.mean(0) - kl_per_dimension(q, p, q.mean)).abs() < 5 * standard_error).all()


def test_kl_is_zero_for_equal_densities_and_only_for_them() -> None:
    q = random_diagonal(50, 4, spread=3, seed=4)
    assert (kl_per_dimension(q, gaussian(q.mean.clone(), q.stddev.clone()), q.mean) == 0).all()
    # float32's square of a relative change below 1e-3 is lost against 1
    assert (kl_per_dimension(q, gaussian(q.mean, q.stddev * 1.01), q.mean) > 0).all()
    assert (kl_per_dimension(q, gaussian(q.mean + 0.1 * q.stddev, q.stddev), q.mean) > 0).all()


@pytest.mark.parametrize("spread", [1.0, 20.0], ids=["usual", "at the limits"])
def test_kl_is_finite_and_never_negative(spread: float) -> None:
    q, p = (random_diagonal(50000, 4, spread=spread, seed=seed) for seed in (5, 6))
    kl = kl_per_dimension(q, p, q.mean)
    assert kl.isfinite().all()
    assert (kl >= 0).all()


def test_kl_of_nearly_equal_densities_is_never_negative() -> None:
    q = random_diagonal(50000, 4, spread=1, seed=7)
    torch.manual_seed(8)
    closeness = 10 ** torch.empty_like(q.mean).uniform_(-8, -2)
    p = gaussian(
        q.mean + q.stddev * closeness * torch.randn_like(q.mean),
        q.stddev * (1 + closeness * torch.randn_like(q.mean)),
    )
    assert (kl_per_dimension(q, p, q.mean) >= 0).all()


def test_reparameterize_scales_and_shifts_the_noise_and_passes_gradients() -> None:
    mean = torch.tensor([[1.0, -2.0]], requires_grad=True)
    scale = torch.tensor([[0.5, 3.0]], requires_grad=True)
    noise = torch.tensor([[[1.0, 1.0]], [[-2.0, 0.0]]])
    z = reparameterize(gaussian(mean, scale), noise)
    torch.testing.assert_close(z.detach(), torch.tensor([[[1.5, 1.0]], [[0.0, -2.0]]]))
    z.sum().backward()
    torch.testing.assert_close(mean.grad, torch.tensor([[2.0, 2.0]]))
    torch.testing.assert_close(scale.grad, torch.tensor([[-1.0, 1.0]]))


ZEROS, ONES = torch.zeros(4, 2, 3), torch.ones(4, 2, 3)
NO_PRODUCTS_OF_GAUSSIANS = {
    "Independent(Laplace)": Independent(Laplace(ZEROS, ONES), 1),
    "MixtureSameFamily": MixtureSameFamily(Categorical(ONES[..., 0]), gaussian(ZEROS, ONES)),
    "Normal": Normal(ZEROS, ONES),  # whose log_prob is not summed over z
}


@pytest.mark.parametrize("name", NO_PRODUCTS_OF_GAUSSIANS)
def test_what_is_no_product_of_gaussians_is_refused_by_name(name: str) -> None:
    density, right = NO_PRODUCTS_OF_GAUSSIANS[name], gaussian(ZEROS, ONES)
    assert diagonal(right) is right.base_dist
    said = "^" + re.escape(f"{name} is no density of z: ")
    for use in (
        lambda: reparameterize(density, ZEROS),
        lambda: kl_per_dimension(density, right, ZEROS),
        lambda: kl_per_dimension(right, density, ZEROS),
    ):
        with pytest.raises(UserError, match=said):
            use()


@every_case
def test_a_density_starts_at_the_mean_of_the_data(case: Case) -> None:
    network = MLP([7], "relu").decoder([(2,)], (case.num_parameters, *case.event))
    for parameter in network.parameters():
        nn.init.zeros_(parameter)  # but for the start, every parameter is zero
    density = Unconditional(ConditionalDensity(network, case.head, len(case.event)))
    mean = torch.linspace(0.01, 0.99, prod(case.event)).reshape(case.event)
    density.start_at(mean)
    found = density(torch.zeros(1), torch.zeros(2)).mean
    if isinstance(case.head, ContinuousBernoulliHead):
        assert ((found - mean) * (0.5 - mean) >= 0).all()  # from the mean towards one half
        assert ((found - 0.5).abs() < (mean - 0.5).abs()).all()
    else:
        torch.testing.assert_close(found, mean)


def test_pixels_that_are_always_the_same_start_at_a_finite_logit() -> None:
    start = BernoulliHead().start(torch.tensor([0.0, 1.0])).sigmoid()
    torch.testing.assert_close(start, torch.tensor([[1e-3, 1 - 1e-3]]))


def test_unconditional_ignores_the_condition_alone() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Unflatten(-1, (2, 2)))
    density = Unconditional(ConditionalDensity(network, GaussianHead(), 1))
    z, other = torch.randn(2, 5, 3)
    first, second = density(torch.randn(5, 7), z), density(torch.full((5, 7), torch.nan), z)
    torch.testing.assert_close(first.mean, second.mean, rtol=0, atol=0)
    torch.testing.assert_close(first.stddev, second.stddev, rtol=0, atol=0)
    assert not torch.equal(first.mean, density(torch.randn(5, 7), other).mean)


@pytest.mark.parametrize("x_shape", [(7,), (1, 4, 4)], ids=["vector", "image"])
def test_standard_normal_prior_is_scipys(x_shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    prior = StandardNormal(3)(torch.randn(5, *x_shape))
    assert (prior.batch_shape, prior.event_shape) == ((5,), (3,))
    z = torch.randn(2, 5, 3)
    expected = stats.multivariate_normal(np.zeros(3)).logpdf(z.double().numpy())
    # float32's seven digits
    np.testing.assert_allclose(prior.log_prob(z).numpy(), expected, rtol=1e-6, atol=1e-5)

"""A linear-Gaussian model, whose posterior and evidence are known exactly."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from cvae.densities import BernoulliHead, GaussianHead, StandardNormal
from cvae.model import ConditionalVAE
from cvae.models import conditional_vae, fixed_prior, learned_prior, vae
from cvae.networks import MLP
from cvae.objectives import BetaElbo

X, Y, D, B = 3, 5, 2, 4
SIGMA = 0.4


def double(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def normal(mean: Tensor, scale: Tensor) -> Distribution:
    return Independent(Normal(mean, scale), 1)


class LinearDecoder(nn.Module):
    """p(y|x,z) = N(W z + V x, σ² I), with orthogonal columns in W."""

    def __init__(self) -> None:
        super().__init__()
        columns, _ = torch.linalg.qr(double(Y, D))
        self.norms = torch.tensor([0.7, 1.5], dtype=torch.float64)
        self.w = nn.Parameter((columns * self.norms).contiguous())
        self.v = nn.Parameter(double(Y, X))

    def forward(self, x: Tensor, z: Tensor) -> Distribution:
        mean = z.to(x) @ self.w.T + x @ self.v.T
        return normal(mean, torch.full_like(mean, SIGMA))


class LogLinearPrior(nn.Module):
    """p(z|x) = N(M x, diag exp(2 S x))."""

    def __init__(self) -> None:
        super().__init__()
        self.m, self.s = nn.Parameter(double(D, X)), nn.Parameter(0.5 * double(D, X))

    def forward(self, x: Tensor) -> Distribution:
        return normal(x @ self.m.T, (x @ self.s.T).exp())


class ExactPosterior(nn.Module):
    """p(z|x,y) by Bayes' rule, diagonal because W's columns are orthogonal; or a shift of it."""

    def __init__(
        self, prior: nn.Module, decoder: LinearDecoder, shift: float = 0.0, stretch: float = 1.0
    ) -> None:
        super().__init__()
        self.prior, self.decoder, self.shift, self.stretch = prior, decoder, shift, stretch

    def forward(self, x: Tensor, y: Tensor) -> Distribution:
        prior, decoder = self.prior(x), self.decoder
        precision = prior.variance.reciprocal() + decoder.norms.square() / SIGMA**2
        projected = (y - x @ decoder.v.T) @ decoder.w / SIGMA**2
        mean = (prior.mean / prior.variance + projected) / precision
        scale = precision.rsqrt()
        return normal(mean + self.shift * scale, self.stretch * scale)


PRIORS: dict[str, Callable[[], nn.Module]] = {
    "fixed": lambda: StandardNormal(D),
    "learned": LogLinearPrior,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=PRIORS)
def model(request: pytest.FixtureRequest) -> ConditionalVAE:
    decoder, prior = LinearDecoder(), PRIORS[request.param]()
    return ConditionalVAE(ExactPosterior(prior, decoder), prior, decoder, D)


def with_wrong_posterior(model: ConditionalVAE) -> ConditionalVAE:
    wrong = ExactPosterior(model.prior, model.decoder, shift=0.8, stretch=1.2)  # type: ignore[arg-type]
    return ConditionalVAE(wrong, model.prior, model.decoder, D)


def examples() -> tuple[Tensor, Tensor]:
    return double(B, X), 2 * double(B, Y)


def noise(*samples: int) -> Tensor:
    return double(*samples, B, D)


@torch.no_grad()
def evidence(model: ConditionalVAE, x: Tensor, y: Tensor) -> Tensor:
    """log N(y; W m(x) + V x, W diag(s²(x)) Wᵀ + σ² I)."""
    w, v = (weight.detach().numpy() for weight in (model.decoder.w, model.decoder.v))
    prior = model.prior(x)
    means = prior.mean.numpy() @ w.T + x.numpy() @ v.T
    covariances = [w @ np.diag(variance) @ w.T for variance in prior.variance.numpy()]
    values = [
        stats.multivariate_normal(mean, covariance + SIGMA**2 * np.eye(Y)).logpdf(example)
        for mean, covariance, example in zip(means, covariances, y.numpy(), strict=True)
    ]
    return torch.tensor(values)


@torch.no_grad()
def test_every_log_weight_is_the_evidence_under_the_exact_posterior(model: ConditionalVAE) -> None:
    x, y = examples()
    log_weights = model.elbo(x, y, noise(7)).log_weights
    assert log_weights.shape == (7, B)
    # float64 throughout; the matrices are well conditioned
    torch.testing.assert_close(log_weights, evidence(model, x, y).expand(7, B), rtol=0, atol=1e-9)
    torch.testing.assert_close(
        model.log_evidence(x, y, noise(3)), evidence(model, x, y), rtol=0, atol=1e-9
    )


@torch.no_grad()
def test_expected_elbo_is_the_evidence_under_the_exact_posterior(model: ConditionalVAE) -> None:
    x, y = examples()
    terms = model.elbo(x, y, noise(4000))
    standard_error = terms.log_likelihood.std(0) / 4000**0.5
    # 5 standard errors are exceeded once in two million normal draws
    assert ((terms.elbo - evidence(model, x, y)).abs() < 5 * standard_error).all()


@torch.no_grad()
def test_expected_elbo_lacks_the_kl_to_the_exact_posterior(model: ConditionalVAE) -> None:
    x, y = examples()
    terms = with_wrong_posterior(model).elbo(x, y, noise(4000))
    standard_error = terms.log_likelihood.std(0) / 4000**0.5
    # shift and stretch are in units of the exact posterior's scale
    gap = D * (-math.log(1.2) + (1.2**2 + 0.8**2 - 1) / 2)
    assert ((terms.elbo - (evidence(model, x, y) - gap)).abs() < 5 * standard_error).all()
    assert (terms.elbo < evidence(model, x, y)).all()


@torch.no_grad()
def test_log_evidence_rises_with_k_to_the_evidence(model: ConditionalVAE) -> None:
    x, y = examples()
    wrong, truth = with_wrong_posterior(model), evidence(model, x, y)
    terms = wrong.elbo(x, y, noise(20000))
    weights = (terms.log_weights - truth).exp()
    standard_error = weights.std(0) / 20000**0.5
    estimate = wrong.log_evidence(x, y, noise(20000))
    assert ((estimate - truth).abs() < 5 * standard_error).all()

    bias = []
    for k in (1, 8, 64):
        repeated = noise(k, 200).reshape(k, 200 * B, D)
        estimates = wrong.log_evidence(x.repeat(200, 1), y.repeat(200, 1), repeated)
        bias.append(float((truth.repeat(200) - estimates).mean()))
    one, eight, sixty_four = bias
    # the bias falls as 1/K once K is large; 800 estimates know it to a few hundredths
    assert one > 2 * eight > 4 * sixty_four > 0


@torch.no_grad()
def test_weights_with_another_prior_miss_the_evidence() -> None:
    decoder, prior = LinearDecoder(), LogLinearPrior()
    right = ConditionalVAE(ExactPosterior(prior, decoder), prior, decoder, D)
    wrong = ConditionalVAE(right.encoder, StandardNormal(D), right.decoder, D)
    x, y = examples()
    draws = noise(1000)
    off = wrong.log_evidence(x, y, draws) - evidence(right, x, y)
    # the right prior's estimate is exact to 1e-9 with this very noise
    assert (off.abs() > 0.1).all()
    assert (right.log_evidence(x, y, draws) - evidence(right, x, y)).abs().max() < 1e-9


@torch.no_grad()
def test_leading_dimensions_of_the_noise_are_samples(model: ConditionalVAE) -> None:
    x, y = examples()
    draws = noise(2, 3)
    together = model.elbo(x, y, draws)
    single = [model.elbo(x, y, draws[i, j]) for i in range(2) for j in range(3)]
    stacked = torch.stack([terms.log_likelihood for terms in single])
    torch.testing.assert_close(together.log_likelihood, stacked.reshape(2, 3, B))
    torch.testing.assert_close(
        together.log_weights.flatten(0, 1), torch.stack([terms.log_weights for terms in single])
    )
    torch.testing.assert_close(together.reconstruction, stacked.mean(0))
    assert together.kl_per_dimension.shape == (B, D)

    pictures = model.sample(x, draws).mean
    torch.testing.assert_close(pictures[1, 2], model.sample(x, draws[1, 2]).mean)


@torch.no_grad()
def test_same_noise_same_result_and_fresh_noise_if_absent(model: ConditionalVAE) -> None:
    x, y = examples()
    draws = noise()
    assert torch.equal(model.elbo(x, y, draws).elbo, model.elbo(x, y, draws).elbo)
    assert torch.equal(model.sample(x, draws).mean, model.sample(x, draws).mean)
    assert (model.elbo(x, y).z != model.elbo(x, y).z).all()
    assert (model.sample(x).mean != model.sample(x).mean).all()


@torch.no_grad()
def test_elbo_is_reconstruction_minus_kl(model: ConditionalVAE) -> None:
    x, y = examples()
    terms = with_wrong_posterior(model).elbo(x, y, noise(3))
    assert terms.elbo.shape == (B,)
    torch.testing.assert_close(terms.reconstruction, terms.log_likelihood.mean(0))
    torch.testing.assert_close(terms.kl, terms.kl_per_dimension.sum(-1))
    torch.testing.assert_close(terms.elbo, terms.log_likelihood.mean(0) - terms.kl)


@torch.no_grad()
def test_log_evidence_of_improbable_examples_is_finite(model: ConditionalVAE) -> None:
    x, y = examples()
    estimate = with_wrong_posterior(model).log_evidence(x, 1e3 * y, noise(8))
    # the weights themselves, exp of minus millions, are zero even in float64
    assert (estimate < -1e5).all()
    assert estimate.isfinite().all()


@torch.no_grad()
def test_sample_is_the_decoder_at_the_priors_z(model: ConditionalVAE) -> None:
    x, _ = examples()
    draws = noise(3)
    prior = model.prior(x)
    z = prior.mean + prior.stddev * draws
    expected = z @ model.decoder.w.T + x @ model.decoder.v.T
    torch.testing.assert_close(model.sample(x, draws).mean, expected)


class LinearEncoder(nn.Module):
    """A diagonal Gaussian whose mean and log scale are linear in x and y."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(X + Y, D, dtype=torch.float64)
        self.log_scale = nn.Linear(X + Y, D, dtype=torch.float64)

    def forward(self, x: Tensor, y: Tensor) -> Distribution:
        joint = torch.cat([x, y], -1)
        return normal(self.mean(joint), (0.3 * self.log_scale(joint)).exp())


def test_gradients_are_finite_differences_of_the_loss() -> None:
    model = ConditionalVAE(LinearEncoder(), LogLinearPrior(), LinearDecoder(), D)
    x, y = examples()
    draws = noise(3)
    objective = BetaElbo(beta=0.7, free_bits=0.2)
    kl = objective(model, x, y, draws, 1).elbo.kl_per_dimension
    assert (kl - 0.2).abs().min() > 1e-2  # the max of free bits has a kink at λ

    @torch.no_grad()
    def loss(parameters: Tensor) -> float:
        vector_to_parameters(parameters, model.parameters())
        return float(objective(model, x, y, draws, 1).loss.mean())

    start = parameters_to_vector(model.parameters()).detach().clone()
    objective(model, x, y, draws, 1).loss.mean().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None for gradient in gradients)

    step = 1e-5
    directions = step * torch.eye(len(start), dtype=torch.float64)
    differences = [(loss(start + d) - loss(start - d)) / (2 * step) for d in directions]
    # the central difference's error: step² from curvature and 1e-16/step from rounding, times tens
    torch.testing.assert_close(
        parameters_to_vector([g for g in gradients if g is not None]),
        torch.tensor(differences, dtype=torch.float64),
        rtol=1e-6,
        atol=1e-7,
    )


@torch.no_grad()
def test_vae_is_blind_to_the_condition() -> None:
    model = vae((X,), (Y,), MLP([8], "tanh"), fixed_prior, BernoulliHead(), D)
    x, y = torch.randn(B, X), torch.rand(B, Y).round()
    draws = torch.randn(3, B, D)
    first, second = (model.elbo(condition, y, draws) for condition in (x, -5 * x))
    assert torch.equal(first.elbo, second.elbo)
    assert torch.equal(model.sample(x, draws).mean, model.sample(-5 * x, draws).mean)


@pytest.mark.parametrize("prior", [fixed_prior, learned_prior])
@torch.no_grad()
def test_conditional_vae_sees_the_condition_in_each_density(
    prior: Callable[..., nn.Module],
) -> None:
    model = conditional_vae((X,), (Y,), MLP([8], "tanh"), prior, GaussianHead(), D)
    x, y, z = torch.randn(B, X), torch.randn(B, Y), torch.randn(B, D)
    assert (model.encoder(x, y).mean != model.encoder(-x, y).mean).all()
    assert (model.encoder(x, y).mean != model.encoder(x, -y).mean).all()
    assert (model.decoder(x, z).mean != model.decoder(-x, z).mean).all()
    assert (model.decoder(x, z).mean != model.decoder(x, -z).mean).all()
    if prior is learned_prior:
        assert (model.prior(x).mean != model.prior(-x).mean).all()
    else:
        assert (model.prior(x).mean == 0).all()

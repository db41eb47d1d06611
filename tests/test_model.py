"""The terms of a linear-Gaussian model, whose posterior and evidence are known exactly."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from cvae.densities import BernoulliHead
from cvae.model import ConditionalVAE
from cvae.models import fixed_prior, vae
from cvae.networks import MLP
from cvae.objectives import BetaElbo, Iwae, Objective
from linear_gaussian import (
    PRIORS,
    SHIFT,
    STRETCH,
    D,
    LinearDecoder,
    LinearEncoder,
    LogLinearPrior,
    X,
    Y,
    double,
    evidence,
    linear_gaussian,
    with_wrong_posterior,
)

B = 4


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=PRIORS)
def model(request: pytest.FixtureRequest) -> ConditionalVAE:
    return linear_gaussian(request.param)


def examples() -> tuple[Tensor, Tensor]:
    return double(B, X), 2 * double(B, Y)


def noise(*samples: int) -> Tensor:
    return double(*samples, B, D)


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
    gap = D * (-math.log(STRETCH) + (STRETCH**2 + SHIFT**2 - 1) / 2)
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


@pytest.mark.parametrize(
    "objective", [BetaElbo(beta=0.7, free_bits=0.2), Iwae(num_samples=3)], ids=["elbo", "iwae"]
)
def test_gradients_are_finite_differences_of_the_loss(objective: Objective) -> None:
    model = ConditionalVAE(LinearEncoder(), LogLinearPrior(), LinearDecoder(), D)
    x, y = examples()
    draws = noise(3)
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

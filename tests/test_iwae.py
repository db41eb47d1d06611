import math

import pytest
import torch

from cvae.densities import BernoulliHead
from cvae.errors import UserError
from cvae.model import ConditionalVAE
from cvae.models import deterministic, fixed_prior
from cvae.networks import MLP
from cvae.objectives import TERMS, BetaElbo, Iwae, resample
from linear_gaussian import D as LATENT
from linear_gaussian import (
    LinearDecoder,
    LinearEncoder,
    LogLinearPrior,
    double,
    evidence,
    linear_gaussian,
    with_wrong_posterior,
)
from linear_gaussian import X as CONDITION
from linear_gaussian import Y as OBSERVED
from small_model import B, D, X, Y, batch, gradient, network_model


def linear_model() -> ConditionalVAE:
    torch.manual_seed(0)
    return ConditionalVAE(LinearEncoder(), LogLinearPrior(), LinearDecoder(), LATENT)


def test_iwae_adds_its_bound_and_is_judged_by_it() -> None:
    objective = Iwae(num_samples=7)
    assert objective.num_samples == 7
    assert objective.terms == (*TERMS, "iwae")
    assert objective.monitor == "iwae"
    assert objective.settings(0.0) == {"num_samples": 7}
    model, (x, y, _) = network_model(), batch()
    noise = torch.randn(7, B, D)
    terms, plain = (one(model, x, y, noise, epoch=0) for one in (objective, BetaElbo()))
    assert torch.equal(terms.elbo.elbo, plain.elbo.elbo)
    assert torch.equal(terms.own["iwae"], -terms.loss)
    torch.testing.assert_close(terms.own["iwae"], model.log_evidence(x, y, noise))


@pytest.mark.parametrize(("epoch", "samples"), [(0.0, 1), (1.99, 1), (2.0, 4), (9.0, 4)])
def test_iwae_warms_up_with_one_sample(epoch: float, samples: int) -> None:
    objective = Iwae(num_samples=4, warmup_epochs=2)
    assert objective.settings(epoch) == {"num_samples": samples}
    assert objective.num_noise(epoch) == (samples, 0)
    model, (x, y, _), noise = network_model(), batch(), torch.randn(samples, B, D)
    terms = objective(model, x, y, noise, epoch)
    torch.testing.assert_close(terms.loss, -model.log_evidence(x, y, noise))
    torch.testing.assert_close(terms.elbo.elbo, model.elbo(x, y, noise).elbo)


def test_iwae_of_one_sample_is_minus_its_log_weight() -> None:
    model, (x, y, noise) = network_model(), batch()
    terms = Iwae(1)(model, x, y, noise, epoch=0)
    torch.testing.assert_close(terms.loss, -terms.elbo.log_weights[0])


def test_iwae_of_one_sample_has_the_elbos_gradient_on_average() -> None:
    """Two estimates of one gradient: that of log w, and that of the ELBO with its exact KL."""
    model = linear_model()
    x, y = double(4, CONDITION), double(4, OBSERVED)
    groups, each = 60, 50
    many = x.repeat(each, 1), y.repeat(each, 1)
    differences = []
    for _ in range(groups):
        noise = double(1, 4 * each, LATENT)
        losses = [one(model, *many, noise, 0).loss.mean() for one in (Iwae(1), BetaElbo())]
        differences.append(gradient(losses[0], model) - gradient(losses[1], model))
    off = torch.stack(differences)
    standard_error = off.std(0) / groups**0.5
    assert (standard_error > 0).any()
    # the decoder's are the same to float64's rounding; 5 standard errors for the others
    assert (off.mean(0).abs() <= 5 * standard_error + 1e-10).all()


def test_iwae_has_the_gradient_of_its_definition() -> None:
    """∇ log 1/K Σ w_k = Σ_k w̃_k ∇ log w_k (Burda et al. 2016, eq. 14), from each sample alone."""
    torch.manual_seed(0)
    model, samples = with_wrong_posterior(linear_gaussian("learned")), 5
    x, y = double(1, CONDITION), double(1, OBSERVED)
    noise = double(samples, 1, LATENT)
    log_weights, gradients = [], []
    for draw in noise:
        posterior = model.encoder(x, y)
        z = posterior.mean + posterior.stddev * draw
        log_weight = (
            model.decoder(x, z).log_prob(y) + model.prior(x).log_prob(z) - posterior.log_prob(z)
        ).sum()
        log_weights.append(log_weight.item())
        gradients.append(gradient(log_weight, model))
    weights = [math.exp(log_weight - max(log_weights)) for log_weight in log_weights]
    shares = [weight / sum(weights) for weight in weights]
    assert sorted(shares)[-2] > 0.01  # more than one sample has a say
    expected = sum(share * part for share, part in zip(shares, gradients, strict=True))

    terms = Iwae(samples)(model, x, y, noise, epoch=0)
    # float64 throughout, gradients of tens
    torch.testing.assert_close(gradient(-terms.loss.sum(), model), expected, rtol=1e-9, atol=1e-9)
    bound = math.log(sum(weights) / samples) + max(log_weights)
    assert terms.own["iwae"].item() == pytest.approx(bound, abs=1e-9)


@pytest.mark.parametrize("count", [1, 3])
def test_the_gradient_of_a_few_samples_is_that_of_all_on_average(count: int) -> None:
    """The mean over an even grid of uniform numbers, off by 1/grid where an index changes."""
    torch.manual_seed(0)
    model, samples, grid = with_wrong_posterior(linear_gaussian("learned")), 5, 20_000
    x, y, noise = double(1, CONDITION), double(1, OBSERVED), double(samples, 1, LATENT)
    expected = gradient(Iwae(samples)(model, x, y, noise, epoch=0).loss.sum(), model)
    uniform = (torch.arange(grid).double() + 0.5) / grid
    spare = torch.zeros(grid, LATENT).double()
    spare[:, 0] = torch.special.ndtri(uniform)
    many = torch.cat([noise.expand(-1, grid, -1), spare.unsqueeze(0)])
    few = Iwae(samples, num_backward=count)
    terms = few(model, x.expand(grid, -1), y.expand(grid, -1), many, epoch=0)
    torch.testing.assert_close(terms.loss, -model.log_evidence(x, y, noise).expand(grid))
    torch.testing.assert_close(gradient(terms.loss.mean(), model), expected, rtol=1e-3, atol=1e-3)
    one = few(model, x, y, many[:, :1], epoch=0).loss.sum()
    assert (gradient(one, model) - expected).abs().max() > 0.01  # which a single draw has not


def test_resampled_indices_are_in_proportion_to_their_weights() -> None:
    weights, count, grid = torch.tensor([0.0, 0.5, 0.0, 0.37, 0.1, 0.03, 0.0]).double(), 7, 10_000
    uniform = (torch.arange(grid).double() + 0.5) / grid
    drawn = resample((weights.log() + 3).unsqueeze(-1).expand(-1, grid), uniform, count)
    assert drawn.shape == (count, grid)
    times = torch.stack([(drawn == k).sum(0) for k in range(len(weights))]).double()
    torch.testing.assert_close(times.mean(1), count * weights, rtol=0, atol=count / grid)
    assert ((times - count * weights.unsqueeze(-1)).abs() < 1).all()  # of one comb


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_resampling_never_gives_a_sample_of_no_weight(end: float) -> None:
    """In float32, with sums that are rounded, at the ends of what a uniform number may be."""
    torch.manual_seed(0)
    log_weights = torch.randn(50, 1000)
    log_weights[[0, -1]] = -math.inf
    for count in (1, 5):
        drawn = resample(log_weights, torch.full((1000,), end), count)
        assert drawn.min() >= 1
        assert drawn.max() <= 48


def test_samples_of_the_gradient_have_to_be_fewer_than_those_of_the_bound() -> None:
    with pytest.raises(UserError, match=r"num_backward=3 has to be below objective\.num_samples=3"):
        Iwae(3, num_backward=3)


def test_where_there_is_nothing_to_draw_all_samples_have_their_gradient() -> None:
    few, full = Iwae(3, warmup_epochs=1, num_backward=1), Iwae(3, warmup_epochs=1)
    assert [few.num_noise(epoch) for epoch in (0, 1)] == [(1, 0), (3, 1)]
    assert [full.num_noise(epoch) for epoch in (0, 1)] == [(1, 0), (3, 0)]
    model, (x, y, _), noise = network_model(), batch(), torch.randn(4, B, D)
    warming = [one(model, x, y, noise[:1], 0.0).loss.sum() for one in (few, full)]
    assert torch.equal(*(gradient(loss, model) for loss in warming))
    without_spare = [one(model, x, y, noise[:3], 1.0).loss.sum() for one in (few, full)]
    assert torch.equal(*(gradient(loss, model) for loss in without_spare))
    with torch.no_grad():  # as in validation
        assert torch.equal(few(model, x, y, noise[:3], 1).loss, full(model, x, y, noise, 1).loss)
    without_z = deterministic((X,), (Y,), MLP([16], "tanh"), fixed_prior, BernoulliHead())
    losses = [one(without_z, x, y, torch.randn(4, B, 0), 1).loss.sum() for one in (few, full)]
    assert torch.equal(*(gradient(loss, without_z) for loss in losses))


@pytest.mark.parametrize("cached", [True, False])
def test_the_few_samples_reach_the_weights_in_mixed_precision(cached: bool) -> None:
    """Weights that autocast has rounded without a gradient would come back without one."""
    model, (x, y, _) = network_model(), batch()
    noise = torch.randn(4, B, D)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=cached):
        loss = Iwae(3, num_backward=2)(model, x, y, noise, 0).loss.mean()
    exact = gradient(Iwae(3, num_backward=2)(model, x, y, noise, 0).loss.mean(), model)
    rounded = gradient(loss, model)
    # products of two layers, each rounded by 2^-8
    assert (rounded - exact).norm() < 4 * 2**-8 * exact.norm()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_the_few_samples_have_the_same_gradient_and_the_warm_up_too() -> None:
    model, (x, y, _) = network_model(), batch()
    objective = Iwae(5, warmup_epochs=1, num_backward=2)
    compiled = torch.compile(objective.__call__, backend="aot_eager")  # without a C++ compiler
    for epoch in (0.0, 1.0):
        noise = torch.randn(sum(objective.num_noise(epoch)), B, D)
        both = [one(model, x, y, noise, epoch).loss for one in (objective, compiled)]
        torch.testing.assert_close(both[1], both[0])
        torch.testing.assert_close(*(gradient(loss.sum(), model) for loss in both))


@pytest.mark.parametrize("prior", ["fixed", "learned"])
@torch.no_grad()
def test_the_bound_rises_with_k_from_the_elbo_to_the_evidence(prior: str) -> None:
    torch.manual_seed(0)
    model = linear_gaussian(prior)
    wrong = with_wrong_posterior(model)
    x, y = double(4, CONDITION), double(4, OBSERVED)
    copies = 1000
    many = x.repeat(copies, 1), y.repeat(copies, 1)
    truth = evidence(model, x, y).repeat(copies)
    gaps, errors = [], []
    for objective in (BetaElbo(), Iwae(5), Iwae(50)):
        noise = double(objective.num_samples, 4 * copies, LATENT)
        gap = truth - objective(wrong, *many, noise, 0).by_name()[objective.monitor]
        gaps.append(float(gap.mean()))
        errors.append(float(gap.std()) / gap.numel() ** 0.5)
    # each lies more than 4 standard errors below the next
    for gap, tighter, error in zip(gaps, [*gaps[1:], 0.0], errors, strict=True):
        assert gap - 4 * error > tighter

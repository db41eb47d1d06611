import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from cvae.densities import BernoulliHead, StandardNormal
from cvae.errors import UserError
from cvae.model import ConditionalVAE
from cvae.models import conditional_vae, deterministic, fixed_prior, learned_prior
from cvae.networks import MLP
from cvae.objectives import TERMS, BetaElbo, Hybrid, Iwae, Objective, resample
from cvae.wrappers import PriorAsPosterior
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

X, Y, D, B = 3, 6, 2, 8


class Constant(nn.Module):
    """The same Gaussian whatever is given; as a decoder, around the first elements of z."""

    def __init__(self, mean: list[float]) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean))

    def forward(self, x: Tensor, y: Tensor) -> Distribution:
        mean = self.mean.expand(len(x), -1)
        return Independent(Normal(mean, torch.ones_like(mean)), 1)


def network_model() -> ConditionalVAE:
    torch.manual_seed(0)
    return conditional_vae((X,), (Y,), MLP([16], "tanh"), learned_prior, BernoulliHead(), D)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(B, X), torch.rand(B, Y).round(), torch.randn(1, B, D)


def by_hand_model() -> ConditionalVAE:
    """KL per dimension of mean²/2: 0.02, 0.5 and 2 nats."""
    return ConditionalVAE(Constant([0.2, 1.0, -2.0]), StandardNormal(3), Constant([0.0]), 3)


def by_hand(objective: BetaElbo, model: ConditionalVAE, epoch: float = 0) -> Tensor:
    """The loss less its reconstruction term, which is what is known by hand."""
    x, y, noise = torch.zeros(2, 1), torch.ones(2, 1), torch.zeros(1, 2, 3)
    terms = objective(model, x, y, noise, epoch)
    return terms.loss + terms.elbo.reconstruction


def test_loss_at_beta_one_is_the_negative_elbo() -> None:
    terms = BetaElbo()(network_model(), *batch(), epoch=0)
    assert terms.loss.shape == (B,)
    torch.testing.assert_close(terms.loss, -terms.elbo.elbo)


def test_beta_weighs_the_kl_and_leaves_the_reported_elbo_alone() -> None:
    plain = BetaElbo()(network_model(), *batch(), epoch=0)
    weighted = BetaElbo(beta=4)(network_model(), *batch(), epoch=0)
    torch.testing.assert_close(weighted.loss - plain.loss, 3 * plain.elbo.kl)
    assert torch.equal(weighted.elbo.elbo, plain.elbo.elbo)


@pytest.mark.parametrize(
    ("epoch", "beta"), [(0, 0.0), (0.5, 0.25), (2, 1.0), (3.999, 1.9995), (4, 2.0), (100, 2.0)]
)
def test_beta_rises_linearly_over_the_warmup(epoch: float, beta: float) -> None:
    objective = BetaElbo(beta=2, warmup_epochs=4)
    assert objective.beta_at(epoch) == pytest.approx(beta, rel=1e-12)
    penalty = by_hand(objective, by_hand_model(), epoch)
    torch.testing.assert_close(penalty, torch.full((2,), beta * 2.52))


def test_without_a_warmup_beta_is_constant() -> None:
    assert [BetaElbo(beta=0.3).beta_at(epoch) for epoch in (0, 1, 7.5)] == [0.3] * 3


@pytest.mark.parametrize(
    ("free_bits", "penalty"), [(0.0, 2.52), (0.1, 2.6), (1.0, 4.0), (3.0, 9.0)]
)
def test_free_bits_by_hand(free_bits: float, penalty: float) -> None:
    loss = by_hand(BetaElbo(free_bits=free_bits), by_hand_model())
    torch.testing.assert_close(loss, torch.full((2,), penalty))
    halved = by_hand(BetaElbo(beta=0.5, free_bits=free_bits), by_hand_model())
    torch.testing.assert_close(halved, torch.full((2,), penalty / 2))


def test_dimensions_below_the_free_bits_get_no_gradient_from_the_kl() -> None:
    model = by_hand_model()
    by_hand(BetaElbo(free_bits=0.1), model).sum().backward()
    # of mean²/2 over two examples, where it exceeds λ
    torch.testing.assert_close(model.encoder.mean.grad, torch.tensor([0.0, 2.0, -4.0]))


def test_free_bits_hold_example_by_example() -> None:
    model = network_model()
    x, y, noise = batch()
    terms = BetaElbo()(model, x, y, noise, epoch=0)
    bits = float(terms.elbo.kl_per_dimension.detach().median())
    loss = BetaElbo(free_bits=bits)(model, x, y, noise, epoch=0).loss
    expected = terms.elbo.kl_per_dimension.clamp(min=bits).sum(-1) - terms.elbo.reconstruction
    torch.testing.assert_close(loss, expected)
    assert (loss > terms.loss).any()


@pytest.mark.parametrize("sizes", [[1] * B, [3, 5], [6, 1, 1]], ids=str)
def test_gradient_of_an_example_does_not_depend_on_how_the_batch_is_divided(
    sizes: list[int],
) -> None:
    """Which samples are drawn for it goes with the example."""
    model, (x, y, _), noise = network_model(), batch(), torch.randn(6, B, D)
    parts = zip(x.split(sizes), y.split(sizes), noise.split(sizes, dim=1), strict=True)
    objective = Iwae(5, num_backward=2)
    divided = torch.cat([objective(model, *part, epoch=1).loss for part in parts])
    whole = objective(model, x, y, noise, epoch=1).loss
    torch.testing.assert_close(
        gradient(divided.sum(), model), gradient(whole.sum(), model), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("sizes", [[1] * B, [3, 5], [6, 1, 1]], ids=str)
def test_loss_of_an_example_does_not_depend_on_how_the_batch_is_divided(sizes: list[int]) -> None:
    model, (x, y, noise) = network_model(), batch()
    objective = BetaElbo(beta=0.5, warmup_epochs=2, free_bits=0.05)
    parts = zip(x.split(sizes), y.split(sizes), noise.split(sizes, dim=1), strict=True)
    divided = torch.cat([objective(model, *part, epoch=1).loss for part in parts])
    # a batched product sums in another order; float32
    torch.testing.assert_close(
        divided, objective(model, x, y, noise, epoch=1).loss, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("balance", [0.0, 0.5, 0.8, 1.0])
def test_balancing_weighs_the_gradients_of_the_kl_and_leaves_its_value(balance: float) -> None:
    model, (x, y, noise) = network_model(), batch()
    plain = BetaElbo()(model, x, y, noise, epoch=0)
    balanced = BetaElbo(kl_balance=balance)(model, x, y, noise, epoch=0)
    bits = float(plain.elbo.kl_per_dimension.detach().median())
    costs = {"beta": 3.0, "free_bits": bits}  # which apply to its value
    other = (BetaElbo(**costs), BetaElbo(**costs, kl_balance=balance))
    assert torch.equal(*(one(model, x, y, noise, epoch=0).loss for one in other))
    assert torch.equal(balanced.loss, plain.loss)
    q, p = list(model.encoder.parameters()), list(model.prior.parameters())
    kl = torch.autograd.grad(plain.elbo.kl.sum(), [*q, *p], retain_graph=True)
    reconstruction = torch.autograd.grad(-plain.elbo.reconstruction.sum(), q)
    found = torch.autograd.grad(balanced.loss.sum(), [*q, *p])
    for grad, of_kl, of_reconstruction in zip(found, kl, reconstruction, strict=False):
        torch.testing.assert_close(grad, of_reconstruction + 2 * (1 - balance) * of_kl)
    for grad, of_kl in zip(found[len(q) :], kl[len(q) :], strict=True):
        torch.testing.assert_close(grad, 2 * balance * of_kl)
    assert max(grad.abs().max() for grad in kl[len(q) :]) > 0.01


def test_balancing_needs_a_prior_that_learns() -> None:
    x, y, noise = torch.zeros(2, 1), torch.ones(2, 1), torch.zeros(1, 2, 3)
    objective = BetaElbo(kl_balance=0.8)
    with pytest.raises(UserError, match="a model with a learned prior"):
        objective(by_hand_model(), x, y, noise, epoch=0)


def linear_model() -> ConditionalVAE:
    torch.manual_seed(0)
    return ConditionalVAE(LinearEncoder(), LogLinearPrior(), LinearDecoder(), LATENT)


def gradient(loss: Tensor, model: ConditionalVAE) -> Tensor:
    parts = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize(
    "objective",
    [BetaElbo(), BetaElbo(kl_balance=0.8), Iwae(3), Iwae(3, num_backward=1), Hybrid(0.3)],
    ids=["elbo", "balanced", "iwae", "iwae of one", "hybrid"],
)
def test_an_objective_gives_the_terms_it_names(objective: Objective) -> None:
    model, (x, y, _) = network_model(), batch()
    noise = torch.randn(objective.num_samples + objective.num_spare, B, D)
    terms = objective(model, x, y, noise, epoch=0)
    assert tuple(terms.by_name()) == objective.terms
    assert all(term.shape == (B,) for term in terms.by_name().values())
    assert objective.monitor in objective.terms
    # it grows as the loss falls, where nothing else is weighed
    torch.testing.assert_close(terms.by_name()[objective.monitor], -terms.loss)


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
    model, (x, y, _), noise = network_model(), batch(), torch.randn(4, B, D)
    assert objective.settings(epoch) == {"num_samples": samples}
    terms = objective(model, x, y, noise, epoch)
    torch.testing.assert_close(terms.loss, -model.log_evidence(x, y, noise[:samples]))
    torch.testing.assert_close(terms.elbo.elbo, model.elbo(x, y, noise[:samples]).elbo)


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
    assert (few.num_samples, few.num_spare, full.num_spare) == (3, 1, 0)
    model, (x, y, _), noise = network_model(), batch(), torch.randn(4, B, D)
    warming = [one(model, x, y, noise, 0.0).loss.sum() for one in (few, full)]  # with one sample
    assert torch.equal(*(gradient(loss, model) for loss in warming))
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


def test_the_hybrid_has_the_elbo_and_the_stochastic_network_at_its_ends() -> None:
    model, (x, y, _), noise = network_model(), batch(), torch.randn(2, B, D)
    cvae, stochastic, between = (Hybrid(a)(model, x, y, noise, 0) for a in (1.0, 0.0, 0.3))
    assert torch.equal(cvae.loss, BetaElbo()(model, x, y, noise[:1], 0).loss)
    # the stochastic network: the same prior and decoder, with the prior in the posterior's place
    gsnn = ConditionalVAE(PriorAsPosterior(model.prior), model.prior, model.decoder, D)
    torch.testing.assert_close(stochastic.loss, BetaElbo()(gsnn, x, y, noise[1:], 0).loss)
    torch.testing.assert_close(between.loss, 0.3 * cvae.loss + 0.7 * stochastic.loss)
    assert Hybrid(0.3).settings(1.0) == {}

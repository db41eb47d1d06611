import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from cvae.densities import StandardNormal
from cvae.errors import UserError
from cvae.model import ConditionalVAE
from cvae.objectives import BetaElbo, Hybrid, Iwae, Objective
from cvae.wrappers import PriorAsPosterior
from small_model import B, D, batch, gradient, network_model


class Constant(nn.Module):
    """The same Gaussian whatever is given; as a decoder, around the first elements of z."""

    def __init__(self, mean: list[float]) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean))

    def forward(self, x: Tensor, y: Tensor) -> Distribution:
        mean = self.mean.expand(len(x), -1)
        return Independent(Normal(mean, torch.ones_like(mean)), 1)


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
    with pytest.raises(UserError, match="or prior=learned where"):
        objective(by_hand_model(), x, y, noise, epoch=0)


@pytest.mark.parametrize(
    "objective",
    [BetaElbo(), BetaElbo(kl_balance=0.8), Iwae(3), Iwae(3, num_backward=1), Hybrid(0.3)],
    ids=["elbo", "balanced", "iwae", "iwae of one", "hybrid"],
)
def test_an_objective_gives_the_terms_it_names(objective: Objective) -> None:
    model, (x, y, _) = network_model(), batch()
    noise = torch.randn(sum(objective.num_noise(0)), B, D)
    terms = objective(model, x, y, noise, epoch=0)
    assert tuple(terms.by_name()) == objective.terms
    assert all(term.shape == (B,) for term in terms.by_name().values())
    assert objective.monitor in objective.terms
    # it grows as the loss falls, where nothing else is weighed
    torch.testing.assert_close(terms.by_name()[objective.monitor], -terms.loss)


def test_the_hybrid_has_the_elbo_and_the_stochastic_network_at_its_ends() -> None:
    model, (x, y, _), noise = network_model(), batch(), torch.randn(2, B, D)
    cvae, stochastic, between = (Hybrid(a)(model, x, y, noise, 0) for a in (1.0, 0.0, 0.3))
    assert torch.equal(cvae.loss, BetaElbo()(model, x, y, noise[:1], 0).loss)
    # the stochastic network: the same prior and decoder, with the prior in the posterior's place
    gsnn = ConditionalVAE(PriorAsPosterior(model.prior), model.prior, model.decoder, D)
    torch.testing.assert_close(stochastic.loss, BetaElbo()(gsnn, x, y, noise[1:], 0).loss)
    torch.testing.assert_close(between.loss, 0.3 * cvae.loss + 0.7 * stochastic.loss)
    assert Hybrid(0.3).settings(1.0) == {}

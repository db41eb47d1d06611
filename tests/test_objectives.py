import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from cvae.densities import BernoulliHead, StandardNormal
from cvae.model import ConditionalVAE
from cvae.models import conditional_vae, learned_prior
from cvae.networks import MLP
from cvae.objectives import BetaElbo

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
def test_loss_of_an_example_does_not_depend_on_how_the_batch_is_divided(sizes: list[int]) -> None:
    model, (x, y, noise) = network_model(), batch()
    objective = BetaElbo(beta=0.5, warmup_epochs=2, free_bits=0.05)
    parts = zip(x.split(sizes), y.split(sizes), noise.split(sizes, dim=1), strict=True)
    divided = torch.cat([objective(model, *part, epoch=1).loss for part in parts])
    # a batched product sums in another order; float32
    torch.testing.assert_close(
        divided, objective(model, x, y, noise, epoch=1).loss, rtol=1e-5, atol=1e-5
    )

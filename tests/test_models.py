from collections.abc import Callable
from itertools import product

import pytest
import torch

from cvae.densities import BernoulliHead, ContinuousBernoulliHead, GaussianHead, Head
from cvae.errors import UserError
from cvae.model import ConditionalVAE
from cvae.models import PriorFactory, conditional_vae, fixed_prior, learned_prior, vae
from cvae.networks import MLP, Conv

B, D = 4, 3
X_SHAPE, Y_SHAPE = (5,), (1, 8, 8)
MODELS: dict[str, Callable[..., ConditionalVAE]] = {"vae": vae, "conditional_vae": conditional_vae}
PRIORS: dict[str, PriorFactory] = {"fixed": fixed_prior, "learned": learned_prior}
HEADS: dict[str, Callable[[], Head]] = {
    "bernoulli": BernoulliHead,
    "continuous_bernoulli": ContinuousBernoulliHead,
    "gaussian": lambda: GaussianHead(min_scale=0.1, max_scale=1.0),
    "gaussian_fixed": lambda: GaussianHead(scale=0.5),
}
NETWORKS = {"mlp": MLP([16, 8], "tanh"), "conv": Conv([4, 6], [16], "silu")}


COMBINATIONS = [
    choice
    for choice in product(MODELS, PRIORS, HEADS, NETWORKS)
    if choice[:2] != ("vae", "learned")
]


@pytest.mark.parametrize(("name", "prior", "head", "network"), COMBINATIONS)
def test_every_composition_has_a_finite_elbo_and_trains_every_parameter(
    name: str, prior: str, head: str, network: str
) -> None:
    torch.manual_seed(0)
    likelihood = HEADS[head]()
    model = MODELS[name](X_SHAPE, Y_SHAPE, NETWORKS[network], PRIORS[prior], likelihood, D)
    x, y = torch.randn(B, *X_SHAPE), torch.rand(B, *Y_SHAPE)
    terms = model.elbo(x, y.round() if likelihood.binary else y, torch.randn(2, B, D))

    assert terms.z.shape == (2, B, D)
    assert terms.log_likelihood.shape == terms.log_weights.shape == (2, B)
    for term in (terms.reconstruction, terms.kl, terms.elbo):
        assert term.shape == (B,)
        assert term.isfinite().all()
    assert terms.kl_per_dimension.shape == (B, D)
    assert (terms.kl_per_dimension >= 0).all()

    (-terms.elbo.mean()).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name

    assert model.sample(x, torch.randn(2, B, D)).mean.shape == (2, B, *Y_SHAPE)


@pytest.mark.parametrize("network", NETWORKS)
def test_vae_refuses_a_prior_of_the_condition_it_ignores(network: str) -> None:
    with pytest.raises(UserError, match="prior=learned"):
        vae(X_SHAPE, Y_SHAPE, NETWORKS[network], learned_prior, BernoulliHead(), D)


def test_the_two_priors_differ_in_the_prior_alone() -> None:
    fixed, learned = (
        conditional_vae(X_SHAPE, Y_SHAPE, NETWORKS["mlp"], prior, BernoulliHead(), D)
        for prior in (fixed_prior, learned_prior)
    )

    def shapes(model: ConditionalVAE) -> dict[str, torch.Size]:
        return {name: weight.shape for name, weight in model.state_dict().items()}

    extra = shapes(learned).items() - shapes(fixed).items()
    assert shapes(fixed).items() < shapes(learned).items()
    assert all(name.startswith("prior.") for name, _ in extra)

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch.distributions import Distribution

from cvae.densities import BernoulliHead, ContinuousBernoulliHead, GaussianHead, Head
from cvae.errors import UserError
from cvae.model import ConditionalVAE
from cvae.models import (
    PriorFactory,
    conditional_vae,
    deterministic,
    fixed_prior,
    gsnn,
    learned_prior,
    vae,
)
from cvae.networks import MLP, Conv, UNet

B, D = 4, 3
X_SHAPE, IMAGE, Y_SHAPE = (5,), (2, 8, 8), (1, 8, 8)
MODELS: dict[str, Callable[..., ConditionalVAE]] = {
    "vae": vae,
    "conditional_vae": conditional_vae,
    "guess": partial(conditional_vae, guess=True),
    "gsnn": gsnn,
    "deterministic": lambda *arguments: deterministic(*arguments[:-1]),
}
PRIORS: dict[str, PriorFactory] = {"fixed": fixed_prior, "learned": learned_prior}
HEADS: dict[str, Callable[[], Head]] = {
    "bernoulli": BernoulliHead,
    "continuous_bernoulli": ContinuousBernoulliHead,
    "gaussian": lambda: GaussianHead(min_scale=0.1, max_scale=1.0),
    "gaussian_fixed": lambda: GaussianHead(scale=0.5),
}
NETWORKS = {
    "mlp": MLP([16, 8], "tanh"),
    "conv": Conv([4, 6], [16], "silu"),
    "unet": UNet([6, 8, 10], [16], "silu"),
}
X_SHAPES = {"mlp": X_SHAPE, "conv": X_SHAPE, "unet": IMAGE}


COMBINATIONS = [
    choice
    for choice in product(MODELS, PRIORS, HEADS, NETWORKS)
    if choice[:2] not in (("vae", "learned"), ("deterministic", "learned"))
    if (choice[0], choice[3]) != ("vae", "unet")
]


@pytest.mark.parametrize(("name", "prior", "head", "network"), COMBINATIONS)
def test_every_composition_has_a_finite_elbo_and_trains_every_parameter(
    name: str, prior: str, head: str, network: str
) -> None:
    torch.manual_seed(0)
    likelihood = HEADS[head]()
    x_shape = X_SHAPES[network]
    model = MODELS[name](x_shape, Y_SHAPE, NETWORKS[network], PRIORS[prior], likelihood, D)
    x, y = torch.randn(B, *x_shape), torch.rand(B, *Y_SHAPE)
    y = y.round() if likelihood.binary else y
    terms = model.elbo(x, y, torch.randn(2, B, model.latent_dim))

    d = model.latent_dim
    assert d == (0 if name == "deterministic" else D)
    assert terms.z.shape == (2, B, d)
    assert terms.log_likelihood.shape == terms.log_weights.shape == (2, B)
    for term in (terms.reconstruction, terms.kl, terms.elbo):
        assert term.shape == (B,)
        assert term.isfinite().all()
    assert terms.kl_per_dimension.shape == (B, d)
    assert (terms.kl_per_dimension >= 0).all()

    (-terms.elbo.mean()).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name

    assert model.sample(x, torch.randn(2, B, d)).mean.shape == (2, B, *Y_SHAPE)


def test_a_model_that_ignores_z_has_the_likelihood_of_the_deterministic_one() -> None:
    x, y = torch.randn(B, *X_SHAPE), torch.rand(B, *Y_SHAPE).round()
    shapes = X_SHAPE, Y_SHAPE, NETWORKS["mlp"]
    plain = deterministic(*shapes, fixed_prior, BernoulliHead())
    model = conditional_vae(*shapes, learned_prior, BernoulliHead(), D)
    weights = plain.decoder.density.state_dict()
    model.decoder.load_state_dict({**weights, "network.first.weights.1": torch.zeros(8, D)})
    terms, expected = model.elbo(x, y), plain.elbo(x, y)
    torch.testing.assert_close(terms.reconstruction, expected.elbo)
    torch.testing.assert_close(model.sample(x).log_prob(y), expected.elbo)
    # p(y|x) has no bound to be lower than: any number of weights gives it
    assert torch.equal(expected.kl, torch.zeros(B))
    evidence = plain.log_evidence(x, y, torch.randn(5, B, 0))
    torch.testing.assert_close(evidence, expected.elbo)


@pytest.mark.parametrize("guess", [False, True])
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("network", NETWORKS)
def test_x_reaches_prior_posterior_and_decoder(network: str, prior: str, guess: bool) -> None:
    torch.manual_seed(0)
    x_shape, likelihood = X_SHAPES[network], BernoulliHead()
    model = conditional_vae(
        x_shape, Y_SHAPE, NETWORKS[network], PRIORS[prior], likelihood, D, guess
    )
    x, other = torch.randn(2, B, *x_shape)
    y, another = torch.rand(2, B, *Y_SHAPE)
    z, third = torch.randn(2, B, D)

    def differ(first: Distribution, second: Distribution) -> bool:
        return bool((first.mean != second.mean).flatten(1).any(1).all())

    assert differ(model.prior(x), model.prior(other)) == (prior == "learned")
    assert differ(model.encoder(x, y), model.encoder(other, y))
    assert differ(model.encoder(x, y), model.encoder(x, another))
    assert differ(model.decoder(x, z), model.decoder(other, z))
    assert differ(model.decoder(x, z), model.decoder(x, third))


def test_prior_and_posterior_see_one_guess_of_y_and_the_decoder_sees_none() -> None:
    torch.manual_seed(0)
    arguments = X_SHAPE, Y_SHAPE, NETWORKS["mlp"], learned_prior, BernoulliHead(), D
    model = conditional_vae(*arguments, guess=True)
    assert model.prior.guess is model.encoder.guess
    x, y, z = torch.randn(B, *X_SHAPE), torch.rand(B, *Y_SHAPE), torch.randn(B, D)
    before = [p.mean for p in (model.prior(x), model.encoder(x, y), model.decoder(x, z))]
    model.prior.guess.start_at(torch.rand(Y_SHAPE))  # another guess
    after = [p.mean for p in (model.prior(x), model.encoder(x, y), model.decoder(x, z))]
    prior, posterior, decoder = map(torch.equal, before, after)
    assert (prior, posterior, decoder) == (False, False, True)


@pytest.mark.parametrize("composition", [vae, conditional_vae, deterministic])
def test_a_decoder_starts_at_the_mean_of_the_data(composition: Any) -> None:
    size = {} if composition is deterministic else {"latent_dim": D}
    arguments = X_SHAPE, Y_SHAPE, NETWORKS["mlp"], fixed_prior, BernoulliHead()
    model, mean = composition(*arguments, **size), torch.rand(Y_SHAPE)
    for name, weights in model.named_parameters():
        if "weight" in name:
            torch.nn.init.zeros_(weights)  # so that only biases are left
    model.decoder.start_at(mean)
    drawn = model.sample(torch.randn(B, *X_SHAPE)).mean
    torch.testing.assert_close(drawn, mean.clamp(1e-3, 1 - 1e-3).expand(B, *Y_SHAPE))


def test_the_stochastic_network_has_no_posterior_but_its_prior() -> None:
    model = gsnn(X_SHAPE, Y_SHAPE, NETWORKS["mlp"], learned_prior, BernoulliHead(), D)
    x, y, noise = torch.randn(B, *X_SHAPE), torch.rand(B, *Y_SHAPE).round(), torch.randn(7, B, D)
    terms = model.elbo(x, y, noise)
    assert torch.equal(terms.kl, torch.zeros(B))
    assert torch.equal(terms.log_likelihood, model.sample(x, noise).log_prob(y))
    torch.testing.assert_close(terms.log_weights, terms.log_likelihood)


def test_the_deterministic_network_refuses_a_prior_of_the_condition() -> None:
    with pytest.raises(UserError, match="use prior=fixed"):
        deterministic(X_SHAPE, Y_SHAPE, NETWORKS["mlp"], learned_prior, BernoulliHead())


def test_vae_refuses_a_prior_of_the_condition_it_ignores() -> None:
    with pytest.raises(UserError, match="use prior=fixed, or model=cvae_learned_prior"):
        vae(X_SHAPE, Y_SHAPE, NETWORKS["mlp"], learned_prior, BernoulliHead(), D)


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

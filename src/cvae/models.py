"""The compositions: which densities make which model, all on one screen.

| model                | q        | prior    | decoder  |
|----------------------|----------|----------|----------|
| `vae`                | q(z|y)   | N(0, I)  | p(y|z)   |
| `cvae_fixed_prior`   | q(z|x,y) | N(0, I)  | p(y|x,z) |
| `cvae_learned_prior` | q(z|x,y) | p(z|x)   | p(y|x,z) |
| `gsnn`               | p(z|x)   | p(z|x)   | p(y|x,z) |
| `deterministic`      | no z     | no z     | p(y|x)   |

The two conditional models are one composition with two priors; `probabilistic_unet` is the second
of them over `network=unet` (Kohl et al. 2018, arXiv:1806.05034). Sohn et al.'s Gaussian stochastic
network (`gsnn`) draws z from its prior in training as well, and the deterministic network has a z
of no dimension.
"""

from typing import Protocol

from torch import nn

from cvae.densities import (
    ConditionalDensity,
    GaussianHead,
    Head,
    MixtureDensity,
    StandardNormal,
)
from cvae.errors import UserError
from cvae.model import ConditionalVAE
from cvae.networks import Networks, Shape
from cvae.ranges import Size, Text
from cvae.wrappers import PriorAsPosterior, Unconditional, WithGuess, WithoutLatent


class PriorFactory(Protocol):
    """Makes p(z|x) from the shapes of what is given and the size of z."""

    def __call__(self, given: list[Shape], latent_dim: int, networks: Networks) -> nn.Module: ...


def fixed_prior(given: list[Shape], latent_dim: int, networks: Networks) -> nn.Module:
    """p(z|x) = N(0, I)."""
    return StandardNormal(latent_dim)


def learned_prior(given: list[Shape], latent_dim: int, networks: Networks) -> nn.Module:
    """p(z|x) = N(μ(x), diag σ²(x)), a network of the condition (Sohn et al. 2015, section 4)."""
    return _gaussian(given, latent_dim, networks)


def mixture_prior(
    given: list[Shape], latent_dim: int, networks: Networks, components: Size = 4
) -> nn.Module:
    """p(z|x) = Σ_m π_m(x) N(μ_m(x), diag σ_m²(x)), a network of the condition (Bishop 1994)."""
    network = networks.encoder(given, (components, 2 * latent_dim + 1))
    return MixtureDensity(network, components, latent_dim)


def conditional_vae(
    x_shape: Shape,
    y_shape: Shape,
    networks: Networks,
    prior: PriorFactory,
    likelihood: Head,
    latent_dim: Size,
    guess: bool | Text = False,
) -> ConditionalVAE:
    """q(z|x,y), the given prior, p(y|x,z).

    With a guess, q(z|x,ŷ,y) and p(z|x,ŷ), where ŷ is the mean of a network p(y|x). It learns from
    the loss of the others, or, where the guess names a folder, is the network that was trained
    there and stays as it is.
    """
    given = [x_shape, y_shape] if guess else [x_shape]
    encoder: nn.Module = _gaussian([*given, y_shape], latent_dim, networks)
    density = prior(given, latent_dim, networks)
    if guess:
        first = _likelihood([x_shape], y_shape, networks, likelihood)
        first.requires_grad_(guess is True)
        encoder, density = WithGuess(first, encoder), WithGuess(first, density)
    return ConditionalVAE(
        encoder=encoder,
        prior=density,
        decoder=_likelihood([x_shape, (latent_dim,)], y_shape, networks, likelihood),
        latent_dim=latent_dim,
    )


def gsnn(
    x_shape: Shape,
    y_shape: Shape,
    networks: Networks,
    prior: PriorFactory,
    likelihood: Head,
    latent_dim: Size,
) -> ConditionalVAE:
    """The given prior as both q(z|x,y) and p(z|x), p(y|x,z) (Sohn et al. 2015, section 4.2).

    Raises:
        UserError: the prior is a mixture, through whose z the gradients have no bound.
    """
    density = prior([x_shape], latent_dim, networks)
    if isinstance(density, MixtureDensity):
        raise UserError("model=gsnn learns through z of its prior: use prior=learned")
    return ConditionalVAE(
        encoder=PriorAsPosterior(density),
        prior=density,
        decoder=_likelihood([x_shape, (latent_dim,)], y_shape, networks, likelihood),
        latent_dim=latent_dim,
    )


def deterministic(
    x_shape: Shape, y_shape: Shape, networks: Networks, prior: PriorFactory, likelihood: Head
) -> ConditionalVAE:
    """p(y|x), a network without z: its ELBO is log p(y|x) itself.

    Raises:
        UserError: the prior is a network of x.
    """
    _not_learned(prior([x_shape], 1, networks), "model=deterministic has no z")
    nothing = StandardNormal(0)
    return ConditionalVAE(
        encoder=PriorAsPosterior(nothing),
        prior=nothing,
        decoder=WithoutLatent(_likelihood([x_shape], y_shape, networks, likelihood)),
        latent_dim=0,
    )


def vae(
    x_shape: Shape,
    y_shape: Shape,
    networks: Networks,
    prior: PriorFactory,
    likelihood: Head,
    latent_dim: Size,
) -> ConditionalVAE:
    """q(z|y), N(0, I), p(y|z): the condition is ignored.

    Raises:
        UserError: the prior is a network of x.
    """
    density = prior([x_shape], latent_dim, networks)
    _not_learned(density, "model=vae ignores x")
    return ConditionalVAE(
        encoder=Unconditional(_gaussian([y_shape], latent_dim, networks)),
        prior=density,
        decoder=Unconditional(_likelihood([(latent_dim,)], y_shape, networks, likelihood)),
        latent_dim=latent_dim,
    )


def _not_learned(prior: nn.Module, reason: str) -> None:
    if not isinstance(prior, StandardNormal):
        raise UserError(
            f"{reason}, so it has no p(z|x) to learn: use prior=fixed, or model=cvae_learned_prior"
        )


def _gaussian(given: list[Shape], latent_dim: int, networks: Networks) -> ConditionalDensity:
    head = GaussianHead()
    return ConditionalDensity(networks.encoder(given, (head.num_parameters, latent_dim)), head, 1)


def _likelihood(
    given: list[Shape], y_shape: Shape, networks: Networks, head: Head
) -> ConditionalDensity:
    network = networks.decoder(given, (head.num_parameters, *y_shape))
    return ConditionalDensity(network, head, len(y_shape))

"""The compositions: which densities make which model, all on one screen.

| model                | q        | prior    | decoder  |
|----------------------|----------|----------|----------|
| `vae`                | q(z|y)   | N(0, I)  | p(y|z)   |
| `cvae_fixed_prior`   | q(z|x,y) | N(0, I)  | p(y|x,z) |
| `cvae_learned_prior` | q(z|x,y) | p(z|x)   | p(y|x,z) |

The two conditional models are one composition with two priors.
"""

from typing import Protocol

from torch import nn

from cvae.densities import ConditionalDensity, GaussianHead, Head, StandardNormal, Unconditional
from cvae.errors import UserError
from cvae.model import ConditionalVAE
from cvae.networks import Networks, Shape
from cvae.ranges import Size


class PriorFactory(Protocol):
    """Makes p(z|x), once the shape of x and the size of z are known."""

    def __call__(self, x_shape: Shape, latent_dim: int, networks: Networks) -> nn.Module: ...


def fixed_prior(x_shape: Shape, latent_dim: int, networks: Networks) -> nn.Module:
    """p(z|x) = N(0, I)."""
    return StandardNormal(latent_dim)


def learned_prior(x_shape: Shape, latent_dim: int, networks: Networks) -> nn.Module:
    """p(z|x) = N(μ(x), diag σ²(x)), a network of the condition (Sohn et al. 2015, section 4)."""
    return _gaussian([x_shape], latent_dim, networks)


def conditional_vae(
    x_shape: Shape,
    y_shape: Shape,
    networks: Networks,
    prior: PriorFactory,
    likelihood: Head,
    latent_dim: Size,
) -> ConditionalVAE:
    """q(z|x,y), the given prior, p(y|x,z)."""
    return ConditionalVAE(
        encoder=_gaussian([x_shape, y_shape], latent_dim, networks),
        prior=prior(x_shape, latent_dim, networks),
        decoder=_likelihood([x_shape, (latent_dim,)], y_shape, networks, likelihood),
        latent_dim=latent_dim,
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
    density = prior(x_shape, latent_dim, networks)
    if not isinstance(density, StandardNormal):
        raise UserError(
            "model=vae ignores the condition, so it has no p(z|x) to learn: leave out "
            "prior=learned, or use model=cvae_learned_prior"
        )
    return ConditionalVAE(
        encoder=Unconditional(_gaussian([y_shape], latent_dim, networks)),
        prior=density,
        decoder=Unconditional(_likelihood([(latent_dim,)], y_shape, networks, likelihood)),
        latent_dim=latent_dim,
    )


def _gaussian(given: list[Shape], latent_dim: int, networks: Networks) -> ConditionalDensity:
    head = GaussianHead()
    return ConditionalDensity(networks.encoder(given, (head.num_parameters, latent_dim)), head, 1)


def _likelihood(
    given: list[Shape], y_shape: Shape, networks: Networks, head: Head
) -> ConditionalDensity:
    network = networks.decoder(given, (head.num_parameters, *y_shape))
    return ConditionalDensity(network, head, len(y_shape))

"""What is done with the densities of z: z from noise, and the KL of each dimension."""

from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from cvae.errors import UserError
from cvae.mixtures import GaussianMixture


def diagonal(density: Distribution) -> Normal:
    """The Gaussians of z's dimensions, (B, d), of a density that is their product.

    Raises:
        UserError: the density is another, as a mixture is, or one of the user's own may be.
    """
    if (found := _gaussians(density)) is None:
        name = type(density).__name__
        if isinstance(density, Independent):
            name = f"{name}({type(density.base_dist).__name__})"
        raise UserError(
            f"{name} is no density of z: the encoder's has to be Independent(Normal), the prior's "
            "that or a GaussianMixture"
        )
    return found


def reparameterize(density: Distribution, noise: Tensor) -> Tensor:
    """z = mean + standard deviation · ε, for standard-normal ε of (…, B, d).

    Of a mixture, which has no such form, `GaussianMixture.transport`.
    Source: Kingma and Welling 2014, arXiv:1312.6114, section 2.4.

    Args:
        density: a diagonal Gaussian or a mixture of them.
        noise: ε.

    Raises:
        UserError: the density is another.
    """
    if isinstance(density, GaussianMixture):
        return density.transport(noise)
    gaussian = diagonal(density)
    return gaussian.loc + gaussian.scale * noise


def kl_per_dimension(posterior: Distribution, prior: Distribution, z: Tensor) -> Tensor:
    """KL(q ‖ p) of each latent dimension, (B, d), nats, all of them adding up to that of z.

    In closed form, and never negative, between diagonal Gaussians. With a mixture there is none:
    the mean over the samples of log q(z_d|z_<d) − log p(z_d|z_<d), right on average. Then the
    order of the dimensions counts: the first ones pay for the choice of the component.

    Args:
        posterior: q, a batch of B.
        prior: p, a batch of B.
        z: drawn from q, (…, B, d), for the case without closed form.

    Raises:
        UserError: one of the two is neither a diagonal Gaussian nor a mixture.
    """
    q, p = _gaussians(posterior), _gaussians(prior)
    if q is not None and p is not None:
        return kl_divergence(q, p)
    ratios = _log_prob_per_dimension(posterior, z) - _log_prob_per_dimension(prior, z)
    return ratios.flatten(0, -3).mean(0) if ratios.dim() > 2 else ratios


def components(density: Distribution) -> tuple[Tensor, Tensor, Tensor]:
    """Means and scales, (B, M, d) each, and log-weights, (B, M); of a Gaussian those of its own.

    Raises:
        UserError: the density is neither a diagonal Gaussian nor a mixture.
    """
    if isinstance(density, GaussianMixture):
        return density.normal.loc, density.normal.scale, density.log_weights
    normal = diagonal(density)
    mean, scale = (number.unsqueeze(1) for number in (normal.loc, normal.scale))
    return mean, scale, mean.new_zeros(mean.shape[:2])


def nearest(density: Distribution, z: Tensor) -> Normal:
    """The Gaussian, (B, d), of a mixture that z of (B, d) is likeliest of; of a Gaussian its own.

    Raises:
        UserError: the density is neither a diagonal Gaussian nor a mixture.
    """
    return density.nearest(z) if isinstance(density, GaussianMixture) else diagonal(density)


def _gaussians(density: Distribution) -> Normal | None:
    if isinstance(density, Independent) and isinstance(density.base_dist, Normal):
        return density.base_dist
    return None


def _log_prob_per_dimension(density: Distribution, z: Tensor) -> Tensor:
    """log p(z_d | z_<d), (…, B, d)."""
    if isinstance(density, GaussianMixture):
        return density.log_prob_per_dimension(z)
    return diagonal(density).log_prob(z)

"""A conditional variational autoencoder over any composition of three densities."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from cvae.latent import kl_per_dimension, reparameterize
from cvae.wrappers import Unconditional, WithGuess


@dataclass(frozen=True)
class Elbo:
    """One pass through a model, and the terms of its evidence lower bound, in nats an example.

    Attributes:
        elbo: reconstruction − kl, always with β = 1, (B,).
        reconstruction: E_q[log p(y|x,z)], estimated by the mean over the samples, (B,).
        kl: KL(q(z|x,y) ‖ p(z|x)), (B,).
        kl_per_dimension: KL(q(z_d|x,y) ‖ p(z_d|x)), (B, d), in closed form and never negative; with
            a mixture for a prior estimated from z, dimension after dimension.
        log_likelihood: log p(y|x,z), (…, B).
        z: drawn from q(z|x,y), (…, B, d).
        posterior: q(z|x,y), a batch of B.
        prior: p(z|x), a batch of B.
    """

    elbo: Tensor
    reconstruction: Tensor
    kl: Tensor
    kl_per_dimension: Tensor
    log_likelihood: Tensor
    z: Tensor
    posterior: Distribution
    prior: Distribution

    @property
    def log_weights(self) -> Tensor:
        """log w = log p(y|x,z) + log p(z|x) − log q(z|x,y), (…, B).

        Source: Burda et al. 2016, arXiv:1509.00519, eq. 8, with the model's own prior.
        """
        return self.log_likelihood + self.prior.log_prob(self.z) - self.posterior.log_prob(self.z)

    @property
    def importance_bound(self) -> Tensor:
        """log 1/K Σ_k w_k for z of (K, B, d), (B,), nats.

        A lower bound of log p(y|x) in expectation, that rises with K to it.
        Source: Burda et al. 2016, arXiv:1509.00519, eq. 8.
        """
        return self.log_weights.logsumexp(0) - math.log(len(self.z))


class ConditionalVAE(nn.Module):
    """p(y|x) = ∫ p(y|x,z) p(z|x) dz with approximate posterior q(z|x,y); keeps no state.

    Every density is a module that returns a `torch.distributions.Distribution`. The plain VAE is
    the composition whose densities ignore x.

    Args:
        encoder: q(z|x,y), called as encoder(x, y).
        prior: p(z|x), called as prior(x).
        decoder: p(y|x,z), called as decoder(x, z) with z of (…, B, d).
        latent_dim: d.
    """

    def __init__(
        self, encoder: nn.Module, prior: nn.Module, decoder: nn.Module, latent_dim: int
    ) -> None:
        super().__init__()
        self.encoder, self.prior, self.decoder = encoder, prior, decoder
        self.latent_dim = latent_dim

    @property
    def conditional(self) -> bool:
        """Whether p(y|x,z) sees x."""
        return not isinstance(self.decoder, Unconditional)

    @property
    def first_guess(self) -> nn.Module | None:
        """p(y|x), whose mean ŷ the prior is given besides x; None if there is none."""
        return self.prior.guess if isinstance(self.prior, WithGuess) else None

    def elbo(self, x: Tensor, y: Tensor, noise: Tensor | None = None) -> Elbo:
        """E_q[log p(y|x,z)] − KL(q(z|x,y) ‖ p(z|x)), the first term estimated with the noise.

        Source: Sohn et al. 2015, eq. 4; with a fixed prior and no x, Kingma and Welling 2014,
        eq. 3.

        Args:
            x: the condition, (B, …).
            y: what is modelled, (B, …).
            noise: standard-normal ε, (…, B, d): leading dimensions are samples; drawn if absent.
        """
        posterior, prior = self.encoder(x, y), self.prior(x)
        z = self._latent(posterior, noise)
        log_likelihood = self.decoder(x, z).log_prob(y)
        reconstruction = log_likelihood.reshape(-1, log_likelihood.shape[-1]).mean(0)
        per_dimension = kl_per_dimension(posterior, prior, z)
        kl = per_dimension.sum(-1)
        return Elbo(
            elbo=reconstruction - kl,
            reconstruction=reconstruction,
            kl=kl,
            kl_per_dimension=per_dimension,
            log_likelihood=log_likelihood,
            z=z,
            posterior=posterior,
            prior=prior,
        )

    def log_evidence(self, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """log p(y|x) by importance sampling from q, (B,), nats: `Elbo.importance_bound`.

        Args:
            x: the condition, (B, …).
            y: what is modelled, (B, …).
            noise: standard-normal ε, (K, B, d).
        """
        return self.elbo(x, y, noise).importance_bound

    def sample(self, x: Tensor, noise: Tensor | None = None) -> Distribution:
        """p(y|x,z) for z from the prior p(z|x): its mean is the picture that is usually shown.

        Args:
            x: the condition, (B, …).
            noise: standard-normal ε, (…, B, d); drawn if absent.
        """
        return self.decoder(x, self._latent(self.prior(x), noise))

    @staticmethod
    def _latent(density: Distribution, noise: Tensor | None) -> Tensor:
        return reparameterize(density, torch.randn_like(density.mean) if noise is None else noise)

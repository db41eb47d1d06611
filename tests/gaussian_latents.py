"""What tests say about q(z|x,y) and p(z|x) where both are diagonal Gaussians."""

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from cvae.evaluation.latents import Latents


def gaussian_latents(
    posterior_mean: Tensor, posterior_scale: Tensor, prior_mean: Tensor, prior_scale: Tensor
) -> Latents:
    """Means and scales, (N, d) each, with the KL that they have."""
    kl = kl_divergence(Normal(posterior_mean, posterior_scale), Normal(prior_mean, prior_scale))
    prior = prior_mean.unsqueeze(1), prior_scale.unsqueeze(1), torch.zeros(len(prior_mean), 1)
    return Latents(posterior_mean, posterior_scale, *prior, kl)

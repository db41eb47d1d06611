"""A small network with a learned prior, a batch for it, and gradients as one vector."""

import torch
from torch import Tensor

from cvae.densities import BernoulliHead
from cvae.model import ConditionalVAE
from cvae.models import conditional_vae, learned_prior
from cvae.networks import MLP

X, Y, D, B = 3, 6, 2, 8


def network_model() -> ConditionalVAE:
    torch.manual_seed(0)
    return conditional_vae((X,), (Y,), MLP([16], "tanh"), learned_prior, BernoulliHead(), D)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(B, X), torch.rand(B, Y).round(), torch.randn(1, B, D)


def gradient(loss: Tensor, model: ConditionalVAE) -> Tensor:
    parts = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([part.flatten() for part in parts])

"""What a family of networks is, and what all of them are made with."""

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

Shape = Sequence[int]
Activation = Literal["relu", "silu", "gelu", "tanh"]


class Tanh(nn.Module):
    """tanh(a) = 1 − 2σ(−2a), which torch computes five times as fast as its tanh on a CPU.

    Elsewhere it is torch's own: in half precision the difference would lose small numbers.
    """

    def forward(self, activations: Tensor) -> Tensor:
        if activations.device.type != "cpu" or activations.dtype != torch.float32:
            return activations.tanh()
        return torch.rsub((-2 * activations).sigmoid_(), 1, alpha=2)


ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU, "tanh": Tanh}


class Drawing(Protocol):
    """What a decoder's network can do besides drawing."""

    def start_at(self, output: Tensor) -> None:
        """Put the last layer's bias where the network draws about this, before it is trained."""
        ...


class Networks(Protocol):
    """A family of networks: what a composition asks for when it builds its densities.

    A decoder's network is a `Drawing` too.
    """

    def encoder(self, inputs: Sequence[Shape], output: Shape) -> nn.Module:
        """A network from tensors (…, *inputs[i]) to a few numbers (…, *output)."""
        ...

    def decoder(self, inputs: Sequence[Shape], output: Shape) -> nn.Module:
        """A network from tensors (…, *inputs[i]) to an output of the data's shape."""
        ...


def over_leading(module: nn.Module, tensor: Tensor, ndim: int) -> Tensor:
    """Apply a module that takes one leading dimension to a tensor with any number of them."""
    leading = tensor.shape[:-ndim]
    return module(tensor.reshape(-1, *tensor.shape[-ndim:])).unflatten(0, leading)

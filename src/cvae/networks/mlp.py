"""Fully connected networks."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvae.networks.family import ACTIVATIONS, Activation, Shape
from cvae.ranges import Sizes


class JointLinear(nn.Module):
    """A linear layer on the concatenation of its inputs, without concatenating them.

    W [a; b] + c = W_a a + W_b b + c, so that each part is computed at its own leading shape and
    only the sums broadcast: (…, size_i) for each input to (…, out_features).
    """

    def __init__(self, sizes: Sequence[int], out_features: int) -> None:
        super().__init__()
        self.in_features = sum(sizes)
        joint = nn.Linear(self.in_features, out_features)  # draws the weights of all inputs
        parts = joint.weight.detach().split(list(sizes), dim=1)
        # not views of one weight: the gradient of a split is a copy of the whole, every step
        self.weights = nn.ParameterList([nn.Parameter(part.contiguous()) for part in parts])
        self.bias = joint.bias

    def forward(self, *inputs: Tensor) -> Tensor:
        first, *others = self.weights
        output = F.linear(inputs[0], first, self.bias)
        for tensor, weight in zip(inputs[1:], others, strict=True):
            output = output + F.linear(tensor, weight)
        return output


class Dense(nn.Module):
    """Flattened inputs → joint linear layer → hidden layers → (…, *output)."""

    def __init__(
        self, inputs: Sequence[Shape], output: Shape, hidden: Sequence[int], activation: Activation
    ) -> None:
        super().__init__()
        self.ndims, self.output = [len(shape) for shape in inputs], tuple(output)
        widths = [*hidden, prod(output)]
        self.first = JointLinear([prod(shape) for shape in inputs], widths[0])
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [ACTIVATIONS[activation](), nn.Linear(width, following)]
        self.rest = nn.Sequential(*layers)

    def forward(self, *inputs: Tensor) -> Tensor:
        flat = (tensor.flatten(-ndim) for tensor, ndim in zip(inputs, self.ndims, strict=True))
        return self.rest(self.first(*flat)).unflatten(-1, self.output)

    @torch.no_grad()
    def start_at(self, output: Tensor) -> None:
        """Put the last layer's bias at an output."""
        *_, last = self.parameters()  # the bias of the last layer
        last.copy_(output.flatten())


class MLP:
    """The articles' network: fully connected layers, 784-512-512 by default.

    Args:
        hidden: widths of the hidden layers.
        activation: relu, silu, gelu or tanh.
    """

    def __init__(self, hidden: Sizes, activation: Activation) -> None:
        self.hidden, self.activation = list(hidden), activation

    def encoder(self, inputs: Sequence[Shape], output: Shape) -> nn.Module:
        """A network from tensors (…, *inputs[i]) to (…, *output)."""
        return Dense(inputs, output, self.hidden, self.activation)

    def decoder(self, inputs: Sequence[Shape], output: Shape) -> nn.Module:
        """The mirror image: the same kind of network, its widths reversed."""
        return Dense(inputs, output, self.hidden[::-1], self.activation)

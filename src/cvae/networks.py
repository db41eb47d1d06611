"""Networks that compute the parameters of densities, over any mix of vectors and images.

A family (`MLP`, `Conv`) knows its sizes and makes two kinds of network: an `encoder`, which reads
its inputs into a few numbers, and a `decoder`, which draws an output of the data's shape. Inputs
may have leading dimensions that broadcast against each other: what depends on x (B, …) alone is
computed once for K values of z (K, B, d).
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvae.errors import UserError
from cvae.ranges import Sizes

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


class JointLinear(nn.Module):
    """A linear layer on the concatenation of its inputs, without concatenating them.

    W [a; b] + c = W_a a + W_b b + c, so that each part is computed at its own leading shape and
    only the sums broadcast: (…, size_i) for each input to (…, out_features).
    """

    def __init__(self, sizes: Sequence[int], out_features: int) -> None:
        super().__init__()
        joint = nn.Linear(sum(sizes), out_features)  # draws the weights for all inputs together
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


class Conv:
    """Strided convolutions for images, with dense layers between them and everything else.

    Args:
        channels: of each stride-2 convolution, seen from the image.
        hidden: widths of the dense layers.
        activation: relu, silu, gelu or tanh.
    """

    def __init__(self, channels: Sizes, hidden: Sizes, activation: Activation) -> None:
        self.channels, self.hidden, self.activation = list(channels), list(hidden), activation

    def encoder(self, inputs: Sequence[Shape], output: Shape) -> nn.Module:
        """A network from tensors (…, *inputs[i]) to (…, *output); images are convolved."""
        return ConvEncoder(inputs, output, self.channels, self.hidden, self.activation)

    def decoder(self, inputs: Sequence[Shape], output: Shape) -> nn.Module:
        """A network from tensors (…, *inputs[i]) to (…, P, C, H, W).

        Raises:
            UserError: the output is not an image, or its sides cannot be halved often enough.
        """
        return ConvDecoder(inputs, output, self.channels, self.hidden, self.activation)


class ConvEncoder(nn.Module):
    """Images (…, C, H, W) through convolutions, vectors as they are, then dense layers."""

    def __init__(
        self,
        inputs: Sequence[Shape],
        output: Shape,
        channels: Sequence[int],
        hidden: Sequence[int],
        activation: Activation,
    ) -> None:
        super().__init__()
        stems, features = [], []
        for shape in inputs:
            is_image = len(shape) == 3
            stems.append(
                _downsampling(shape[0], channels, activation) if is_image else nn.Identity()
            )
            features.append(_coarse(shape[1:], channels) if is_image else shape)
        self.ndims = [len(shape) for shape in inputs]
        self.stems = nn.ModuleList(stems)
        self.dense = Dense(features, output, hidden, activation)

    def forward(self, *inputs: Tensor) -> Tensor:
        features = [
            _apply(stem, tensor, ndim)
            for stem, tensor, ndim in zip(self.stems, inputs, self.ndims, strict=True)
        ]
        return self.dense(*features)


class ConvDecoder(nn.Module):
    """Inputs through a `ConvEncoder` to coarse feature maps, then transposed convolutions."""

    def __init__(
        self,
        inputs: Sequence[Shape],
        output: Shape,
        channels: Sequence[int],
        hidden: Sequence[int],
        activation: Activation,
    ) -> None:
        super().__init__()
        if len(output) != 4:
            raise UserError(
                "network=conv draws images, and here y is a vector: use network=mlp, "
                "or a condition whose y is an image"
            )
        *planes, height, width = output
        if height % 2 ** len(channels) or width % 2 ** len(channels):
            raise UserError(
                f"network.channels={list(channels)} halves a {height}x{width} image "
                f"{len(channels)} times, which does not come out even: give fewer channels"
            )
        self.output = tuple(output)
        coarse = _coarse((height, width), channels)
        self.project = ConvEncoder(inputs, coarse, channels, hidden[::-1], activation)
        layers: list[nn.Module] = []
        widths = [*channels[::-1], prod(planes)]
        for width_in, width_out in pairwise(widths):
            layers += [
                ACTIVATIONS[activation](),
                nn.ConvTranspose2d(width_in, width_out, kernel_size=4, stride=2, padding=1),
            ]
        self.upsample = nn.Sequential(*layers)

    def forward(self, *inputs: Tensor) -> Tensor:
        return _apply(self.upsample, self.project(*inputs), 3).unflatten(-3, self.output[:2])

    @torch.no_grad()
    def start_at(self, output: Tensor) -> None:
        """Put the last layer's bias at the mean over each of an output's planes."""
        *_, last = self.upsample.parameters()  # the bias of the last layer
        last.copy_(output.mean((-2, -1)).flatten())


def _downsampling(in_channels: int, channels: Sequence[int], activation: Activation) -> nn.Module:
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise([in_channels, *channels]):
        layers += [
            nn.Conv2d(width_in, width_out, kernel_size=3, stride=2, padding=1),
            ACTIVATIONS[activation](),
        ]
    return nn.Sequential(*layers)


def _coarse(sides: Shape, channels: Sequence[int]) -> Shape:
    """The shape (C, H, W) after the stride-2 convolutions."""
    factor = 2 ** len(channels)
    return channels[-1], *(-(-side // factor) for side in sides)


def _apply(module: nn.Module, tensor: Tensor, ndim: int) -> Tensor:
    """Apply a module that takes one leading dimension to a tensor with any number of them."""
    leading = tensor.shape[:-ndim]
    return module(tensor.reshape(-1, *tensor.shape[-ndim:])).unflatten(0, leading)

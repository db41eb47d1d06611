"""Convolutional networks, strided and transposed."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from cvae.errors import UserError
from cvae.networks.family import ACTIVATIONS, Activation, Shape, over_leading
from cvae.networks.mlp import Dense
from cvae.ranges import Sizes


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
            over_leading(stem, tensor, ndim)
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
        check_image("conv", output, channels, halvings=len(channels))
        *planes, height, width = output
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
        return over_leading(self.upsample, self.project(*inputs), 3).unflatten(-3, self.output[:2])

    @torch.no_grad()
    def start_at(self, output: Tensor) -> None:
        """Put the last layer's bias at the mean over each of an output's planes."""
        *_, last = self.upsample.parameters()  # the bias of the last layer
        last.copy_(output.mean((-2, -1)).flatten())


def check_image(network: str, output: Shape, channels: Sequence[int], halvings: int) -> None:
    """Refuse to draw what is no image, or one whose sides cannot be halved so often.

    Raises:
        UserError: naming the family of networks, by the word that chooses it.
    """
    if len(output) != 4:
        raise UserError(
            f"network={network} draws images, and here y is a vector: use network=mlp, "
            "or a condition whose y is an image"
        )
    height, width = output[2:]
    if height % 2**halvings or width % 2**halvings:
        raise UserError(
            f"network.channels={list(channels)} halves a {height}x{width} image "
            f"{halvings} times, which does not come out even: give fewer channels"
        )


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

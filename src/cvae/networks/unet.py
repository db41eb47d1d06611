"""The Probabilistic U-Net's networks, from an image x to an image y of the same size."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvae.errors import UserError
from cvae.networks.conv import ConvEncoder, check_image
from cvae.networks.family import ACTIVATIONS, Activation, Shape, over_leading
from cvae.networks.mlp import Dense, JointLinear
from cvae.ranges import Sizes


class UNet:
    """A U-Net that draws y from x, and convolutions that read x and y into z, pixel by pixel.

    Source: Kohl et al. 2018, arXiv:1806.05034, section 2; smaller, for small images.

    Args:
        channels: of each level of the U-Net, the finest first, between which the sides are
            halved, and of each stride-2 convolution of an encoder.
        hidden: widths of an encoder's dense layers.
        activation: relu, silu, gelu or tanh.
    """

    def __init__(self, channels: Sizes, hidden: Sizes, activation: Activation) -> None:
        self.channels, self.hidden, self.activation = list(channels), list(hidden), activation

    def encoder(self, inputs: Sequence[Shape], output: Shape) -> nn.Module:
        """A network from images (…, C_i, H, W) to (…, *output).

        Raises:
            UserError: the inputs are not images of one height and width.
        """
        _check_sides(inputs)
        image = sum(shape[0] for shape in inputs), *inputs[0][1:]
        return Together(ConvEncoder([image], output, self.channels, self.hidden, self.activation))

    def decoder(self, inputs: Sequence[Shape], output: Shape) -> nn.Module:
        """A network from images (…, C_i, H, W) and vectors (…, d_i) to (…, P, C, H, W).

        Raises:
            UserError: the output is not an image, its sides cannot be halved often enough, or
                no input is an image of its height and width.
        """
        return UNetDecoder(inputs, output, self.channels, self.activation)


class Together(nn.Module):
    """A network of one image, given several of one size as its channels.

    Unlike a stem for each, its first convolution can compare them pixel by pixel.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *images: Tensor) -> Tensor:
        leading = torch.broadcast_shapes(*(image.shape[:-3] for image in images))
        expanded = [image.expand(*leading, *image.shape[-3:]) for image in images]
        return over_leading(self.network, torch.cat(expanded, -3), 3)


class UNetDecoder(nn.Module):
    """Features of each pixel from a U-Net over the images; then, with the vectors, 1×1 layers.

    The U-Net runs once for images (B, …), whatever number of vectors (K, B, d) there are.
    """

    def __init__(
        self,
        inputs: Sequence[Shape],
        output: Shape,
        channels: Sequence[int],
        activation: Activation,
    ) -> None:
        super().__init__()
        check_image("unet", output, channels, halvings=len(channels) - 1)
        images = [shape for shape in inputs if len(shape) == 3]
        vectors = [shape for shape in inputs if len(shape) == 1]
        _check_sides([*(images or inputs), output[1:]])
        self.ndims, self.planes = [len(shape) for shape in inputs], tuple(output[:2])
        width, in_channels = channels[0], sum(shape[0] for shape in images)
        self.features = Together(Features(in_channels, channels, activation))
        # a 1×1 convolution is a linear layer of each pixel's channels
        self.combine = Dense(
            [(width,), *vectors], (math.prod(self.planes),), [width, width], activation
        )
        self.apply(_start)

    def forward(self, *inputs: Tensor) -> Tensor:
        given = list(zip(inputs, self.ndims, strict=True))
        features = self.features(*(tensor for tensor, ndim in given if ndim == 3))
        vectors = (tensor[..., None, None, :] for tensor, ndim in given if ndim == 1)
        drawn = self.combine(features.movedim(-3, -1), *vectors)
        return drawn.movedim(-1, -3).unflatten(-3, self.planes)

    def start_at(self, output: Tensor) -> None:
        """Put the last layer's bias at the mean over each of an output's planes."""
        self.combine.start_at(output.mean((-2, -1)))


class Features(nn.Module):
    """A U-Net: images (B, C, H, W) to features (B, channels[0], H, W) of each of their pixels.

    Source: Ronneberger et al. 2015, arXiv:1505.04597, padded and with average pooling.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], activation: Activation) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _pair(before, after, activation) for before, after in pairwise([in_channels, *channels])
        )
        self.up = nn.ModuleList(
            _pair(coarse + fine, fine, activation) for coarse, fine in pairwise(channels[::-1])
        )
        # a quarter faster on a CPU, and pixels come out as rows for linear layers
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stub

    def forward(self, images: Tensor) -> Tensor:
        first, *coarser = self.down
        levels = [first(images)]
        for block in coarser:
            levels.append(block(F.avg_pool2d(levels[-1], 2)))
        features = levels.pop()
        for block in self.up:
            features = block(torch.cat([levels.pop(), F.interpolate(features, scale_factor=2)], -3))
        return features


def _pair(in_channels: int, out_channels: int, activation: Activation) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        ACTIVATIONS[activation](),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
        ACTIVATIONS[activation](),
    )


def _start(layer: nn.Module) -> None:
    """Weights that keep the size of what passes many layers (He et al. 2015, arXiv:1502.01852)."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    elif isinstance(layer, JointLinear):
        for weight in layer.weights:  # of one layer, which sees the inputs side by side
            nn.init.normal_(weight, std=math.sqrt(2 / layer.in_features))
    else:
        return
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # each has one


def _check_sides(shapes: Sequence[Shape]) -> None:
    sides = {tuple(shape[1:]) for shape in shapes if len(shape) == 3}
    if len(sides) > 1 or any(len(shape) != 3 for shape in shapes):
        raise UserError(
            "network=unet draws y from an image x of its height and width, and here is none: use "
            "network=mlp or network=conv, or data=annotators or references and a model that sees x"
        )

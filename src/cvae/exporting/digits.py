"""A digit-conditional model as a web page computes it: tables of ten rows, 8-bit layers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvae.continuous_bernoulli import ContinuousBernoulli
from cvae.data.source import MNIST, NUM_CLASSES, Source
from cvae.data.views import Label, View
from cvae.densities import (
    BernoulliHead,
    ConditionalDensity,
    ContinuousBernoulliHead,
    GaussianHead,
)
from cvae.errors import UserError
from cvae.exporting.quantization import Quantized
from cvae.latent import diagonal
from cvae.model import ConditionalVAE
from cvae.networks.family import Tanh
from cvae.networks.mlp import Dense


class Elementwise(NamedTuple):
    """A function that model.js has too, by name."""

    name: str
    compute: Callable[[Tensor], Tensor]


ACTIVATIONS: Mapping[type, Elementwise] = {
    nn.ReLU: Elementwise("relu", F.relu),
    nn.SiLU: Elementwise("silu", F.silu),
    nn.GELU: Elementwise("gelu", F.gelu),
    Tanh: Elementwise("tanh", torch.tanh),
}
MEANS: Mapping[type, Elementwise] = {  # of a head, from its first parameter
    BernoulliHead: Elementwise("sigmoid", torch.sigmoid),
    ContinuousBernoulliHead: Elementwise(
        "continuousBernoulli", lambda logits: ContinuousBernoulli(logits).mean
    ),
    GaussianHead: Elementwise("identity", lambda mean: mean),
}


class Layer(NamedTuple):
    """ŴV + b, with Ŵ of 8-bit numbers.

    Attributes:
        weight: (out, in).
        bias: (10, out), a row for each digit, or (1, out).
    """

    weight: Quantized
    bias: Tensor


@dataclass(frozen=True)
class DigitModel:
    """The mean of p(y|x,z) for ten conditions: all that depends on x alone is a table of ten rows.

    Attributes:
        mean: μ(x) of the prior p(z|x), (10, d).
        scale: σ(x) of the prior, (10, d).
        layers: of the decoder; the first one's bias is W_x x + b for each digit.
        activation: between two layers.
        output: from the last layer to the mean of p(y|x,z).
    """

    mean: Tensor
    scale: Tensor
    layers: tuple[Layer, ...]
    activation: Elementwise
    output: Elementwise

    def __call__(self, x: Tensor, noise: Tensor) -> Tensor:
        """What the page draws for one-hot x (B, 10) and ε (B, d), (B, 1, 28, 28)."""
        (weight, bias), *others = self.layers
        z = x @ self.mean + (x @ self.scale) * noise
        values = F.linear(z, weight.weight) + x @ bias
        for weight, bias in others:
            values = F.linear(self.activation.compute(values), weight.weight) + bias
        return self.output.compute(values).unflatten(-1, Label.y_shape)


@torch.inference_mode()
def digit_model(model: ConditionalVAE, view: View, source: Source) -> DigitModel:
    """The model in the page's form.

    Args:
        model: on the CPU, in evaluation mode.
        view: of the data that it was trained on.
        source: of these data.

    Raises:
        UserError: it has not that form; the message says why.
    """
    if not isinstance(view, Label) or not isinstance(source, MNIST):
        raise UserError("the page asks for digits, and the condition of this run is another")
    if not model.latent_dim:
        raise UserError("this model has no z, so each digit has one picture and no handwriting")
    if not model.conditional:
        raise UserError("this model ignores the condition, so it cannot write what is typed")
    decoder, digits = model.decoder, torch.eye(NUM_CLASSES)
    network = decoder.network if isinstance(decoder, ConditionalDensity) else decoder
    if not isinstance(network, Dense):
        raise UserError("the page computes fully connected layers: train with network=mlp")
    of_x, of_z = network.first.weights
    *between, last = network.rest
    layers = [Layer(Quantized.of(of_z), F.linear(digits, of_x, network.first.bias))]
    layers += [_layer(layer) for layer in between if isinstance(layer, nn.Linear)]
    layers.append(_layer(last, rows=prod(view.y_shape)))
    prior = diagonal(model.prior(digits))
    return DigitModel(
        prior.loc,
        prior.scale,
        tuple(layers),
        _known(ACTIVATIONS, between[0]),
        _known(MEANS, decoder.head),
    )


def _layer(layer: nn.Module, rows: int | None = None) -> Layer:
    assert isinstance(layer, nn.Linear)
    return Layer(Quantized.of(layer.weight[:rows]), layer.bias[:rows].unsqueeze(0))


def _known(functions: Mapping[type, Elementwise], module: nn.Module) -> Elementwise:
    try:
        return functions[type(module)]
    except KeyError as error:
        raise UserError(f"the page has no {type(module).__name__}") from error

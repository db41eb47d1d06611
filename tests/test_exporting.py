"""A model in other forms: 8-bit matrices, the page's arithmetic, graphs, and what is escaped."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Laplace

import cvae
from cvae.data.source import MNIST, FashionMNIST
from cvae.data.views import Label, Quadrants
from cvae.densities import BernoulliHead, ContinuousBernoulliHead, GaussianHead, Head
from cvae.errors import UserError
from cvae.evaluation.generation import Sampler
from cvae.exporting.digits import digit_model
from cvae.exporting.graph import Graph, to_int8, to_onnx
from cvae.exporting.page import page
from cvae.exporting.quantization import Quantized
from cvae.model import ConditionalVAE
from cvae.models import conditional_vae, deterministic, fixed_prior, gsnn, learned_prior, vae
from cvae.networks import MLP, Conv
from cvae.networks.mlp import JointLinear

LABEL, MLP_ = Label(), MLP([24, 16], "relu")
QUADRANTS = Quadrants(1)


def composed(
    make: Callable[..., ConditionalVAE] = conditional_vae,
    view: Label | Quadrants = LABEL,
    network: Any = MLP_,
    prior: Any = learned_prior,
    head: Head | None = None,
    **options: Any,
) -> ConditionalVAE:
    torch.manual_seed(0)
    if make is not deterministic:
        options = {"latent_dim": 5, **options}
    return make(
        view.x_shape, view.y_shape, network, prior, head or BernoulliHead(), **options
    ).eval()


PAGES: dict[str, Callable[[], ConditionalVAE]] = {
    "learned prior": composed,
    "fixed prior": lambda: composed(prior=fixed_prior),
    "first guess": lambda: composed(guess=True),
    "gsnn": lambda: composed(gsnn),
    "one layer": lambda: composed(network=MLP([24], "relu")),
    "silu": lambda: composed(network=MLP([24, 16], "silu")),
    "gelu": lambda: composed(network=MLP([24, 16], "gelu")),
    "tanh": lambda: composed(network=MLP([24, 16], "tanh")),
    "continuous Bernoulli": lambda: composed(head=ContinuousBernoulliHead()),
    "Gaussian": lambda: composed(head=GaussianHead()),
    "Gaussian of one scale": lambda: composed(head=GaussianHead(0.1)),
}
GRAPHS = PAGES | {
    "vae": lambda: composed(vae, prior=fixed_prior),
    "deterministic": lambda: composed(deterministic, prior=fixed_prior),
    "convolutions": lambda: composed(network=Conv([4, 8], [16], "relu")),
    "quadrants": lambda: composed(view=QUADRANTS),
}


def test_rounding_moves_no_weight_by_more_than_half_a_step() -> None:
    weight = torch.randn(40, 30) * torch.logspace(-6, 3, 40).unsqueeze(1)
    weight[7] = 0
    quantized = Quantized.of(weight)
    error = (weight - quantized.weight).abs()
    # beside the bound itself, float32 rounds w / scale, and scale · values, which is as large as w
    rounding = 2 * torch.finfo(torch.float32).eps * weight.abs().amax(1, keepdim=True)
    assert (error <= quantized.scale.unsqueeze(1) / 2 + rounding).all()
    assert quantized.values.dtype == torch.int8
    assert quantized.values.min() >= -127
    assert torch.equal(quantized.weight[7], weight[7])
    largest = quantized.values.abs().amax(1)
    assert (largest[torch.arange(40) != 7] == 127).all()  # every row has all of its steps


def test_rounding_twice_is_rounding_once() -> None:
    once = Quantized.of(torch.randn(40, 30))
    assert torch.equal(Quantized.of(once.weight).values, once.values)


@pytest.mark.parametrize("make", PAGES.values(), ids=list(PAGES))
def test_the_pages_arithmetic_is_the_models(make: Callable[[], ConditionalVAE]) -> None:
    model = make()
    with torch.no_grad():
        for weight in _weights_of_pages(model):  # those that are of 8 bits already lose nothing
            weight.copy_(Quantized.of(weight).weight)
    digits = digit_model(model, LABEL, MNIST())
    x, noise = torch.eye(10).repeat(20, 1), torch.randn(200, 5)
    with torch.inference_mode():
        expected = Sampler(model)(x, noise)
        assert torch.allclose(digits(x, noise), expected, atol=1e-5)
        prior = model.prior(torch.eye(10))
    assert torch.equal(digits.mean, prior.mean)
    assert torch.equal(digits.scale, prior.stddev)


def _weights_of_pages(model: ConditionalVAE) -> list[torch.Tensor]:
    layers = [module for module in model.decoder.modules() if isinstance(module, nn.Linear)]
    (first,) = (module for module in model.decoder.modules() if isinstance(module, JointLinear))
    return [first.weights[1], *(layer.weight for layer in layers)]


class Pointed(nn.Module):
    def forward(self, x: Tensor) -> Distribution:
        return Independent(Laplace(torch.zeros(len(x), 5), torch.ones(len(x), 5)), 1)


REFUSED: dict[str, tuple[Callable[[], ConditionalVAE], Any, Any, str]] = {
    "clothes": (composed, LABEL, FashionMNIST(), "asks for digits"),
    "quadrants": (lambda: composed(view=QUADRANTS), QUADRANTS, MNIST(), "asks for digits"),
    "vae": (lambda: composed(vae, prior=fixed_prior), LABEL, MNIST(), "ignores the condition"),
    "no z": (lambda: composed(deterministic, prior=fixed_prior), LABEL, MNIST(), "has no z"),
    "convolutions": (GRAPHS["convolutions"], LABEL, MNIST(), "train with network=mlp"),
    "Laplace": (lambda: composed(prior=lambda *_: Pointed()), LABEL, MNIST(), "Independent.Normal"),
}


@pytest.mark.parametrize(("make", "view", "source", "said"), REFUSED.values(), ids=list(REFUSED))
def test_what_the_page_cannot_draw_is_told(
    make: Callable[[], ConditionalVAE], view: Any, source: Any, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        digit_model(make(), view, source)


def test_a_likelihood_that_the_page_does_not_know_is_named() -> None:
    class OwnHead(BernoulliHead):
        pass

    with pytest.raises(UserError, match="the page has no OwnHead"):
        digit_model(composed(head=OwnHead()), LABEL, MNIST())


@pytest.mark.parametrize("make", GRAPHS.values(), ids=list(GRAPHS))
def test_a_graph_computes_what_the_model_does_for_any_number_of_conditions(
    make: Callable[[], ConditionalVAE],
) -> None:
    model = make()
    view = QUADRANTS if make is GRAPHS["quadrants"] else LABEL
    graph = to_onnx(model, view.x_shape)
    small = to_int8(graph)
    assert len(small) < len(graph)
    exact, rough = Graph(graph), Graph(small)
    x = torch.eye(10)[:7] if view is LABEL else torch.rand(7, *view.x_shape)
    noise = torch.randn(7, model.latent_dim)
    with torch.inference_mode():
        expected = Sampler(model)(x, noise)
    spread = (expected - expected.mean(0)).abs().mean()  # that x and the noise make
    for size in (1, 7):
        given = x[:size], noise[:size]
        assert torch.allclose(exact(*given), expected[:size], rtol=0, atol=1e-5)
        away = (rough(*given) - expected[:size]).abs().mean()
        assert away < 0.05 * spread  # 8 bits lose about 1% in a layer, of which there are a few
    assert str(Path(cvae.__file__).parent).encode() not in graph  # where it was made
    assert b"site-packages" not in graph


HOSTILE = ["<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "\"'&<!--", "${x}"]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_folder_says_stays_text(text: str) -> None:
    digits = digit_model(composed(), LABEL, MNIST())
    plain = page(digits, {"run": "name"}).decode()
    hostile = page(digits, {text: "value", "run": text}).decode()
    assert hostile.count("<") == plain.count("<") + 4  # the other fact's own two elements
    assert "<dt>run</dt>" in hostile
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', hostile)
    own = r"'sha256-[\w+/]{43}='"  # this one text in the page, and no address, inline or eval
    assert re.fullmatch(
        rf"default-src 'none'; script-src {own}; style-src {own}; "
        "base-uri 'none'; form-action 'none'",
        policy,
    )
    (content,) = re.findall(r'id="model">(.*?)</script>', plain)
    assert "<" not in content
    assert set(json.loads(content)) == {"mean", "scale", "layers", "activation", "output"}

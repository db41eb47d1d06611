from itertools import product
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cvae.errors import UserError
from cvae.networks import MLP, Conv, Networks, UNet
from cvae.networks.family import ACTIVATIONS, Tanh
from cvae.networks.mlp import JointLinear

K, B, D = 3, 4, 5
VECTOR, IMAGE, DRAWN = (6,), (2, 8, 12), (1, 8, 12)
ANOTHER_ORDER = {"rtol": 1e-4, "atol": 1e-5}  # of a batched product's sums, in float32
FAMILIES: dict[str, Networks] = {
    "mlp": MLP([16, 12], "tanh"),
    "conv": Conv([4, 6], [16], "silu"),
    "unet": UNet([6, 8, 10], [16], "silu"),
}

every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
with_every_condition = pytest.mark.parametrize(
    ("family", "x_shape"),
    [
        pytest.param(family, shape, id=f"{name} {shape}")
        for name, family in FAMILIES.items()
        for shape in (VECTOR, IMAGE)
        if (name, shape) != ("unet", VECTOR)
    ],
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_tanh_is_torchs_in_value_and_gradient() -> None:
    points = torch.cat([torch.linspace(-20, 20, 4001), torch.tensor([-1e4, -100.0, 100.0, 1e4])])
    found = []
    for tanh in (ACTIVATIONS["tanh"](), torch.tanh):
        leaf = points.clone().requires_grad_()
        value = tanh(leaf)
        value.sum().backward()
        found.append((value.detach(), leaf.grad))
    (value, gradient), (expected, expected_gradient) = found
    # twice the rounding of a sigmoid near one, 2⁻²⁴, and the slope of its own rounding
    torch.testing.assert_close(value, expected, rtol=0, atol=2e-7)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=5e-7)


def test_tanh_has_the_gradient_of_finite_differences() -> None:
    points = torch.linspace(-5, 5, 41, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Tanh(), [points])
    torch.testing.assert_close(Tanh()(points), torch.tanh(points), rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_tanh_of_another_precision_is_torchs_own(dtype: torch.dtype) -> None:
    points = torch.linspace(-5, 5, 41).to(dtype) / 1000  # where 1 − 2σ would lose all in half
    assert torch.equal(Tanh()(points), points.tanh())


def test_joint_linear_is_linear_on_the_concatenation() -> None:
    joint, linear = JointLinear([3, 1, 4], 5), nn.Linear(8, 5)
    linear.weight.data, linear.bias.data = torch.cat(list(joint.weights), 1), joint.bias.data
    parts = [torch.randn(7, size) for size in (3, 1, 4)]
    torch.testing.assert_close(joint(*parts), linear(torch.cat(parts, -1)))

    z = torch.randn(2, 7, 4)
    expanded = torch.cat([part.expand(2, 7, -1) for part in (*parts[:2], z)], -1)
    torch.testing.assert_close(joint(*parts[:2], z), linear(expanded))


def test_joint_linear_starts_as_linear_does() -> None:
    torch.manual_seed(1)
    joint = JointLinear([3, 5], 4)
    torch.manual_seed(1)
    linear = nn.Linear(8, 4)
    assert torch.equal(torch.cat(list(joint.weights), 1), linear.weight)
    assert torch.equal(joint.bias, linear.bias)


def test_joint_linear_refuses_another_number_of_inputs() -> None:
    joint = JointLinear([3, 5], 4)
    with pytest.raises(ValueError, match="argument"):
        joint(torch.randn(2, 3))


@pytest.mark.parametrize(
    ("family", "x_shape", "y_shape"),
    [
        *product((FAMILIES["mlp"], FAMILIES["conv"]), (VECTOR, IMAGE), ((7,), DRAWN)),
        (FAMILIES["unet"], IMAGE, DRAWN),
    ],
)
def test_encoder_broadcasts_over_leading_dimensions(
    family: Networks, x_shape: tuple[int, ...], y_shape: tuple[int, ...]
) -> None:
    network = family.encoder([x_shape, y_shape], (2, D))
    x, y = torch.randn(B, *x_shape), torch.randn(K, B, *y_shape)
    together = network(x, y)
    assert together.shape == (K, B, 2, D)
    single = torch.stack([network(x, part) for part in y])
    torch.testing.assert_close(together, single, **ANOTHER_ORDER)
    assert network(x, y[0]).shape == (B, 2, D)


@with_every_condition
@pytest.mark.parametrize("leading", [(), (K,), (2, K)], ids=str)
def test_decoder_broadcasts_over_samples_of_z(
    family: Networks, x_shape: tuple[int, ...], leading: tuple[int, ...]
) -> None:
    network = family.decoder([x_shape, (D,)], (2, *DRAWN))
    x, z = torch.randn(B, *x_shape), torch.randn(*leading, B, D)
    together = network(x, z)
    assert together.shape == (*leading, B, 2, *DRAWN)
    single = torch.stack([network(x, part) for part in z.reshape(-1, B, D)])
    torch.testing.assert_close(together.reshape(single.shape), single, **ANOTHER_ORDER)


@every_family
def test_a_decoder_starts_at_an_output(family: Networks) -> None:
    shape = (2, 3, *DRAWN[1:])
    network: Any = family.decoder([IMAGE, (D,)], shape)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)  # but for the start, nothing is drawn
    start = torch.randn(shape)
    network.start_at(start)
    if not isinstance(family, MLP):  # the bias is the same for each pixel of a plane
        start = start.mean((-2, -1), keepdim=True).expand(shape)
    drawn = network(torch.randn(B, *IMAGE), torch.randn(B, D))
    torch.testing.assert_close(drawn, start.expand(B, *shape))


def test_mlp_decoder_draws_vectors_and_mirrors_the_encoder() -> None:
    family = MLP([16, 12], "relu")
    assert family.decoder([(D,)], (2, 7))(torch.randn(K, B, D)).shape == (K, B, 2, 7)

    def widths(network: nn.Module) -> list[int]:
        layers = (m for m in network.modules() if isinstance(m, nn.Linear | JointLinear))
        return [len(layer.bias) for layer in layers]

    assert widths(family.encoder([VECTOR], (2, D))) == [16, 12, 2 * D]
    assert widths(family.decoder([(D,)], (1, 7))) == [12, 16, 7]


@with_every_condition
def test_every_input_and_every_weight_matters(family: Networks, x_shape: tuple[int, ...]) -> None:
    network = family.decoder([x_shape, (D,)], (2, *DRAWN))
    x = torch.randn(B, *x_shape, requires_grad=True)
    z = torch.randn(B, D, requires_grad=True)
    network(x, z).square().sum().backward()
    for name, tensor in [("x", x), ("z", z), *network.named_parameters()]:
        assert tensor.grad is not None, name
        assert tensor.grad.any(), name


@every_family
def test_examples_do_not_see_each_other(family: Networks) -> None:
    x, y, z = torch.randn(B, *IMAGE), torch.randn(B, *DRAWN), torch.randn(B, D)
    encoder, decoder = (
        family.encoder([IMAGE, DRAWN], (2, D)),
        family.decoder([IMAGE, (D,)], (1, *DRAWN)),
    )
    for network, *given in ((encoder, x, y), (decoder, x, z)):
        alone = [network(*(part[i : i + 1] for part in given)) for i in range(B)]
        torch.testing.assert_close(network(*given), torch.cat(alone), **ANOTHER_ORDER)


def flops(network: nn.Module, *inputs: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return counter.get_total_flops()


@pytest.mark.parametrize("family", [FAMILIES["mlp"], FAMILIES["conv"]], ids=["mlp", "conv"])
@pytest.mark.parametrize(
    ("small", "large"), [((2,), (300,)), ((1, 8, 8), (3, 16, 16))], ids=["vector", "image"]
)
def test_the_conditions_part_is_computed_once_for_k_samples(
    family: Networks, small: tuple[int, ...], large: tuple[int, ...]
) -> None:
    def cost(x_shape: tuple[int, ...], k: int) -> int:
        network = family.decoder([x_shape, (D,)], (1, 1, 8, 8))
        return flops(network, torch.randn(B, *x_shape), torch.randn(k, B, D))

    assert cost(large, 1) > cost(small, 1)
    assert cost(large, 9) - cost(large, 1) == cost(small, 9) - cost(small, 1)


def test_the_cost_of_a_joint_layer_is_that_of_its_parts() -> None:
    layer = JointLinear([100, D], 8)
    counted = flops(layer, torch.randn(B, 100), torch.randn(K, B, D))
    assert counted == 2 * 8 * (B * 100 + K * B * D)


@pytest.mark.parametrize("output", [(1, 7), (2, 28, 28)], ids=str)
def test_conv_refuses_to_draw_what_is_no_image(output: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="network=mlp"):
        FAMILIES["conv"].decoder([(D,)], output)


@pytest.mark.parametrize(("height", "width"), [(30, 28), (28, 30), (7, 7)])
def test_conv_refuses_sides_that_do_not_halve_evenly(height: int, width: int) -> None:
    with pytest.raises(UserError, match=rf"channels=\[4, 6\] halves a {height}x{width} image"):
        FAMILIES["conv"].decoder([(D,)], (1, 1, height, width))


@pytest.mark.parametrize("sides", [(7, 9), (14, 28), (1, 5)], ids=str)
def test_conv_reads_images_of_any_sides(sides: tuple[int, int]) -> None:
    network = FAMILIES["conv"].encoder([(1, *sides)], (2, D))
    assert network(torch.randn(K, B, 1, *sides)).shape == (K, B, 2, D)


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "tanh"])
def test_activation_is_the_one_asked_for(activation: str) -> None:
    functions = {"relu": torch.relu, "silu": nn.functional.silu, "gelu": nn.functional.gelu}
    function = functions.get(activation, torch.tanh)
    network = MLP([16], activation).encoder([VECTOR], (D,))  # type: ignore[arg-type]
    first, last = (m for m in network.modules() if isinstance(m, nn.Linear | JointLinear))
    x = torch.randn(B, prod(VECTOR))
    torch.testing.assert_close(network(x), last(function(first(x))))

"""The Probabilistic U-Net's networks, over images x and y of one size."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cvae.densities import BernoulliHead
from cvae.errors import UserError
from cvae.models import conditional_vae, deterministic, fixed_prior, gsnn, learned_prior, vae
from cvae.networks import UNet

K, B, D = 3, 4, 5
X_SHAPE, Y_SHAPE = (2, 8, 12), (1, 8, 12)
FAMILY = UNet([6, 8, 10], [16], "silu")
MODELS = {
    "fixed": partial(conditional_vae, prior=fixed_prior, latent_dim=D),
    "learned": partial(conditional_vae, prior=learned_prior, latent_dim=D),
    "guess": partial(conditional_vae, prior=learned_prior, latent_dim=D, guess=True),
    "gsnn": partial(gsnn, prior=learned_prior, latent_dim=D),
    "deterministic": partial(deterministic, prior=fixed_prior),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def decoder(family: UNet = FAMILY, shape: tuple[int, ...] = X_SHAPE) -> Any:
    return family.decoder([shape, (D,)], (2, *Y_SHAPE[:1], *shape[1:]))


def test_an_encoders_first_convolution_sees_all_images() -> None:
    network = FAMILY.encoder([X_SHAPE, Y_SHAPE, Y_SHAPE], (2, D))
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    assert first.in_channels == X_SHAPE[0] + 2 * Y_SHAPE[0]


def test_the_unet_runs_once_for_k_samples_of_z() -> None:
    network, seen = decoder(), []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda *call: seen.append(len(call[-1])))
    network(torch.randn(B, *X_SHAPE), torch.randn(9, B, D))
    assert seen == [B] * 2 * 5  # a pair for each of three levels down, and of two up


def test_the_decoder_is_kohls_on_the_concatenation_of_features_and_z() -> None:
    network = decoder()
    x, z = torch.randn(B, *X_SHAPE), torch.randn(B, D)
    pixels = network.combine
    first = torch.cat([*pixels.first.weights], 1)[..., None, None]
    plane = z[..., None, None].expand(B, D, *X_SHAPE[1:])
    drawn = torch.cat([network.features(x), plane], 1)
    drawn = nn.functional.conv2d(drawn, first, pixels.first.bias)
    for layer in pixels.rest:
        linear = isinstance(layer, nn.Linear)
        weight = layer.weight[..., None, None] if linear else None
        drawn = nn.functional.conv2d(drawn, weight, layer.bias) if linear else layer(drawn)
    torch.testing.assert_close(network(x, z), drawn.unflatten(1, (2, 1)), rtol=1e-4, atol=1e-5)


def test_without_z_the_network_is_the_same() -> None:
    network = FAMILY.decoder([X_SHAPE], (1, *Y_SHAPE))
    assert network(torch.randn(K, B, *X_SHAPE)).shape == (K, B, 1, *Y_SHAPE)
    widths = [layer.out_features for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert widths == [6, 1]  # after the joint layer: three 1×1 layers in all


def test_every_pixel_depends_on_z_and_on_distant_pixels_of_x() -> None:
    network = decoder()
    x = torch.randn(1, *X_SHAPE, requires_grad=True)
    z = torch.randn(1, D, requires_grad=True)
    corner = network(x, z)[0, 0, 0, 0, 0]
    of_x, of_z = torch.autograd.grad(corner, [x, z])
    assert of_x[..., -1, -1].all()  # 11 pixels away, through the coarsest level
    assert of_z.all()


def test_skip_connections_keep_every_pixel() -> None:
    """Noise survives a U-Net, and no network whose only road is an eighth of the numbers."""
    network = FAMILY.decoder([Y_SHAPE], (1, *Y_SHAPE))
    masks = torch.rand(64, *Y_SHAPE).round()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(network(masks)[:, 0], masks)
        loss.backward()
        optimizer.step()
    unseen = torch.rand(64, *Y_SHAPE).round()
    assert ((network(unseen)[:, 0] > 0) == unseen.bool()).float().mean() > 0.99


def test_the_start_keeps_the_size_of_what_passes_every_layer() -> None:
    """He et al. 2015: before a ReLU the mean square is twice that of the layer's input."""
    network = UNet([256, 256], [16], "relu").decoder([(1, 8, 8), (256,)], (1, 1, 8, 8))
    pixels = network.combine
    given = [torch.randn(2000, 256), torch.randn(2000, 256)]
    joint = pixels.first(*given)
    hidden = pixels.rest[:2](joint)
    # 2000 x 256 values of weights that are themselves drawn: some per cent
    assert joint.square().mean().item() == pytest.approx(2, rel=0.05)
    assert hidden.square().mean().item() == pytest.approx(2, rel=0.05)
    assert not any(bias.any() for name, bias in network.named_parameters() if "bias" in name)


def test_features_keep_their_size_through_the_layers() -> None:
    network = UNet([16, 32, 64], [16], "relu").decoder([X_SHAPE, (D,)], (1, *Y_SHAPE))
    features = network.features(torch.randn(B, *X_SHAPE))
    assert 0.2 < features.square().mean() < 5  # 1e-8 with torch's own weights


@pytest.mark.parametrize("x_shape", [(10,), (1, 4, 6), (1, 12, 8)], ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_x_has_to_be_an_image_of_ys_size(model: str, x_shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"an image x of its height and width.*network=conv"):
        MODELS[model](x_shape, Y_SHAPE, networks=FAMILY, likelihood=BernoulliHead())


def test_a_model_that_ignores_x_has_nothing_to_draw_from() -> None:
    with pytest.raises(UserError, match="and a model that sees x"):
        vae(X_SHAPE, Y_SHAPE, FAMILY, fixed_prior, BernoulliHead(), D)


@pytest.mark.parametrize("output", [(1, 7), (2, 28, 28)], ids=str)
def test_y_has_to_be_an_image(output: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="network=unet draws images, and here y is a vector"):
        FAMILY.decoder([X_SHAPE, (D,)], output)


@pytest.mark.parametrize(("height", "width"), [(10, 8), (8, 10), (7, 7)])
def test_sides_have_to_halve_evenly(height: int, width: int) -> None:
    with pytest.raises(UserError, match=rf"\[6, 8, 10\] halves a {height}x{width} image 2 times"):
        decoder(shape=(1, height, width))


def test_one_level_has_no_sides_to_halve() -> None:
    network: Any = UNet([4], [8], "relu").decoder([(1, 7, 5), (D,)], (1, 1, 7, 5))
    drawn: Tensor = network(torch.randn(B, 1, 7, 5), torch.randn(B, D))
    assert drawn.shape == (B, 1, 1, 7, 5)

"""What pictures show, read off a decoder that paints the z and the x it is given."""

import math
from io import BytesIO
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.utils.tensorboard import SummaryWriter

from cvae.data.views import Label, Quadrants, Segmentation
from cvae.densities import StandardNormal
from cvae.model import ConditionalVAE
from cvae.pictures.board import SPRITE, tiles
from cvae.pictures.grid import Grid, reconstructions, samples, some_of_each
from cvae.pictures.paths import (
    DIMENSIONS,
    STEPS,
    condition_paths,
    interpolations,
    manifold,
    traversals,
)
from cvae.pictures.plane import Plane
from cvae.pictures.plots import plot_posterior_means
from cvae.pictures.style import draw, png
from gaussian_latents import gaussian_latents

VIEW, CLASSES = Label(), 10


class _Linear(nn.Module):
    """N(W v, exp(V v)²) of all that it is given, v."""

    def __init__(self, size: int, latent_dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(size, latent_dim)
        self.log_scale = nn.Linear(size, latent_dim)

    def forward(self, *given: Tensor) -> Distribution:
        v = torch.cat([part.flatten(1) for part in given], 1)
        return Independent(Normal(self.mean(v), self.log_scale(v).exp()), 1)


class _Paint(nn.Module):
    """An image whose first pixels are z and the next ones x."""

    def forward(self, x: Tensor, z: Tensor) -> Distribution:
        seen = torch.cat([z, x.expand(*z.shape[:-1], -1)], -1)
        image = nn.functional.pad(seen, (0, 784 - seen.shape[-1])).unflatten(-1, (1, 28, 28))
        return Independent(Normal(image, torch.ones_like(image)), 3)


@pytest.fixture
def model() -> ConditionalVAE:
    return painter(12)


def painter(latent_dim: int) -> ConditionalVAE:
    torch.manual_seed(0)
    posterior, prior = _Linear(CLASSES + 784, latent_dim), _Linear(CLASSES, latent_dim)
    return ConditionalVAE(posterior, prior, _Paint(), latent_dim)


def read(images: Tensor, latent_dim: int = 12) -> tuple[Tensor, Tensor]:
    """The z and the x that were painted."""
    pixels = images.flatten(-3)
    return pixels[..., :latent_dim], pixels[..., latent_dim : latent_dim + CLASSES]


def examples(*shape: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, shape, generator=draws)
    return nn.functional.one_hot(labels, CLASSES).float(), torch.rand(
        (*shape, 1, 28, 28), generator=draws
    )


@torch.no_grad()
def test_a_row_of_samples_is_one_noise_for_all_conditions(model: ConditionalVAE) -> None:
    x, y = examples(7)
    noise = torch.randn(4, 1, 12)
    grid = samples(model, VIEW, VIEW.showcase(x), noise, {"truth": y})
    z, seen = read(grid.images)
    assert grid.images.shape == (4, CLASSES, 1, 28, 28)
    assert torch.equal(seen, torch.eye(CLASSES).expand(4, -1, -1))
    prior = model.prior(torch.eye(CLASSES))
    standard = (z - prior.mean) / prior.stddev
    torch.testing.assert_close(standard, noise.expand(-1, CLASSES, -1), rtol=1e-4, atol=1e-4)


def test_what_is_seen_and_the_truth_stand_around_samples_of_an_image() -> None:
    view = Quadrants(1)
    x, y = view((255 * examples(3)[1][:, 0]).byte(), torch.zeros(3))

    class Ignorant(nn.Module):
        def forward(self, x: Tensor, z: Tensor) -> Distribution:
            mean = z.mean(-1, keepdim=True).expand(*z.shape[:-1], *view.y_shape)
            return Independent(Normal(mean, 1.0), 1)

    model = ConditionalVAE(nn.Identity(), StandardNormal(2), Ignorant(), 2)
    grid = samples(model, view, x, torch.randn(4, 1, 2), {"truth": y})
    names = ["x", "truth", "ε 1", "ε 2", "ε 3", "ε 4", "mean", "2 × std. deviation"]
    assert grid.rows == names
    assert len(grid.images) == len(grid.rows)
    assert torch.equal(grid.images[0], view.condition(x))
    assert torch.equal(grid.images[1], view.picture(x, y))
    torch.testing.assert_close(grid.images[6], grid.images[2:6].mean(0))
    torch.testing.assert_close(grid.images[7], 2 * grid.images[2:6].std(0, correction=0))


def test_no_row_hides_another_of_its_name() -> None:
    view, names = Segmentation([1, 28, 28]), ["x", "ε 1", "mean", "2 × std. deviation"]
    x, drawn = torch.rand(3, 1, 28, 28), torch.rand(len(names), 3, 1, 28, 28)

    class Seen(nn.Module):
        def forward(self, x: Tensor, z: Tensor) -> Distribution:
            return Independent(Normal(x + z[..., :1, None, None], 1.0), 3)

    model = ConditionalVAE(nn.Identity(), StandardNormal(2), Seen(), 2)
    truths = dict(zip(names, drawn, strict=True))
    grid = samples(model, view, x, torch.randn(2, 1, 2), truths)
    assert grid.rows == ["x", *names, "ε 1", "ε 2", *names[2:]]
    assert torch.equal(grid.images[0], x)
    assert torch.equal(grid.images[1:5], drawn)
    torch.testing.assert_close(grid.images[7], grid.images[5:7].mean(0))


@torch.no_grad()
def test_reconstructions_are_of_the_posterior_s_and_of_the_prior_s_mean(
    model: ConditionalVAE,
) -> None:
    x, y = examples(6)
    original, *rows = reconstructions(model, VIEW, x, y).images
    assert torch.equal(original, y)
    for images, density in zip(rows, (model.encoder(x, y), model.prior(x)), strict=True):
        torch.testing.assert_close(read(images)[0], density.mean)


@torch.no_grad()
def test_a_traversal_goes_through_the_quantiles_of_the_prior_and_changes_nothing_else(
    model: ConditionalVAE,
) -> None:
    x, y = examples(1)
    order = torch.tensor([3, 0, 11, 7, 1, 2, 10, 9, 8, 6, 5, 4])
    means = torch.zeros(5, 12)
    means[:, order] = torch.arange(12, 0, -1.0)  # KL falls in this order
    ones = torch.ones_like(means)
    grid = traversals(model, VIEW, gaussian_latents(means, ones, 0 * ones, ones), x, y)
    assert grid.images.shape == (DIMENSIONS, STEPS, 1, 28, 28)
    assert grid.rows[0] == "z[3], 72.00 nats"  # 12² / 2
    z, seen = read(grid.images)
    assert (seen == x).all()
    prior, posterior = model.prior(x), model.encoder(x, y)
    levels = Normal(prior.mean, prior.stddev).cdf(z)
    told = torch.tensor([float(name.rstrip("%")) / 100 for name in grid.columns])
    for row, dimension in enumerate(order[:DIMENSIONS]):
        # names are rounded to a percent, and to a tenth of it at the ends
        torch.testing.assert_close(levels[row, :, dimension], told, rtol=0, atol=0.005)
        others = torch.arange(12) != dimension
        expected = posterior.mean[:, others].expand(STEPS, -1)
        torch.testing.assert_close(z[row][:, others], expected)


@torch.no_grad()
def test_an_interpolation_ends_at_the_two_reconstructions(model: ConditionalVAE) -> None:
    x, y = examples(2, 5)
    grid = interpolations(model, VIEW, x, y, "a title")
    assert grid.images.shape == (5, STEPS + 2, 1, 28, 28)
    for end, original, decoded in ((0, 0, 1), (1, -1, -2)):
        assert torch.equal(grid.images[:, original], y[end])
        reconstruction = reconstructions(model, VIEW, x[end], y[end]).images[1]
        assert torch.equal(grid.images[:, decoded], reconstruction)
    z, seen = read(grid.images[:, 1:-1])
    torch.testing.assert_close(z[:, STEPS // 2], (z[:, 0] + z[:, -1]) / 2)
    torch.testing.assert_close(seen.sum(-1), torch.ones(5, STEPS))
    same = interpolations(model, VIEW, x[:1].expand(2, -1, -1), y, "a title")
    assert torch.equal(read(same.images[:, 1:-1])[1], x[0].unsqueeze(1).expand(-1, STEPS, -1))


@torch.no_grad()
def test_a_path_between_conditions_keeps_its_noise(model: ConditionalVAE) -> None:
    x = torch.stack([torch.eye(CLASSES), torch.eye(CLASSES).roll(-1, 0)])
    noise = torch.randn(12)
    grid = condition_paths(model, VIEW, x, noise)
    z, seen = read(grid.images)
    assert torch.equal(seen[:, 0], x[0])
    assert torch.equal(seen[:, -1], x[1])
    torch.testing.assert_close(seen[:, STEPS // 2], (x[0] + x[1]) / 2)
    prior = model.prior(seen.flatten(0, 1))
    standard = (z.flatten(0, 1) - prior.mean) / prior.stddev
    torch.testing.assert_close(standard, noise.expand_as(standard), rtol=1e-4, atol=1e-4)
    start = model.sample(x[0], noise.expand(CLASSES, -1)).mean
    assert torch.equal(grid.images[:, 0], start)


@torch.no_grad()
@pytest.mark.parametrize(("conditions", "side"), [(1, 20), (10, 10)])
def test_a_manifold_is_a_square_of_the_prior_s_quantiles(conditions: int, side: int) -> None:
    model, x = painter(2), torch.eye(CLASSES)[:conditions]
    squares = manifold(model, VIEW, x).images.flatten(0, 1)
    assert squares.shape == (conditions, 1, side * 28, side * 28)
    tiles = squares.unflatten(2, (side, 28)).unflatten(4, (side, 28))
    z, seen = read(tiles.permute(0, 2, 4, 1, 3, 5), 2)  # (condition, down, to the right)
    assert torch.equal(seen, x[:, None, None].expand_as(seen))
    prior = model.prior(x)
    mean, scale = prior.mean[:, None, None], prior.stddev[:, None, None]
    levels = Normal(mean, scale).cdf(z)
    expected = (torch.arange(side) + 0.5) / side
    for row, column in ((0, 1), (side - 1, side - 2), (3, 7)):
        found = levels[:, row, column]
        torch.testing.assert_close(
            found, torch.stack([expected[column], 1 - expected[row]]).expand_as(found)
        )


def test_the_same_seed_chooses_the_same_of_each_class() -> None:
    labels = examples(200)[0].argmax(-1)
    chosen = some_of_each(labels, 3, seed=0)
    assert torch.equal(labels[chosen], torch.arange(CLASSES).expand(3, -1))
    assert len(chosen.unique()) == 3 * CLASSES
    assert torch.equal(chosen, some_of_each(labels, 3, seed=0))
    assert not torch.equal(chosen, some_of_each(labels, 3, seed=1))
    assert some_of_each(torch.tensor([4]), 2, seed=0).tolist() == [[0], [0]]


def test_the_plane_is_that_of_the_largest_variance() -> None:
    draws = torch.Generator().manual_seed(0)
    means = torch.randn(500, 6, generator=draws) @ torch.randn(6, 6, generator=draws) + 3
    plane = Plane.of(means)
    torch.testing.assert_close(plane.directions.T @ plane.directions, torch.eye(2))
    variances = torch.linalg.svdvals(means - means.mean(0)).square() / 499
    torch.testing.assert_close(plane(means).var(0), variances[:2])
    shuffled = Plane.of(means[torch.randperm(500, generator=draws)])
    torch.testing.assert_close(shuffled.directions, plane.directions)  # the sign as well
    assert torch.equal(plane(torch.zeros(6)), torch.zeros(2))
    assert torch.equal(Plane.of(means[:, :2])(means[:, :2]), means[:, :2])


def test_a_projected_prior_has_the_contours_of_its_projected_samples() -> None:
    draws = torch.Generator().manual_seed(0)
    mean, scale = torch.randn(5, generator=draws), torch.rand(5, generator=draws) + 0.2
    plane = Plane.of(torch.randn(50, 5, generator=draws))
    covariance = plane.covariance(scale)
    torch.testing.assert_close(
        covariance, plane.directions.T @ torch.diag(scale**2) @ plane.directions
    )
    projected = plane(mean + scale * torch.randn(40_000, 5, generator=draws))
    # four standard errors of a variance, √(2/N), and of a share
    torch.testing.assert_close(projected.T.cov(), covariance, rtol=0, atol=0.03)

    def distance(points: Tensor) -> Tensor:
        shift = points - plane(mean)
        return (shift @ covariance.inverse() * shift).sum(-1).sqrt()

    for radius in (1, 2):
        contour = distance(plane.ellipse(mean, scale, radius))
        torch.testing.assert_close(contour, torch.full_like(contour, radius))
        within = (distance(projected) < radius).float().mean().item()
        assert within == pytest.approx(1 - math.exp(-(radius**2) / 2), abs=0.01)


def test_a_prior_has_contours_once_for_all_once_a_class_or_none() -> None:
    labels = torch.arange(CLASSES).repeat(20)
    means, ones = torch.randn(200, 3), torch.ones(200, 3)
    of_class = torch.randn(CLASSES, 3)[labels]
    for prior, panels, contours in ((0 * ones, 1, 2), (of_class, 1, 20), (means, 2, 0)):
        figure = plot_posterior_means(
            gaussian_latents(means, ones, prior, ones),
            labels,
            "0123456789",
            torch.arange(len(labels)),
        )
        assert len(figure.axes) == panels
        assert len(figure.axes[0].lines) == contours
        assert len(figure.axes[0].texts) == (CLASSES if contours == 20 else 0)


def test_images_of_any_shape_are_tiles_of_one_picture(tmp_path: Path) -> None:
    tall = torch.rand(3, 1, 16, 8)
    square = tiles(tall)
    assert square.shape == (3, 1, 16, 16)
    assert torch.equal(square[..., :8], tall)
    with SummaryWriter(str(tmp_path)) as board:
        board.add_embedding(torch.rand(3, 2), label_img=square)
    many = torch.rand(1, 1, 256, 200).expand(2000, -1, -1, -1)
    assert tiles(many).shape == (2000, 1, SPRITE // 45, SPRITE // 45)  # 45² is 2025


def test_each_pixel_of_an_image_is_a_square_of_pixels() -> None:
    images = torch.rand(3, 4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    names = ["first", "second", "third"], ["a", "b", "c", "d"]
    for grid in (Grid(images, "a title"), Grid(images, "a title", *names)):
        pixels = torch.from_numpy(imread(BytesIO(png(draw(grid)))))[..., 0]
        for row, line in enumerate(reversed(images)):
            bottom = len(pixels) - 8 - 4 - row * 60  # the margin, the gaps, twice as big
            for column, image in enumerate(line[:, 0]):
                start = pixels.shape[1] - 8 - 4 * 60 + 60 * column
                tile = pixels[bottom - 56 : bottom, start : start + 56]
                doubled = image.repeat_interleave(2, 0).repeat_interleave(2, 1)
                torch.testing.assert_close(tile, doubled, rtol=0, atol=1 / 255)

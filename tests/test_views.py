from typing import Literal

import pytest
import torch

from cvae.data.views import Label, Quadrants, Segmentation, View, is_picture, shows_x

Observed = Literal[1, 2, 3]
every_fraction = pytest.mark.parametrize("observed", [1, 2, 3])

LABELS = torch.tensor([3, 0, 9, 3], dtype=torch.uint8)


def images() -> torch.Tensor:
    draws = torch.Generator().manual_seed(6)
    pixels = torch.randint(0, 256, (4, 28, 28), dtype=torch.uint8, generator=draws)
    pixels[0, 0, :3] = torch.tensor([0, 255, 51])
    return pixels


def test_x_is_the_label_one_hot() -> None:
    x, _ = Label()(images(), LABELS)
    assert x.dtype == torch.float32
    assert x.shape == (4, *Label.x_shape)
    assert x.argmax(dim=1).tolist() == [3, 0, 9, 3]
    assert x.sum(dim=1).tolist() == [1, 1, 1, 1]
    assert set(x.unique().tolist()) == {0, 1}


def test_y_is_the_image_from_0_to_1() -> None:
    pixels = images()
    _, y = Label()(pixels, LABELS)
    assert y.dtype == torch.float32
    assert y.shape == (4, *Label.y_shape)
    assert y[0, 0, 0, :3].tolist() == [0, 1, torch.tensor(0.2)]
    assert torch.equal((y[:, 0] * 255).round().to(torch.uint8), pixels)
    assert (y.min(), y.max()) == (0, 1)


def test_the_picture_is_y_whatever_its_leading_dimensions() -> None:
    view = Label()
    x, y = view(images(), LABELS)
    samples = y.expand(6, *y.shape)
    assert torch.equal(view.picture(x, y), y)
    assert torch.equal(view.picture(x, samples), samples)


def test_the_showcase_is_the_ten_digits_in_order() -> None:
    view = Label()
    x, _ = view(images(), LABELS)
    showcase = view.showcase(x)
    assert torch.equal(showcase, torch.eye(10))
    assert view.showcase(x.double()).dtype == torch.float64


@every_fraction
def test_observed_and_missing_quadrants_make_the_image_exactly(observed: Observed) -> None:
    view, pixels = Quadrants(observed), images()
    x, y = view(pixels, LABELS)
    assert x.dtype == y.dtype == torch.float32
    assert x.shape == (4, *view.x_shape) == (4, observed * 196)
    assert y.shape == (4, *view.y_shape) == (4, (4 - observed) * 196)
    assert torch.equal(view.picture(x, y), Label()(pixels, LABELS)[1])


@every_fraction
def test_the_observed_quadrants_are_those_of_the_example(observed: Observed) -> None:
    view = Quadrants(observed)
    seen = view.picture(torch.ones(1, *view.x_shape), torch.zeros(1, *view.y_shape))[0, 0]
    corners = {"top": (slice(14), slice(14, None)), "bottom": (slice(14, None), slice(14, None))}
    left = {"top": (slice(14), slice(14)), "bottom": (slice(14, None), slice(14))}
    assert (seen[left["bottom"]] == 1).all()
    assert (seen[left["top"]] == (observed > 1)).all()
    assert (seen[corners["top"]] == (observed == 3)).all()
    assert (seen[corners["bottom"]] == 0).all()


@every_fraction
def test_samples_of_the_missing_part_share_the_observed_one(observed: Observed) -> None:
    view = Quadrants(observed)
    x, y = view(images(), LABELS)
    samples = torch.rand(6, *y.shape)
    together = view.picture(x, samples)
    assert together.shape == (6, 4, 1, 28, 28)
    for part, sample in zip(together, samples, strict=True):
        assert torch.equal(part, view.picture(x, sample))


def test_the_showcase_of_quadrants_is_what_is_given() -> None:
    x, _ = Quadrants(2)(images(), LABELS)
    assert torch.equal(Quadrants(2).showcase(x), x)


@every_fraction
def test_the_condition_of_quadrants_is_a_picture_with_the_missing_part_grey(
    observed: Observed,
) -> None:
    view = Quadrants(observed)
    x, _ = view(images(), LABELS)
    picture = view.condition(x)
    again, missing = view((picture[:, 0] * 255).round().to(torch.uint8), LABELS)
    torch.testing.assert_close(again, x)
    assert missing.unique().numel() == 1
    assert missing[0, 0] == pytest.approx(0.5, abs=1 / 255)


def test_a_label_is_no_picture() -> None:
    assert Label().condition(torch.eye(10)) is None


@pytest.mark.parametrize(
    ("view", "shown"),
    [
        (Label(), False),
        (Segmentation([1, 28, 28]), False),
        *((Quadrants(observed), True) for observed in (1, 2, 3)),
    ],
)
def test_only_a_picture_of_quadrants_holds_x(view: View, shown: bool) -> None:
    assert shows_x(view) == shown


def test_a_segmentation_is_an_image_and_a_mask() -> None:
    view = Segmentation([3, 28, 28])
    assert (view.x_shape, view.y_shape) == ((3, 28, 28), (1, 28, 28))
    colours = torch.stack([images()] * 3, 1)
    masks = (images() > 127).byte()
    x, y = view(colours, masks)
    assert torch.equal((x * 255).round().byte(), colours)
    assert torch.equal(y[:, 0], masks.float())
    assert torch.equal(view.picture(x, y), y)
    assert torch.equal(view.showcase(x), x)
    torch.testing.assert_close(view.condition(x), images()[:, None].float() / 255)
    assert is_picture(view)

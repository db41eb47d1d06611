import torch

from cvae.data.views import Label

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

"""`python -m cvae.sample`: the arithmetic, and the command on runs of the real training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cvae.data.source import Arrays
from cvae.data.views import Label, Quadrants
from cvae.errors import UserError
from cvae.grid import ENLARGED
from cvae.run import Run
from cvae.sample import of_digits, sample
from linear_gaussian import X, double, linear_gaussian
from warm import Command, Warm

Sample = Callable[..., Command]
K, TEMPERATURE = 20_000, 0.5
PITCH, LINE = 30 * ENLARGED, 2 * ENLARGED  # an image of 28 with the line beside it, a line


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(scope="module")
def command(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("anywhere")

    def run(*arguments: str | Path) -> Command:
        return warm.start("cvae.sample", *map(str, arguments), cwd=folder).wait()

    return run


@pytest.mark.parametrize("prior", ["fixed", "learned"])
def test_the_temperature_scales_the_priors_deviation(prior: str) -> None:
    torch.manual_seed(0)
    model, x = linear_gaussian(prior), double(2, X)
    _, samples = sample(model, x, K, TEMPERATURE, seed=0)
    density = model.prior(x)
    w, v = model.decoder.w, model.decoder.v
    deviation = TEMPERATURE * (density.variance.to(x) @ w.square().T).sqrt()
    error = deviation / K**0.5
    assert samples.std(0) == pytest.approx(deviation.detach(), rel=5 / (2 * K) ** 0.5)
    mean = (density.mean.to(x) @ w.T + x @ v.T).detach()
    assert ((samples.mean(0) - mean).abs() < 5 * error).all()


def test_at_temperature_0_all_samples_are_the_one_of_the_priors_mean() -> None:
    model, x = linear_gaussian("learned"), double(3, X)
    _, samples = sample(model, x, 2, 0.0, seed=0)
    expected = model.decoder(x, model.prior(x).mean).mean
    assert torch.equal(samples, expected.expand(2, -1, -1))


def test_a_sample_depends_on_its_seed_and_its_number_alone() -> None:
    model, x = linear_gaussian("fixed"), double(3, X)
    noise, many = sample(model, x, 5, 1.0, seed=1)
    assert torch.equal(sample(model, x, 2, 1.0, seed=1)[1], many[:2])
    assert not torch.equal(sample(model, x, 5, 1.0, seed=2)[0], noise)
    assert len(noise.flatten().unique()) == noise.numel()


def test_digits_are_their_one_hot_vectors() -> None:
    assert of_digits(Label(), "2026").argmax(1).tolist() == [2, 0, 2, 6]


@pytest.mark.parametrize("digits", ["", "12a", "-1", "1.5", "٣"])
def test_what_is_no_number_is_refused(digits: str) -> None:
    with pytest.raises(UserError, match=r"one or more of 0 to 9"):
        of_digits(Label(), digits)


def test_digits_say_nothing_where_x_is_part_of_an_image() -> None:
    with pytest.raises(UserError, match=r"use --images"):
        of_digits(Quadrants(1), "7")


def test_a_picture_has_a_row_a_sample_and_a_column_a_digit(
    command: Sample, reference: Callable[..., Path], tmp_path: Path
) -> None:
    pictures = [tmp_path / f"{seed}.png" for seed in (1, 1, 2)]
    for seed, out in zip((1, 1, 2), pictures, strict=True):
        done = command(
            reference(), "--digits", "2026", "--num-samples", "3", "--seed", str(seed), "--out", out
        )
        assert done.status == 0, done.output
    first, again, other = (out.read_bytes() for out in pictures)
    assert _size(pictures[0]) == (4 * PITCH + LINE, 3 * PITCH + LINE)
    assert first == again != other


def test_arrays_hold_what_the_model_makes_of_the_noise(
    command: Sample, reference: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "samples.npz"
    done = command(
        reference(), "--digits", "70", "--temperature", "0.8", "--num-samples", "3", "--out", out
    )
    assert done.status == 0, done.output
    arrays = {name: torch.from_numpy(array) for name, array in np.load(out).items()}
    model = Run(reference()).load_model()
    expected = model.sample(arrays["x"], 0.8 * arrays["noise"]).mean
    assert arrays["samples"].numpy() == pytest.approx(expected.detach().numpy(), abs=1e-6)
    assert arrays["pictures"].shape == (3, 2, 1, 28, 28)
    assert arrays["x"].argmax(1).tolist() == [7, 0]


def test_test_images_are_completed(
    command: Sample,
    reference: Callable[..., Path],
    mnist_root: str,
    arrays: Arrays,
    tmp_path: Path,
) -> None:
    folder, out = reference("data=quadrants"), tmp_path / "completed.npz"
    done = command(folder, "--images", "17,3", "--num-samples", "2", "--out", out)
    assert done.status == 0, done.output
    found = {name: torch.from_numpy(array) for name, array in np.load(out).items()}
    seen, _ = Quadrants(1)(arrays.test_images[[17, 3]], arrays.test_labels[[17, 3]])
    assert (found["x"] - seen).abs().max() < 1  # the same images, their pixels drawn 0 or 1
    assert torch.equal(
        Quadrants(1)((255 * found["pictures"][:, :, 0]).flatten(0, 1), seen)[0],
        found["x"].repeat(2, 1),
    )
    done = command(folder, "--num-samples", "2")
    assert done.status == 0, done.output
    shown = folder / "pictures" / "sample.png"  # x, two samples, the truth, the deviation
    assert _size(shown) == (10 * PITCH + LINE, 5 * PITCH + LINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--digits", "1a"], "--digits 1a: one or more of 0 to 9"),
        (["--images", "3,x"], "--images 3,x: indices with commas"),
        (["--images", "3,10000"], "the test images are 0 to 9999"),
        (["--num-samples", "0"], "--num-samples 0: 1 or more"),
        (["--temperature", "-1"], "--temperature -1.0: 0 or more"),
        (["--temperature", "nan"], "--temperature nan: 0 or more"),
        (["--out", "digits.gif"], "the name ends with .png or .npz"),
    ],
)
def test_a_mistake_is_one_line(
    command: Sample, reference: Callable[..., Path], arguments: list[str], message: str
) -> None:
    done = command(reference(), *arguments)
    assert done.status == 1
    assert message in done.output
    assert len(done.output.splitlines()) == 1


def test_a_model_that_ignores_the_digits_says_so(
    command: Sample, reference: Callable[..., Path], tmp_path: Path
) -> None:
    done = command(reference("model=vae"), "--out", tmp_path / "a.png")
    assert done.status == 0
    assert "ignores x" in done.output

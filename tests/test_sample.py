"""`python -m cvae.sample`: the arithmetic, and the command on runs of the real training."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cvae.conditions import Conditions, of_digits, of_images
from cvae.data.examples import Examples
from cvae.data.source import Arrays
from cvae.data.views import Label, Quadrants
from cvae.errors import UserError
from cvae.pictures.style import GAP, TILE
from cvae.run import Run
from cvae.sample import DIGITS, noise_of
from cvae.sample import arrays as npz
from linear_gaussian import D, X, double, linear_gaussian
from warm import Command, Warm

Sample = Callable[..., Command]
K, TEMPERATURE = 20_000, 0.5
PITCH = round(TILE / 28) * (28 + GAP)  # from an image to the next


def _given(x: Tensor) -> Conditions:
    return Conditions(x, {}, ())


def _arrays(content: bytes) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(BytesIO(content)).items()}


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
    found = _arrays(npz(model, Label(), _given(x), noise_of(K, 2, D, 0), TEMPERATURE))["samples"]
    density, w, v = model.prior(x), model.decoder.w.detach(), model.decoder.v.detach()
    deviation = TEMPERATURE * (density.variance.to(x) @ w.square().T).sqrt().detach()
    mean = (density.mean.to(x) @ w.T + x @ v.T).detach()
    torch.testing.assert_close(found.std(0), deviation, rtol=5 / (2 * K) ** 0.5, atol=0)
    assert ((found.mean(0) - mean).abs() < 5 * deviation / K**0.5).all()


def test_at_temperature_0_all_samples_are_the_one_of_the_priors_mean() -> None:
    model, x = linear_gaussian("learned"), double(3, X)
    found = _arrays(npz(model, Label(), _given(x), noise_of(2, 3, D, 0), 0.0))["samples"]
    expected = model.decoder(x, model.prior(x).mean).mean
    assert torch.equal(found, expected.expand(2, -1, -1))


def test_a_samples_noise_depends_on_its_seed_and_its_number_alone() -> None:
    noise = noise_of(5, 3, D, 1)
    assert torch.equal(noise_of(2, 3, D, 1), noise[:2])
    assert not torch.equal(noise_of(5, 3, D, 2), noise)
    assert len(noise.flatten().unique()) == noise.numel()


def test_digits_are_their_one_hot_vectors() -> None:
    assert of_digits(Label(), "2026").x.argmax(1).tolist() == [2, 0, 2, 6]


@pytest.mark.parametrize("digits", ["", "12a", "-1", "1.5", "٣"])
def test_what_is_no_number_is_refused(digits: str) -> None:
    with pytest.raises(UserError, match=r"one or more of 0 to 9"):
        of_digits(Label(), digits)


def test_digits_say_nothing_where_x_is_part_of_an_image() -> None:
    with pytest.raises(UserError, match=r"use --images"):
        of_digits(Quadrants(1), "7")


@pytest.mark.parametrize(("count", "first"), [(3, 3), (12, 10)])
def test_where_no_images_are_named_it_is_the_first_that_there_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, first: int
) -> None:
    x, y = torch.rand(count, 1, 4, 4), torch.rand(count, 1, 4, 4)
    examples = Examples(x, y, torch.zeros(count))
    monkeypatch.setattr("cvae.evaluation.data.split_of", lambda *_: (None, examples))
    found = of_images(Run(tmp_path), None, None)
    assert torch.equal(found.x, x[:10])
    assert torch.equal(found.truths["truth"], y[:10])
    assert found.names == [f"#{index}" for index in range(first)]
    with pytest.raises(UserError, match=f"the test images are 0 to {count - 1}"):
        of_images(Run(tmp_path), f"0,{count}", None)


def test_a_picture_has_a_row_a_sample_and_a_column_a_digit(
    command: Sample, reference: Callable[..., Path], tmp_path: Path
) -> None:
    sizes = {}
    for digits, rows in ((DIGITS, 3), (DIGITS, 5), (DIGITS[:8], 3)):
        out = tmp_path / f"{digits}_{rows}.png"
        done = command(reference(), "--digits", digits, "--num-samples", str(rows), "--out", out)
        assert (done.status, done.output.strip()) == (0, str(out))
        sizes[digits, rows] = _size(out)
    (wide, height), (_, higher), (width, _) = sizes.values()
    assert (wide - width, higher - height) == (2 * PITCH, 2 * PITCH)


def test_the_same_seed_gives_the_same_file(
    command: Sample, reference: Callable[..., Path], tmp_path: Path
) -> None:
    first, again, other = (tmp_path / f"{name}.png" for name in "abc")
    for out, seed in ((first, "1"), (again, "1"), (other, "2")):
        done = command(reference(), "--num-samples", "2", "--seed", seed, "--out", out)
        assert done.status == 0, done.output
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()


def test_arrays_hold_what_the_model_makes_of_the_noise(
    command: Sample, reference: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "samples.npz"
    done = command(
        reference(), "--digits", "70", "--temperature", "0.8", "--num-samples", "3", "--out", out
    )
    assert done.status == 0, done.output
    found = _arrays(out.read_bytes())
    expected = Run(reference()).load_model().sample(found["x"], 0.8 * found["noise"]).mean
    torch.testing.assert_close(found["samples"], expected.detach())
    assert found["pictures"].shape == (3, 2, 1, 28, 28)
    assert found["x"].argmax(1).tolist() == [7, 0]


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
    found = _arrays(out.read_bytes())
    seen, _ = Quadrants(1)(arrays.test_images[[17, 3]], arrays.test_labels[[17, 3]])
    assert (found["x"] - seen).abs().max() < 1  # the same images, their pixels drawn 0 or 1
    assert torch.equal(
        Quadrants(1)((255 * found["pictures"][:, :, 0]).flatten(0, 1), seen)[0],
        found["x"].repeat(2, 1),
    )
    done = command(folder, "--num-samples", "2")
    assert done.status == 0, done.output
    images = np.asarray(Image.open(BytesIO((folder / "pictures" / "sample.png").read_bytes())))
    assert images.shape[0] > 5 * PITCH  # x, two samples, the truth, the deviation
    assert images.shape[1] > 10 * PITCH


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--digits", "1a"], "--digits 1a: one or more of 0 to 9"),
        (["--digits", ""], "--digits : one or more of 0 to 9"),
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


def test_z_of_a_mixture_is_drawn_but_not_scaled(
    command: Sample, reference: Callable[..., Path], tmp_path: Path
) -> None:
    folder, out = reference("prior=mixture"), tmp_path / "a.npz"
    assert command(folder, "--out", out).status == 0
    assert np.isfinite(np.load(out)["samples"]).all()
    done = command(folder, "--temperature", "0.5")
    assert (done.status, len(done.output.splitlines())) == (1, 1)
    assert "p(z|x) is a mixture: leave it out" in done.output


def test_a_model_that_ignores_the_digits_says_so(
    command: Sample, reference: Callable[..., Path], tmp_path: Path
) -> None:
    done = command(reference("model=vae"), "--out", tmp_path / "a.png")
    assert done.status == 0
    assert "ignores x" in done.output


def test_a_model_without_z_draws_one_row(
    command: Sample, reference: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "a.npz"
    done = command(reference("data=quadrants", "model=deterministic"), "--out", out)
    assert done.status == 0, done.output
    assert "has no z: one row" in done.output
    assert len(_arrays(out.read_bytes())["samples"]) == 1

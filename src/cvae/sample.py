"""`python -m cvae.sample FOLDER`: pictures that a finished run draws for a condition."""

import argparse
import logging
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cvae.allowed import allow
from cvae.build import build
from cvae.command import run_command
from cvae.data.views import SHAPE, View
from cvae.densities import Unconditional
from cvae.errors import UserError
from cvae.files import write_atomically
from cvae.grid import grid, png, sample_rows
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator
from cvae.run import Run, find

log = logging.getLogger(__name__)
CHUNK = 2000  # pictures at a time


def of_digits(view: View, digits: str) -> Tensor:
    """The conditions of digits, (B, *x_shape).

    Raises:
        UserError: it is no number, or x is not a digit.
    """
    if not (digits.isascii() and digits.isdigit()):
        raise UserError(f"--digits {digits}: one or more of 0 to 9, as in --digits 2026")
    if _is_picture(view):
        raise UserError("x is part of an image here, which no digit gives: use --images 0,1,2")
    labels = torch.tensor([int(digit) for digit in digits])
    x, _ = view(torch.zeros(len(labels), *SHAPE, dtype=torch.uint8), labels)
    return x


def of_images(run: Run, images: str, root: str | None) -> tuple[Tensor, Tensor]:
    """x and y of test images, (B, …) each, with the pixels that `evaluate` takes.

    Raises:
        UserError: an index is none, or the data are not those of the run.
    """
    from cvae.evaluation.data import data_of  # takes Lightning along, seconds that digits can spare

    examples = data_of(run, root).examples("test")
    try:
        chosen = [int(index) for index in images.split(",")]
    except ValueError as error:
        raise UserError(f"--images {images}: indices with commas, as in 3,17,42") from error
    if not all(0 <= index < len(examples.y) for index in chosen):
        raise UserError(f"--images {images}: the test images are 0 to {len(examples.y) - 1}")
    return examples.x[chosen], examples.y[chosen]


@torch.inference_mode()
def sample(
    model: ConditionalVAE, x: Tensor, num_samples: int, temperature: float, seed: int
) -> tuple[Tensor, Tensor]:
    """ε for each sample, (K, B, d), and E[y|x,z] for z = μ(x) + τ·σ(x)·ε, (K, B, *y_shape).

    Args:
        model: the composition.
        x: conditions, (B, …).
        num_samples: K.
        temperature: τ: 0 is the prior's mean, 1 the prior itself.
        seed: of ε. A sample's ε does not depend on how many there are.
    """
    noise = torch.stack(
        [
            torch.randn((len(x), model.latent_dim), generator=generator(Stream.SAMPLES, seed, k))
            for k in range(num_samples)
        ]
    )
    parts = (temperature * noise).split(max(1, CHUNK // len(x)))
    progress = tqdm(parts, desc="samples", leave=False, disable=len(parts) < 5)
    return noise, torch.cat([model.sample(x, part).mean for part in progress])


def _conditions(run: Run, view: View, arguments: argparse.Namespace) -> dict[str, Tensor]:
    """x, and y where test images were asked for."""
    if arguments.images or (_is_picture(view) and not arguments.digits):
        x, y = of_images(run, arguments.images or "0,1,2,3,4,5,6,7,8,9", arguments.data_root)
        return {"x": x, "y": y}
    return {"x": of_digits(view, arguments.digits or "0123456789")}


def _is_picture(view: View) -> bool:
    return view.condition(torch.zeros(1, *view.x_shape)) is not None


def _png(model: ConditionalVAE, view: View, drawn: dict[str, Tensor]) -> bytes:
    """A row a sample; around them, where x is a picture, what `sample_rows` says."""
    return png(grid(sample_rows(model, view, drawn["x"], drawn["samples"], drawn.get("y"))))


def _npz(model: ConditionalVAE, view: View, drawn: dict[str, Tensor]) -> bytes:
    """The arrays themselves, and the samples as full pictures."""
    buffer, pictures = BytesIO(), view.picture(drawn["x"], drawn["samples"])
    arrays = {name: array.numpy() for name, array in {**drawn, "pictures": pictures}.items()}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


FORMATS = {".png": _png, ".npz": _npz}


def _check(arguments: argparse.Namespace) -> None:
    """Values that make no sense.

    Raises:
        UserError: one of them.
    """
    if arguments.num_samples < 1:
        raise UserError(f"--num-samples {arguments.num_samples}: 1 or more")
    if not 0 <= arguments.temperature < float("inf"):
        raise UserError(f"--temperature {arguments.temperature}: 0 or more")
    if arguments.out and arguments.out.suffix not in FORMATS:
        raise UserError(f"--out {arguments.out}: the name ends with .png or .npz")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m cvae.sample", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="a run's folder, or latest")
    given = parser.add_mutually_exclusive_group()
    given.add_argument(
        "--digits", metavar="2026", help="x by name, a column each (default: 0 to 9)"
    )
    given.add_argument(
        "--images",
        metavar="3,17",
        help="x of these test images, a column each (default where x is part of an image: 0 to 9)",
    )
    parser.add_argument(
        "--num-samples", type=int, default=8, metavar="K", help="y for each x, a row each (8)"
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="scales the prior's deviation (1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of z (0)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=".png, or .npz with x, noise, samples (the means of p(y|x,z)) and pictures (default: "
        "pictures/sample.png in the run's folder)",
    )
    parser.add_argument("--data-root", metavar="PATH", help="the data's files, if they have moved")
    parser.add_argument("--allow", metavar="PACKAGE", help="your own package that a config names")
    arguments = parser.parse_args()
    if arguments.allow:
        allow(arguments.allow)
    _check(arguments)
    run = find(arguments.folder)
    out = arguments.out or run.folder / "pictures" / "sample.png"
    model, view = run.load_model(), build(run.config["data"]["view"], "data.view")
    if isinstance(model.decoder, Unconditional):
        log.warning("the model of %s ignores x: its columns differ by chance alone", run.folder)
    drawn = _conditions(run, view, arguments)
    drawn["noise"], drawn["samples"] = sample(
        model, drawn["x"], arguments.num_samples, arguments.temperature, arguments.seed
    )
    write_atomically(out, FORMATS[out.suffix](model, view, drawn))
    print(out)


if __name__ == "__main__":
    run_command(main)

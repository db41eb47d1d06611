"""`python -m cvae.sample FOLDER`: what a finished run draws for a condition of your choice."""

import argparse
import logging
import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cvae.command import run_command
from cvae.conditions import Conditions, of_digits, of_images
from cvae.data.views import View, is_picture
from cvae.errors import UserError
from cvae.files import npz, write_atomically
from cvae.finished import read, seed, with_data
from cvae.mixtures import GaussianMixture
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator
from cvae.pictures.grid import samples
from cvae.pictures.style import draw, png
from cvae.runs import find

log = logging.getLogger(__name__)
DIGITS = "0123456789"  # where nothing is asked for


def noise_of(num_samples: int, count: int, latent_dim: int, seed: int) -> Tensor:
    """Standard-normal ε, (K, B, d): that of a sample does not depend on how many there are."""
    draws = (generator(Stream.SAMPLES, seed, k) for k in range(num_samples))
    return torch.stack([torch.randn((count, latent_dim), generator=draw) for draw in draws])


def picture(
    model: ConditionalVAE, view: View, given: Conditions, noise: Tensor, temperature: float
) -> bytes:
    """PNG: a row a sample, a column a condition; z = μ(x) + τ·σ(x)·ε."""
    grid = samples(model, view, given.x, temperature * noise, given.truths)
    title = f"{grid.title}, τ = {temperature:g}"
    columns = given.names if model.conditional else ()
    return png(draw(replace(grid, title=title, columns=columns)))


@torch.inference_mode()
def arrays(
    model: ConditionalVAE, view: View, given: Conditions, noise: Tensor, temperature: float
) -> bytes:
    """NPZ: x, ε (K, B, d), τ, the samples E[y|x,z] (K, B, …), and as pictures (K, B, 1, H, W)."""
    drawn = model.sample(given.x, temperature * noise).mean
    named = {
        "x": given.x,
        "noise": noise,
        "temperature": torch.tensor(temperature),
        "samples": drawn,
        "pictures": view.picture(given.x, drawn),
    }
    return npz(named)


FORMATS = {".png": picture, ".npz": arrays}


def _check(arguments: argparse.Namespace) -> None:
    """Refuse values that make no sense.

    Raises:
        UserError: one of them is such.
    """
    if arguments.num_samples < 1:
        raise UserError(f"--num-samples {arguments.num_samples}: 1 or more")
    if not 0 <= arguments.temperature < math.inf:
        raise UserError(f"--temperature {arguments.temperature}: 0 or more")
    if arguments.out and arguments.out.suffix not in FORMATS:
        raise UserError(f"--out {arguments.out}: the name ends with .png or .npz")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cvae.sample", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="a run's folder, or latest")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument(
        "--digits", metavar="2026", help="digits, a column each (default where x is a digit: all)"
    )
    asked.add_argument(
        "--images",
        metavar="3,17",
        help="test images whose x is taken, a column each (default where x is an image or a part "
        "of one: the first ten there are)",
    )
    parser.add_argument(
        "--num-samples", type=int, default=8, metavar="K", help="rows, a sample each (default 8)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="τ",
        help="of z = μ(x) + τ·σ(x)·ε; 0 is the prior's mean (default 1)",
    )
    parser.add_argument("--seed", type=seed, default=0, help="of ε (default 0)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=".png, or .npz with x, noise, temperature, samples (the means of p(y|x,z)) and "
        "pictures (default: pictures/sample.png in the run's folder)",
    )
    with_data(parser)
    return parser


def main() -> None:
    """Read the command line."""
    arguments = read(_parser())
    _check(arguments)
    run = find(arguments.folder)
    model, view, rows = run.load_model(), run.view, arguments.num_samples
    if not model.conditional:
        log.warning("the model of %s ignores x: columns differ by chance alone", run.folder)
    if not model.latent_dim and rows > 1:
        log.warning("the model of %s has no z: one row, since all would be the same", run.folder)
        rows = 1
    digits, images = arguments.digits, arguments.images
    if images is not None or (digits is None and is_picture(view)):
        given = of_images(run, images, arguments.data_root)
    else:
        given = of_digits(view, DIGITS if digits is None else digits)
    if arguments.temperature != 1 and isinstance(model.prior(given.x), GaussianMixture):
        raise UserError("--temperature scales one Gaussian, and p(z|x) is a mixture: leave it out")
    noise = noise_of(rows, len(given.x), model.latent_dim, arguments.seed)
    out = arguments.out or run.pictures() / "sample.png"
    content = FORMATS[out.suffix](model, view, given, noise, arguments.temperature)
    write_atomically(out, content)
    print(out)


if __name__ == "__main__":
    run_command(main)

"""Grids of images: what a model makes of z from its prior and from its posterior."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from cvae.data.views import View
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator


@dataclass(frozen=True)
class Grid:
    """Images in rows and columns.

    Attributes:
        images: (R, C, 1, H, W), clamped to [0, 1] when they are drawn.
        title: what is seen, in one line.
        rows: a name for each row, or none.
        columns: a name for each column, or none.
    """

    images: Tensor
    title: str
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()


def some_of_each(labels: Tensor, count: int, seed: int) -> Tensor:
    """Positions of `count` examples of each class, (count, classes), which the seed chooses.

    Args:
        labels: of the examples, (N,).
        count: of one class; where it has fewer, some come twice.
        seed: of the choice.
    """
    order = torch.randperm(len(labels), generator=generator(Stream.PICTURES, seed, 0))
    groups = [order[labels[order] == label] for label in labels.unique()]
    return torch.stack([group[torch.arange(count) % len(group)] for group in groups], 1)


def noise_of_rows(model: ConditionalVAE, rows: int, columns: int, draws: Generator) -> Tensor:
    """Standard-normal ε for rows of samples: one for all of a row, (R, 1, d).

    Where the model ignores x the columns would be alike, so each has its own, (R, C, d); where z
    has no dimension the rows would, so R is 1.
    """
    shape = (rows if model.latent_dim else 1, 1 if model.conditional else columns, model.latent_dim)
    return torch.randn(shape, generator=draws)


@torch.inference_mode()
def decoded(model: ConditionalVAE, view: View, x: Tensor, z: Tensor) -> Tensor:
    """The mean of p(y|x,z) as full images, (…, B, 1, H, W), for x (B, …) and z (…, B, d)."""
    return view.picture(x, model.decoder(x, z).mean)


@torch.inference_mode()
def samples(
    model: ConditionalVAE, view: View, x: Tensor, noise: Tensor, truths: Mapping[str, Tensor]
) -> Grid:
    """A condition a column, a sample a row: the mean of p(y|x,z) for z from p(z|x).

    Where x is an image, it, what it came with, and the first guess of y, if there is one, stand
    above the samples, and below them their mean and their standard deviation at each pixel, doubled
    since ½ is the most.

    Args:
        model: the composition, on the device of the others.
        view: puts x and y together.
        x: conditions, (B, …).
        noise: standard-normal ε, (R, 1, d) if a row is one noise for all, or (R, B, d).
        truths: by name, what the conditions came with, (B, …), shown where they are images.
    """
    drawn = view.picture(x, model.sample(x, noise.expand(-1, len(x), -1)).mean)
    name = "ε" if noise.shape[1] == 1 else "sample"
    names = [f"{name} {row + 1}" if model.latent_dim else "p(y|x)" for row in range(len(noise))]
    given = view.condition(x)
    if given is None:
        if not model.conditional:
            return Grid(drawn, "samples, z from p(z)")
        title = "samples, z from p(z|x)" if model.latent_dim else "the mean of p(y|x)"
        return Grid(drawn, title, names, [str(column) for column in range(len(x))])
    rows = [("x", given), *((name, view.picture(x, y)) for name, y in truths.items())]
    if model.first_guess is not None:
        rows.append(("first guess", view.picture(x, model.first_guess(x).mean)))
    rows += zip(names, drawn, strict=True)
    if len(noise) > 1:
        deviation = drawn.std(0, correction=0)
        rows += [("mean", drawn.mean(0)), ("2 × std. deviation", 2 * deviation)]
    images = torch.stack([image for _, image in rows])
    title = "x, what it came with, and what is made of it"
    return Grid(images, title, [name for name, _ in rows])


@torch.inference_mode()
def reconstructions(model: ConditionalVAE, view: View, x: Tensor, y: Tensor) -> Grid:
    """Examples, what q(z|x,y) makes of them, and what p(z|x) makes of their condition alone."""
    given = view.condition(x)
    name = "image" if given is None else "y"
    rows = {
        name: view.picture(x, y),
        "mean of q(z|x,y)": decoded(model, view, x, model.encoder(x, y).mean),
        "mean of p(z|x)": decoded(model, view, x, model.prior(x).mean),
    }
    if given is not None:
        rows = {"x": given, **rows}
    return Grid(torch.stack([*rows.values()]), f"{name}, and z read from it or from x", [*rows])

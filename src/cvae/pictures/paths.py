"""Ways through the latent space and between conditions, decoded step by step."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributions import Normal

from cvae.data.views import View
from cvae.evaluation.latents import Latents
from cvae.latent import nearest
from cvae.model import ConditionalVAE
from cvae.pictures.grid import Grid, decoded

STEPS = 11  # of a path, both ends included
DIMENSIONS = 8  # that are traversed
PANELS = 5  # manifolds in a row
NORMAL = Normal(0.0, 1.0)


@torch.inference_mode()
def traversals(model: ConditionalVAE, view: View, latents: Latents, x: Tensor, y: Tensor) -> Grid:
    """One dimension of z a row, at quantiles of the prior; all else of z as q(z|x,y) has it.

    z_d = μ_d(x) + s σ_d(x) with μ, σ of p(z|x), of a mixture those of the component that this y is
    likeliest of, for s half apart, named by its level Φ(s). The dimensions are those with the
    largest KL over the data, the largest first.

    Args:
        model: the composition.
        view: of its data.
        latents: of the data, for the KL of each dimension.
        x: one condition, (1, …).
        y: what it came with, (1, …).
    """
    kl = latents.kl_per_dimension.mean(0)
    dimensions = kl.argsort(descending=True, stable=True)[:DIMENSIONS].tolist()
    read, deviations = model.encoder(x, y).mean, torch.linspace(-2.5, 2.5, STEPS)
    prior, z = nearest(model.prior(x), read), read.repeat(len(dimensions), STEPS, 1, 1)
    for row, dimension in enumerate(dimensions):
        mean, scale = prior.mean[0, dimension], prior.stddev[0, dimension]
        z[row, :, 0, dimension] = mean + scale * deviations
    levels = NORMAL.cdf(deviations).tolist()
    return Grid(
        decoded(model, view, x, z).squeeze(2),
        "one dimension of z moved through the quantiles of its prior, x and the rest of z kept",
        [f"z[{dimension}], {kl[dimension]:.2f} nats" for dimension in dimensions],
        [f"{level:.1%}" if level < 0.05 or level > 0.95 else f"{level:.0%}" for level in levels],
    )


@torch.inference_mode()
def interpolations(model: ConditionalVAE, view: View, x: Tensor, y: Tensor, title: str) -> Grid:
    """From one image to another in z and in x, a pair a row, the images themselves at both ends.

    z_t = (1 − t) E_q[z|x₀,y₀] + t E_q[z|x₁,y₁] and x_t = (1 − t) x₀ + t x₁: two images with the
    same x keep it, and the ends are their reconstructions.

    Args:
        model: the composition.
        view: of its data.
        x: the conditions of both ends, (2, B, …).
        y: the images of both ends, (2, B, …).
        title: of the grid.
    """
    z = torch.stack([model.encoder(*end).mean for end in zip(x, y, strict=True)])
    path = [decoded(model, view, mix(x, t), mix(z, t)) for t in _times()]
    images = [view.picture(x[0], y[0]), *path, view.picture(x[1], y[1])]
    return Grid(torch.stack(images, 1), title, columns=["y₀", *_names(), "y₁"])


@torch.inference_mode()
def condition_paths(model: ConditionalVAE, view: View, x: Tensor, noise: Tensor) -> Grid:
    """From one condition to the next with one noise ε for all: p(y|x_t,z), z from p(z|x_t).

    x_t = (1 − t) x₀ + t x₁ is given to prior and decoder, which have seen only the ends of it.

    Args:
        model: the composition.
        view: of its data.
        x: the conditions of both ends, (2, B, …).
        noise: standard-normal ε, (d,).
    """
    conditions = [mix(x, t) for t in _times()]
    ε = noise.expand(x.shape[1], -1)
    images = [view.picture(x_t, model.sample(x_t, ε).mean) for x_t in conditions]
    title = "one noise ε, x moved from one condition to the next"
    return Grid(torch.stack(images, 1), title, columns=_names())


@torch.inference_mode()
def manifold(model: ConditionalVAE, view: View, x: Tensor) -> Grid:
    """A square of decoded z of two dimensions for each condition, at quantiles of its prior.

    z = μ(x) + σ(x) Φ⁻¹(u) with μ, σ of p(z|x) and u = (k + ½)/n in both dimensions, the first to
    the right and the second upwards. Source: Kingma and Welling 2014, figure 4.

    Args:
        model: with two latent dimensions.
        view: of its data.
        x: conditions, (B, …).
    """
    columns = next(number for number in range(PANELS, 0, -1) if len(x) % number == 0)
    side = 20 if len(x) == 1 else 10
    ε = NORMAL.icdf((torch.arange(side) + 0.5) / side)
    noise = torch.stack(torch.meshgrid(ε, -ε, indexing="xy"), -1).unsqueeze(2)
    images = view.picture(x, model.sample(x, noise.expand(-1, -1, len(x), -1)).mean)
    squares = images.permute(2, 3, 0, 4, 1, 5).flatten(2, 3).flatten(3)  # (B, 1, n·H, n·W)
    title = "z at quantiles of p(z|x): z[0] to the right, z[1] upwards"
    starts = range(0, len(x), columns) if len(x) > 1 else ()
    names = [f"{start} to {start + columns - 1}" for start in starts]
    return Grid(squares.unflatten(0, (-1, columns)), title, names)


def mix(ends: Tensor, t: float) -> Tensor:
    """(1 − t) a + t b for both ends a and b, (2, …), exact at both."""
    return (1 - t) * ends[0] + t * ends[1]


def _times() -> Iterator[float]:
    return (step / (STEPS - 1) for step in range(STEPS))


def _names() -> list[str]:
    return [f"t = {t:.1f}" if t in (0, 1) else f"{t:.1f}" for t in _times()]

"""Pictures of what an evaluation measured."""

from io import BytesIO
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cvae.data.views import View
from cvae.evaluation.latents import Latents
from cvae.files import write_atomically
from cvae.model import ConditionalVAE

SHOWN = 10  # examples in a row
COLOUR, OTHER = "#2b6cb0", "#c05621"
NORMAL = torch.distributions.Normal(0.0, 1.0)


def plot_kl(latents: Latents, labels: Tensor) -> Figure:
    """KL of each latent dimension, the largest first, and of each class."""
    kl = latents.kl_per_dimension
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    means, order = kl.mean(0).sort(descending=True)
    colours = [COLOUR if active else "#cbd5e0" for active in latents.active[order]]
    left.bar(range(len(means)), means.tolist(), color=colours)
    left.set_xlabel("latent dimension, sorted (grey: not active)")
    left.set_ylabel("KL, nats")
    classes = labels.unique()
    right.bar(
        classes.tolist(),
        [kl[labels == label].sum(1).mean().item() for label in classes],
        color=COLOUR,
    )
    right.set_xticks(classes.tolist())
    right.set_xlabel("class")
    return _plain(figure)


def plot_aggregate(latents: Latents) -> Figure:
    """Histograms of z from the aggregate posterior and prior, in the dimensions that say most."""
    dimensions = latents.kl_per_dimension.mean(0).argsort(descending=True)[:6].tolist()
    figure = Figure(figsize=(9, 4), layout="constrained")
    noise = torch.randn(latents.posterior_mean.shape, generator=torch.Generator().manual_seed(0))
    posterior = latents.posterior_mean + latents.posterior_scale * noise
    prior = latents.prior_mean + latents.prior_scale * noise.flip(0)
    for axes, dimension in zip(figure.subplots(2, 3).flat, dimensions, strict=False):
        both = torch.cat([posterior[:, dimension], prior[:, dimension]])
        low, high = both.quantile(torch.tensor([0.001, 0.999])).tolist()
        bins = torch.linspace(low, high, 60).tolist()
        for z, colour, name in ((posterior, COLOUR, "q(z)"), (prior, OTHER, "p(z)")):
            axes.hist(
                z[:, dimension].tolist(),
                bins,
                density=True,
                histtype="step",
                color=colour,
                label=name,
            )
        axes.set_title(f"z[{dimension}]", fontsize="small")
        axes.set_yticks([])
    figure.axes[0].legend(frameon=False)
    return _plain(figure)


@torch.inference_mode()
def plot_reconstructions(model: ConditionalVAE, view: View, x: Tensor, y: Tensor) -> Figure:
    """Examples, what q(z|x,y) makes of them, and what p(z|x) makes of their condition alone."""
    x, y = x[:SHOWN], y[:SHOWN]
    posterior, prior = model.encoder(x, y).mean, model.prior(x).mean
    rows = {
        "y": y,
        "mean of q(z|x,y)": model.decoder(x, posterior).mean,
        "mean of p(z|x)": model.decoder(x, prior).mean,
    }
    figure = Figure(figsize=(9, 3), layout="constrained")
    grid = figure.subplots(len(rows), SHOWN)
    for axes_row, (name, images) in zip(grid, rows.items(), strict=True):
        for axes, picture in zip(axes_row, view.picture(x, images).cpu(), strict=True):
            axes.imshow(picture[0].tolist(), cmap="gray", vmin=0, vmax=1)
            axes.set_axis_off()
        axes_row[0].set_title(name, fontsize="small", loc="left")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=150)
    write_atomically(path, buffer.getvalue())


def _plain(figure: Figure) -> Figure:
    """Without the frame that a reader has no use for."""
    axes: Axes
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure

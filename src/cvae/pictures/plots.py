"""Plots of how a model uses its latent variables."""

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from cvae.evaluation.latents import Latents
from cvae.noise import Stream, generator
from cvae.pictures.plane import Plane
from cvae.pictures.style import CLASSES, COLOUR, FAINT, GREY, OTHER, plain

OUTLINE = withStroke(linewidth=3, foreground="white")


def plot_kl(latents: Latents, labels: Tensor, names: Sequence[str]) -> Figure:
    """KL of each latent dimension, the largest first, and of each class."""
    kl = latents.kl_per_dimension
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    means, order = kl.mean(0).sort(descending=True)
    colours = [COLOUR if active else FAINT for active in latents.active[order]]
    left.bar(range(len(means)), means.tolist(), color=colours)
    left.set_xlabel("latent dimensions, the largest first (pale: not active)")
    left.set_ylabel("KL, nats")
    classes = labels.unique()
    right.bar(
        classes.tolist(),
        [kl[labels == label].sum(1).mean().item() for label in classes],
        color=COLOUR,
    )
    right.set_xticks(classes.tolist(), [names[label] for label in classes])
    right.set_xlabel("class")
    left.set_title("KL(q(z|x,y) ‖ p(z|x)) of each dimension", fontsize="medium", loc="left")
    right.set_title("of each class, all dimensions", fontsize="medium", loc="left")
    return plain(figure)


def plot_aggregate(latents: Latents, seed: int) -> Figure:
    """Histograms of z from the aggregate posterior and prior, in the dimensions that say most."""
    dimensions = latents.kl_per_dimension.mean(0).argsort(descending=True)[:6].tolist()
    rows, columns = math.ceil(len(dimensions) / 3), min(3, len(dimensions))
    figure = Figure(figsize=(3 * columns, 2 * rows), layout="constrained")
    draws = generator(Stream.PICTURES, seed, 3)
    noise = torch.randn(latents.posterior_mean.shape, generator=draws)
    posterior = latents.posterior_mean + latents.posterior_scale * noise
    prior = latents.prior_draws(draws)
    for place, dimension in enumerate(dimensions, start=1):
        axes = figure.add_subplot(rows, columns, place)
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
    return plain(figure)


def plot_posterior_means(
    latents: Latents, labels: Tensor, names: Sequence[str], some: Tensor
) -> Figure:
    """Posterior means, a colour a class, over the contours of the prior at 1 and 2 σ.

    In more than two dimensions both are projected onto the first two principal directions of the
    posterior means. A fixed prior has one pair of contours, a prior that depends on the class alone
    one for each, of each of its components; where each example has its own, the prior means stand
    beside the posterior ones.

    Args:
        latents: of the examples, of two dimensions or more.
        labels: of the examples, (N,).
        names: of the labels.
        some: positions of those that are shown.
    """
    plane, priors = Plane.of(latents.posterior_mean), _priors(latents, labels)
    shown = {"means of q(z|x,y), contours of p(z|x) at 1 and 2 σ": latents.posterior_mean}
    if not priors:
        prior = "p(z|x)" if latents.prior_mean.shape[1] == 1 else "p(z|x), the heaviest component"
        shown = {
            "means of q(z|x,y)": latents.posterior_mean,
            f"means of {prior}": latents.heaviest,
        }
    figure = Figure(figsize=(1 + 5.5 * len(shown), 5.5), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (name, means) in zip(panels, shown.items(), strict=True):
        points(axes, plane(means[some]), labels[some], names)
        axes.set(xlabel=plane.names[0], ylabel=plane.names[1], aspect="equal")
        axes.set_title(name, fontsize="medium", loc="left")
        axes.label_outer()
    _contours(panels[0], plane, priors)
    side_legend(panels[-1])
    return plain(figure)


def side_legend(axes: Axes) -> None:
    """The names of points, beside them, with dots large enough to tell their colours."""
    legend = axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    for handle in legend.legend_handles:
        assert isinstance(handle, PathCollection)
        handle.set(sizes=[30], alpha=1)


def _contours(axes: Axes, plane: Plane, priors: Mapping[int, Latents]) -> None:
    """At 1 and 2 σ of each prior, and its class at its mean if there are several."""
    alone = len(priors) == 1
    for label, prior in priors.items():
        colour = CLASSES[label % len(CLASSES)]
        for mean, scale in zip(prior.prior_mean[0], prior.prior_scale[0], strict=True):
            for radius in (1, 2):
                across, up = plane.ellipse(mean, scale, radius).T.tolist()
                axes.plot(across, up, color=GREY if alone else colour, linewidth=1.6 / radius)
        if not alone:
            x, y = plane(prior.heaviest[0]).tolist()
            name = axes.text(x, y, str(label), color=colour, weight="bold", zorder=9)
            name.set(ha="center", va="center", fontsize="x-large", path_effects=[OUTLINE])


def _priors(latents: Latents, labels: Tensor) -> dict[int, Latents]:
    """Groups of examples with one prior: all of them, those of each class, or none."""
    classes = {label: latents.of(labels == label) for label in labels.unique().tolist()}
    if _share_prior(latents):
        return {0: latents}
    return classes if all(map(_share_prior, classes.values())) else {}


def _share_prior(latents: Latents) -> bool:
    numbers = (latents.prior_mean, latents.prior_scale, latents.prior_log_weight)
    return all(torch.allclose(n, n[:1].expand_as(n), rtol=1e-3, atol=1e-4) for n in numbers)


def points(axes: Axes, places: Tensor, labels: Tensor, names: Sequence[str]) -> None:
    """Points (N, 2), a colour a label (N,), each label with its name; −1 is the last name, grey."""
    for label in labels.unique().tolist():
        across, up = places[labels == label].T.tolist()
        colour = GREY if label < 0 else CLASSES[label % len(CLASSES)]
        axes.scatter(across, up, s=7, color=colour, alpha=0.6, linewidths=0, label=names[label])

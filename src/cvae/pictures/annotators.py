"""Where in the latent space a model draws like which annotator."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cvae.evaluation.latents import Latents
from cvae.evaluation.references import BATCH, masks_of
from cvae.latent import reparameterize
from cvae.memory import at_once
from cvae.model import ConditionalVAE
from cvae.pictures.plane import Plane
from cvae.pictures.plots import points, side_legend
from cvae.pictures.style import plain
from cvae.styles import styles

NOBODY = "nobody"


@torch.inference_mode()
def whose(
    model: ConditionalVAE, x: Tensor, references: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """One z ~ p(z|x) for each x, (N, d), and whose mask is drawn from it, (N,); −1 for nobody's.

    Args:
        model: the composition.
        x: conditions, (N, …).
        references: what each annotator drew of them, (N, A, *y_shape), 0 or 1.
        noise: standard-normal ε, (N, d).
    """
    z, style = [], []
    size = at_once(BATCH, x[0].numel())
    for part in zip(*(tensor.split(size) for tensor in (x, references, noise)), strict=True):
        some, drawn, ε = part
        z.append(reparameterize(model.prior(some), ε))
        masks = masks_of(model, some, z[-1]).unsqueeze(1)
        style.append(styles(masks, drawn.to(masks.device).bool()).squeeze(1))
    return torch.cat(z).cpu(), torch.cat(style).cpu()


def plot_styles(z: Tensor, style: Tensor, names: Sequence[str], latents: Latents) -> Figure:
    """Each z in the plane of the posterior means, in the colour of whose mask is drawn from it.

    Args:
        z: from the prior, (N, d).
        style: of the mask that is drawn from each, (N,); −1 for nobody's.
        names: of the annotators.
        latents: of the data.
    """
    plane = Plane.of(latents.posterior_mean)
    figure = Figure(figsize=(6.5, 5.5), layout="constrained")
    axes = figure.subplots()
    points(axes, plane(z), style, [*names, NOBODY])
    axes.set(xlabel=plane.names[0], ylabel=plane.names[1])
    axes.set_title("z of p(z|x), by whose mask is drawn from it", fontsize="medium", loc="left")
    side_legend(axes)
    return plain(figure)

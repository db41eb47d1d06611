"""Pictures in rows and columns: how samples are laid out to be looked at."""

from io import BytesIO

import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from cvae.data.views import View
from cvae.model import ConditionalVAE

ENLARGED = 2  # screen pixels for each of an image's, along either side


def sample_rows(
    model: ConditionalVAE, view: View, x: Tensor, samples: Tensor, y: Tensor | None = None
) -> Tensor:
    """Samples as pictures (R, B, 1, H, W): a column a condition, a row a sample.

    Where x is a picture, it and the first guess of y, if there is one, stand above the samples, and
    below them y and the samples' standard deviation at each pixel, doubled since ½ is the most.

    Args:
        model: the composition.
        view: puts x and y together.
        x: conditions, (B, …).
        samples: of y, (K, B, …).
        y: the true one, (B, …), shown where x is a picture.
    """
    samples = view.picture(x, samples)
    given = view.condition(x)
    if given is None:
        return samples
    above, below = [given], [2 * samples.std(0, correction=0)]
    if model.first_guess is not None:
        above.append(view.picture(x, model.first_guess(x).mean))
    if y is not None:
        below.insert(0, view.picture(x, y))
    return torch.cat([torch.stack(above), samples, torch.stack(below)])


def grid(rows: Tensor) -> Tensor:
    """Pictures (R, B, 1, H, W) as one picture (3, H', W') in [0, 1], on the CPU."""
    joined = make_grid(rows.flatten(0, 1).float().clamp(0, 1).cpu(), nrow=rows.shape[1])
    return joined.repeat_interleave(ENLARGED, -1).repeat_interleave(ENLARGED, -2)


def png(picture: Tensor) -> bytes:
    """A picture (3, H, W) in [0, 1] as the bytes of a PNG."""
    buffer = BytesIO()
    to_pil_image(picture).save(buffer, format="PNG")
    return buffer.getvalue()

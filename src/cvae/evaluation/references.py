"""Do a model's samples spread as several references for the same input do?"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from cvae.errors import UserError
from cvae.latent import reparameterize
from cvae.memory import at_once
from cvae.metrics import Moments
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator
from cvae.spread import Spread, energy_distance, majority_dice, matched_iou, oracle
from cvae.styles import STYLE_IOU, StyleFrequencies, style_recall
from cvae.wrappers import PriorAsPosterior

NUM_MASKS = 16  # of each input, as Kohl et al. 2018 have
BATCH = 100  # inputs of 28×28
ROWS = BATCH * NUM_MASKS  # masks of 28×28 at once


def masks_of(
    model: ConditionalVAE, x: Tensor, z: Tensor, draws: torch.Generator | None = None
) -> Tensor:
    """p(y=1|x,z) > ½, (…, B, *y_shape) of bool, for x (B, …) and z (…, B, d).

    With a generator to draw from, y ~ p(y|x,z) instead: p(y=1|x,z) > u, u uniform in each pixel.
    """
    mean = model.decoder(x, z).mean
    if draws is None:
        return mean > 0.5
    return mean > torch.rand(mean.shape, device=mean.device, generator=draws)


@torch.inference_mode()
def sampled_masks(
    model: ConditionalVAE,
    x: Tensor,
    num_samples: int,
    seed: int,
    answers: Tensor | None = None,
    drawn: bool = False,
) -> Tensor:
    """Masks p(y=1|x,z) > ½, or y ~ p(y|x,z), (N, S, *y_shape) of bool, on the CPU.

    Args:
        model: the composition, on the device of x.
        x: the conditions, (N, …).
        num_samples: S.
        seed: of z, and of the pixels if they are drawn.
        answers: masks y, (N, S, *y_shape) of bool, each for a z from q(z|x,y); without them z is
            from p(z|x).
        drawn: whether y is drawn from p(y|x,z) instead, of the same z.
    """
    masks, size = [], min(_inputs_at_once(num_samples, x[0].numel()), len(x))
    for place, some in enumerate(tqdm(x.split(size), desc="masks", unit_scale=size, unit="x")):
        if answers is None:
            density = model.prior(some)
        else:
            y = answers[place * size :][: len(some)].to(some)
            density = model.encoder(some, y.transpose(0, 1))
        draws = generator(Stream.GENERATION, seed, place, device=x.device)
        shape = (num_samples, len(some), model.latent_dim)
        z = reparameterize(density, torch.randn(shape, device=x.device, generator=draws))
        found = masks_of(model, some, z, draws if drawn else None)
        masks.append(found.transpose(0, 1).cpu())
    return torch.cat(masks)


def measured(samples: Tensor, references: Tensor, probabilities: Tensor) -> dict[str, Any]:
    """All metrics of samples against references, with standard errors over the examples.

    Args:
        samples: masks, (N, S, …) of bool.
        references: what each annotator drew, (N, A, …) of bool.
        probabilities: of each annotator, (N, A).
    """
    metrics = {
        "ged2": Spread(partial(energy_distance, diagonal=False)),
        "ged2_with_diagonal": Spread(partial(energy_distance, diagonal=True)),
        "hungarian_iou": Spread(matched_iou),
        "style_recall": Spread(style_recall),
        "majority_dice": Spread(majority_dice),
    }
    frequencies = StyleFrequencies(STYLE_IOU, references.shape[1])
    size = _inputs_at_once(samples.shape[1], samples[0, 0].numel())
    parts = (tensor.split(size) for tensor in (samples, references, probabilities))
    for part in zip(*parts, strict=True):
        for metric in (*metrics.values(), frequencies):
            metric.update(*part)
    numbers = {name: _mean_and_error(metric) for name, metric in metrics.items()}
    return {**numbers, "styles": {name: _plain(n) for name, n in frequencies.compute().items()}}


def against_references(
    model: ConditionalVAE,
    x: Tensor,
    references: Tensor,
    probabilities: Tensor,
    names: Sequence[str],
    num_samples: int,
    seed: int,
) -> dict[str, Any]:
    """The spread of a model's samples, and of others that say what it is short of.

    - `drawn`: masks whose pixels are drawn from p(y|x,z) vary by what z leaves open too, each pixel
      by itself; only where the likelihood is of 0/1.
    - `posterior`: with z from q(z|x,y) of the oracle's, the most that a p(z|x) which follows q
      could gain, since q reads this image's own masks, whose edges x does not show and no p(z|x)
      can know; only where q is not the prior itself.
    - `oracle`: draws from the references.

    Args:
        model: the composition, on the device of x.
        x: the conditions, (N, …).
        references: what each annotator drew, (N, A, *y_shape), 0 or 1.
        probabilities: of each annotator, (N, A).
        names: of the annotators.
        num_samples: masks of each input.
        seed: of all draws.
    """
    truth = references.bool().cpu(), probabilities.cpu()
    best = oracle(*truth, num_samples, generator(Stream.REFERENCES, seed))
    known = {}
    nowhere = x.new_zeros(1, model.latent_dim)
    if model.decoder(x[:1], nowhere).support.is_discrete:
        known["drawn"] = measured(sampled_masks(model, x, num_samples, seed, drawn=True), *truth)
    if not isinstance(model.encoder, PriorAsPosterior):
        known["posterior"] = measured(sampled_masks(model, x, num_samples, seed, best), *truth)
    return {
        "num_samples": num_samples,
        "style_iou": STYLE_IOU,
        "annotators": list(names),
        **measured(sampled_masks(model, x, num_samples, seed), *truth),
        **known,
        "oracle": measured(best, *truth),
    }


def check_num_masks(num_samples: int) -> None:
    """Refuse fewer masks than there is a distance between.

    Raises:
        UserError: there are.
    """
    if num_samples < 2:
        raise UserError(f"--masks {num_samples}: GED² needs 2 masks of an input or more")


def _inputs_at_once(num_samples: int, pixels: int) -> int:
    return max(1, at_once(ROWS, pixels) // num_samples)


def _plain(numbers: Tensor) -> Any:
    """Nested lists, with null for what is not a number, which JSON does not know."""
    if numbers.ndim:
        return [_plain(some) for some in numbers]
    return None if numbers.isnan() else numbers.item()


def _mean_and_error(metric: Moments) -> dict[str, float]:
    found = metric.compute()
    return {name: found[name].item() for name in ("mean", "standard_error")}

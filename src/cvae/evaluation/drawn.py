"""What a model draws, measured by what its data are: digits by a judge, masks by references."""

import logging
from functools import singledispatch
from typing import Any

from cvae.data.annotated import AnnotatedData
from cvae.data.base import InMemory
from cvae.data.examples import Examples
from cvae.data.module import ImageData
from cvae.data.views import shows_x
from cvae.evaluation.generation import Generation, sampled_pictures
from cvae.evaluation.judge import judge_of, pictures
from cvae.evaluation.references import against_references
from cvae.model import ConditionalVAE

log = logging.getLogger(__name__)


@singledispatch
def drawn(
    data: InMemory,
    model: ConditionalVAE,
    examples: Examples,
    split: str,
    seed: int,
    num_masks: int,
) -> dict[str, Any]:
    """Numbers of a model's samples, by a name for their kind; none of data of another kind.

    The judge says nothing of val: it was trained on these images, and its numbers of real ones are
    of test.

    Args:
        data: of the run.
        model: on some device.
        examples: of the split.
        split: test or val.
        seed: of all draws.
        num_masks: of each input, against references.
    """
    return {}


@drawn.register
def _(
    data: ImageData,
    model: ConditionalVAE,
    examples: Examples,
    split: str,
    seed: int,
    num_masks: int,
) -> dict[str, Any]:
    if split == "val":
        log.info("left out: the judge's numbers (it was trained on the validation images)")
        return {}
    arrays = data.source.load(data.root)
    judge = judge_of(data.source.name, arrays)
    device = next(model.parameters()).device
    sampled = sampled_pictures(model, data.view, examples.x.to(device), seed)
    real, shared = pictures(arrays.test_images), shows_x(data.view)
    return {"judge": Generation(judge, sampled, real, examples.labels, shared).numbers()}


@drawn.register
def _(
    data: AnnotatedData,
    model: ConditionalVAE,
    examples: Examples,
    split: str,
    seed: int,
    num_masks: int,
) -> dict[str, Any]:
    assert examples.references is not None
    x = examples.x.to(next(model.parameters()).device)
    truth = examples.references, data.probabilities(split)
    return {"references": against_references(model, x, *truth, data.names, num_masks, seed)}

"""Each part of a judge's recipe counts, and the same recipe makes the same judge."""

from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from cvae.data.source import Arrays
from cvae.evaluation import judge_training
from cvae.evaluation.judge import Judge, pictures
from cvae.evaluation.judge_training import RECIPE, Recipe, trained

OTHERS: dict[str, Any] = {
    "steps": 2,
    "batch": 50,
    "rate": 1e-3,
    "weight_decay": 0.1,
    "smoothing": 0.1,
    "grey": 0.0,
    "degrees": 20.0,
    "shift": 0.2,
    "scale": (0.5, 1.5),
    "seed": 1,
}


def test_each_part_of_the_recipe_makes_another_judge(arrays: Arrays) -> None:
    few, labels = pictures(arrays.train_images[:400]), arrays.train_labels[:400].long()
    recipe = replace(RECIPE, steps=4)

    def weights(of: Recipe) -> Tensor:
        return parameters_to_vector(trained(Judge, few, labels, of).parameters())

    state = torch.random.get_rng_state()
    kept = weights(recipe)
    assert torch.equal(weights(recipe), kept)
    assert OTHERS.keys() == asdict(recipe).keys()
    for name, value in OTHERS.items():
        assert not torch.equal(weights(replace(recipe, **{name: value})), kept), name
    assert torch.equal(torch.random.get_rng_state(), state)


def test_no_image_comes_again_before_all_others_have() -> None:
    recipe = Recipe(batch=10)
    order = torch.stack(list(islice(judge_training._batches(40, recipe), 12)))
    passes = order.reshape(3, 40)
    assert torch.equal(passes.sort().values, torch.arange(40).expand(3, 40))
    assert len(passes.unique(dim=0)) == 3

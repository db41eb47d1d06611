"""The judge that is kept, and when another is trained."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cvae.checkpoint import read_checkpoint, write_checkpoint
from cvae.data.source import Arrays
from cvae.errors import UserError
from cvae.evaluation import judge as judge_module
from cvae.evaluation.judge import Judge, frechet_distance, judge_of, pictures
from cvae.evaluation.judge_training import RECIPE, Recipe
from short_judge import SHORT, short_judge_of
from test_judge_training import OTHERS

Untrained = Callable[[], Judge]


def test_a_judge_tells_digits_apart_and_is_trained_only_once(
    judged: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_module, "trained", lambda *_: pytest.fail("trained again"))
    state = torch.random.get_rng_state()
    kept = short_judge_of("mnist", arrays, judged / "outputs")
    # a third of the images are enough for 0.987, with an error of 0.001 over 10,000
    assert kept.right > 0.98
    assert (
        kept.right == kept.correct(pictures(arrays.test_images), arrays.test_labels.long()).mean()
    )
    assert kept.frechet_of_train == frechet_distance(
        kept, pictures(arrays.train_images[:10_000]), pictures(arrays.test_images)
    )
    assert not kept.training
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's draws have moved


def test_a_judge_of_other_files_is_trained_again(
    judged: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {**arrays.record, "t10k-images-idx3-ubyte": "another"}
    monkeypatch.setattr(judge_module, "trained", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        short_judge_of("mnist", arrays._replace(record=changed), judged / "outputs")


@pytest.mark.parametrize("name", OTHERS)
def test_a_judge_of_another_recipe_is_trained_again_by_it(
    judged: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked: list[Recipe] = []

    def trained(*arguments: Any) -> Judge:
        asked.append(arguments[-1])
        raise ZeroDivisionError

    monkeypatch.setattr(judge_module, "trained", trained)
    other = replace(SHORT, **{name: OTHERS[name]})
    for words, recipe in (({"recipe": other}, other), ({}, RECIPE)):
        with pytest.raises(ZeroDivisionError):
            judge_of("mnist", arrays, judged / "outputs", **words)
        assert asked.pop() == recipe
    assert asdict(SHORT).keys() == OTHERS.keys()


def _with(place: int, layer: Callable[[], nn.Module]) -> Untrained:
    """Judges with another layer in a place."""

    def untrained() -> Judge:
        judge = Judge()
        judge.features[place] = layer()
        return judge

    return untrained


@pytest.mark.parametrize(
    ("place", "layer"),
    [
        (2, nn.SiLU),
        (6, lambda: nn.AvgPool2d(2)),
        (3, lambda: nn.Conv2d(32, 64, 3, 1, padding=2, dilation=2, bias=False)),
        (12, lambda: nn.Linear(1152, 64, bias=False)),
    ],
    ids=["activation", "pooling", "dilation", "weights"],
)
def test_a_judge_of_other_layers_is_trained_again(
    arrays: Arrays,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: int,
    layer: Callable[[], nn.Module],
) -> None:
    """Those with the same weights and those with others, whose file would not fit."""
    some = {f"test_{of}": getattr(arrays, f"test_{of}")[:200] for of in ("images", "labels")}
    few = arrays._replace(**some)
    once = replace(SHORT, steps=1)
    monkeypatch.setattr(judge_module, "Judge", _with(place, layer))
    judge_of("mnist", few, tmp_path, once)
    path = tmp_path / "judges" / "mnist.ckpt"
    before = read_checkpoint(path)["made_from"]
    monkeypatch.setattr(judge_module, "Judge", Judge)
    kept = judge_of("mnist", few, tmp_path, once)
    after = read_checkpoint(path)["made_from"]
    assert {name for name in after if after[name] != before[name]} == {"layers"}
    monkeypatch.setattr(judge_module, "trained", lambda *_: pytest.fail("trained again"))
    again = judge_of("mnist", few, tmp_path, once).state_dict()
    assert all(torch.equal(again[name], kept.state_dict()[name]) for name in again)


def test_a_file_that_holds_no_judge_is_refused(
    tmp_path: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_module, "trained", lambda *_: pytest.fail("trained instead"))
    path = tmp_path / "judges" / "mnist.ckpt"
    made_from = judge_module._made_from(arrays, RECIPE)
    write_checkpoint({"made_from": made_from, "state_dict": {"weight": torch.zeros(1)}}, path)
    for _ in range(2):
        with pytest.raises(UserError, match="does not hold a judge: delete it"):
            judge_of("mnist", arrays, tmp_path)
        path.write_bytes(path.read_bytes()[:100])  # cut short


@pytest.mark.slow
def test_the_judge_is_right_on_99_3_percent_of_the_test_images(
    arrays: Arrays, tmp_path: Path
) -> None:
    state = torch.random.get_rng_state()
    judge = judge_of("mnist", arrays, tmp_path)
    assert judge.right >= 0.993
    thresholded = (pictures(arrays.test_images) > 0.5).float()
    assert judge.correct(thresholded, arrays.test_labels.long()).mean() >= 0.993
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's draws have moved


def test_the_frechet_distance_is_small_between_real_halves_and_large_to_noise(
    judge: Judge, arrays: Arrays
) -> None:
    real = pictures(arrays.test_images)
    near = frechet_distance(judge, real[:5000], real[5000:])
    noise = torch.rand(5000, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(judge, real[:5000], real[:5000]) == pytest.approx(0, abs=1e-3)
    # an order of magnitude: noise shows nothing of a digit, two halves the same digits
    assert 0 < near < frechet_distance(judge, noise, real[5000:]) / 10

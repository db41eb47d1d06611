"""Several references for one input, from a folder of the user's own to numbers and pictures."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from ambiguous import OFTEN, SIDE, ambiguous, squares
from conftest import FEW, last_of_each
from cvae.data.examples import Examples
from cvae.data.views import Segmentation
from cvae.densities import StandardNormal
from cvae.errors import UserError
from cvae.evaluation.data import split_of
from cvae.evaluation.references import (
    NUM_MASKS,
    _inputs_at_once,
    against_references,
    masks_of,
    measured,
    sampled_masks,
)
from cvae.evaluation.report import table
from cvae.masks import iou
from cvae.memory import at_once
from cvae.metrics import mean_and_error
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator
from cvae.pictures.annotators import plot_styles, whose
from cvae.pictures.grid import samples
from cvae.pictures.subject import Subject
from cvae.run import Run
from cvae.spread import energy_distance, majority_dice, matched_iou, oracle
from cvae.styles import STYLE_IOU, shares, style_recall
from cvae.training.fit import fit
from cvae.wrappers import PriorAsPosterior
from gaussian_latents import gaussian_latents
from warm import Warm

NAMES = ["annotator 1", "annotator 2"]
OTHERS = {
    "without z": "baseline",
    "with y drawn from p(y|x,z)": "drawn",
    "with z from q(z|x,y)": "posterior",
    "samples of the references themselves": "oracle",
}


def test_a_model_learns_both_annotators(evaluated: dict[str, Any]) -> None:
    results, found = evaluated, evaluated["references"]
    assert "judge" not in results
    assert found["annotators"] == NAMES
    assert found["num_samples"] == NUM_MASKS
    assert abs(found["oracle"]["ged2"]["mean"]) < 5 * found["oracle"]["ged2"]["standard_error"]
    # one answer for all would be the first annotator's: 2 · ¼ · d − 2 · ¾ · ¼ · d, d = 1 − 16/25;
    # more than half of the way from that to the oracle's 0 is behind it
    assert found["ged2"]["mean"] < 0.5 * 0.36 / 8
    observed = found["styles"]["observed"]
    # nearer to what they answer than to either alone, or to both alike
    assert observed == pytest.approx(OFTEN, abs=0.25 / 2)
    # sixteen samples then miss the rarer of the two in (1 − 0.125)¹⁶ = 12% of the inputs at most
    assert found["style_recall"]["mean"] > 1 - 0.12 / 2


def apart(node: Any, numbers: Iterator[int]) -> Any:
    """The same JSON with other numbers, no two alike."""
    if isinstance(node, dict):
        return {name: apart(inner, numbers) for name, inner in node.items()}
    if isinstance(node, list):
        return [apart(inner, numbers) for inner in node]
    return next(numbers) / 1000 if isinstance(node, float) else node


def test_each_row_that_is_printed_shows_its_own_numbers(evaluated: dict[str, Any]) -> None:
    found = apart(evaluated["references"], count(1))
    rows = dict[str, list[str]]()
    for line in table({**evaluated, "references": found}).splitlines():
        name, *cells = re.split(" {2,}", line.strip())
        rows[name] = cells
    for name, key, digits in (
        ("GED²", "ged2", 4),
        ("GED² with the diagonal", "ged2_with_diagonal", 4),
        ("IoU, matched one to one", "hungarian_iou", 3),
        ("styles found", "style_recall", 3),
        ("Dice of the majorities", "majority_dice", 3),
    ):
        others = ", ".join(
            f"{said} {shown(found[whose], key, digits)}" for said, whose in OTHERS.items()
        )
        assert rows[f"{name}, 16 samples"] == [shown(found, key, digits), others]
    closed, said = rows["GED² gap closed"]
    assert closed == f"{found['gap_closed']:.1%}"
    assert said == "of the gap from without z to samples of the references themselves"
    styles, alone = found["styles"], found["baseline"]["styles"]
    for place, name in enumerate(NAMES):
        ours, theirs = (share(one, "observed", place) for one in (styles, alone))
        expected = f"the annotator answers {styles['expected'][place]:.2%}, without z {theirs}"
        assert rows[f"drawn like {name}"] == [ours, expected]
    nobody = (f"{said} {share(found[whose]['styles'], 'none')}" for said, whose in OTHERS.items())
    said = ", ".join((f"IoU {found['style_iou']} or less", *nobody))
    assert rows["drawn like nobody"] == [share(styles, "none"), said]
    others = ", ".join(
        f"{said} {found[whose]['styles']['largest_error']:.3f}" for said, whose in OTHERS.items()
    )
    assert rows["largest error of a frequency"] == [f"{styles['largest_error']:.3f}", others]


def shown(numbers: dict[str, Any], key: str, digits: int) -> str:
    mean, error = numbers[key]["mean"], numbers[key]["standard_error"]
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def share(styles: dict[str, Any], key: str, *place: int) -> str:
    mean, error = styles[key], styles[f"{key}_standard_error"]
    for one in place:
        mean, error = mean[one], error[one]
    return f"{mean:.2%} ± {error:.2%}"


def test_other_numbers_of_masks_are_drawn_and_told(
    squares_run: Run, warm: Warm, tmp_path: Path
) -> None:
    shutil.copytree(squares_run.folder, tmp_path / "run")
    run, num = Run(tmp_path / "run"), 5
    command = warm.start("cvae.evaluate", str(run.folder), *FEW, "--masks", str(num)).wait()
    assert "GED², 5 samples" in command.output
    found = json.loads(run.evaluation().read_text())["references"]
    assert found["num_samples"] == num
    data, test = split_of(run, "test")
    assert test.references is not None
    truth = test.references.bool(), data.datasets["test"].tensors[2]
    best = oracle(*truth, num, generator(Stream.REFERENCES, 0))
    model = run.load_model()
    drawn = {
        "oracle": best,
        "posterior": sampled_masks(model, test.x, num, 0, best),
        "drawn": sampled_masks(model, test.x, num, 0, drawn=True),
        "": sampled_masks(model, test.x, num, 0),
    }
    for whose_masks, masks in drawn.items():
        numbers = found[whose_masks] if whose_masks else found
        # E d(S, S′) / 5: all pairs have N (N − 1) of the N² that are not 0
        distance = (1 - iou(masks, masks)).sum((1, 2)) / (num * (num - 1))
        fifth = numbers["ged2_with_diagonal"]["mean"] - numbers["ged2"]["mean"]
        assert fifth == pytest.approx(distance.mean().item() / num)
    # of the oracle's a pair is of two annotators, 0.36 apart, with 2 · ¾ · ¼: by hand
    rare = (best == test.references[:, 1:].bool()).flatten(2).all(2).sum(1).double()
    pairs = 2 * rare * (num - rare) / num**2
    fifth = found["oracle"]["ged2_with_diagonal"]["mean"] - found["oracle"]["ged2"]["mean"]
    assert fifth == pytest.approx(0.36 * pairs.mean().item() / (num - 1))
    command = warm.start("cvae.evaluate", str(run.folder), "--masks", "1").wait()
    assert "--masks 1: GED² needs 2 masks of an input or more" in command.error


def test_more_masks_are_of_fewer_inputs_at_once() -> None:
    assert [_inputs_at_once(number, 28 * 28) for number in (2, 16, 1000)] == [800, 100, 1]
    assert _inputs_at_once(16, 56 * 56) == 25
    assert _inputs_at_once(10_000, 28 * 28) == 1


def test_an_epoch_too_short_to_validate_in_is_told_when_its_batches_are_counted(
    compose: Callable[..., dict[str, Any]], tmp_path: Path, of_squares: tuple[str, ...]
) -> None:
    run = Run(tmp_path, compose(*of_squares, "trainer.val_check_interval=11"))
    with pytest.raises(UserError, match=r"val_check_interval=11 is more than the 10 batches of an"):
        fit(run)


def test_pictures_are_of_all_annotators(squares_run: Run, warm: Warm) -> None:
    warm.start("cvae.visualize", str(squares_run.folder)).wait()
    pictures = {path.stem for path in (squares_run.folder / "pictures").glob("*.png")}
    assert {"conditions", "styles", "posterior_means", "kl"} <= pictures
    assert "interpolation_of_conditions" not in pictures


def test_one_annotator_and_one_latent_dimension_are_numbers_and_pictures_too(
    compose: Callable[..., dict[str, Any]], of_squares: tuple[str, ...], tmp_path: Path, warm: Warm
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for seed, split in enumerate(("train", "test")):
        some = squares(40, seed)
        alone = {"images": some["images"], "references": some["references"][:, :1]}
        np.savez(folder / f"{split}.npz", **alone)
    words = (f"data.root={folder}", "model.latent_dim=1", "trainer.max_epochs=1")
    run = Run(tmp_path / "run", compose(*last_of_each((*of_squares, *words))))
    run.begin()
    fit(run)
    command = warm.start("cvae.evaluate", str(run.folder), "--num-samples", "10").wait()
    assert re.search(r"drawn like annotator 1 .* the annotator answers 100\.00%", command.output)
    found = json.loads(run.evaluation().read_text())["references"]
    assert found["styles"]["counts"] == [[0, 0, 0, 0, 40]]
    command = warm.start("cvae.visualize", str(run.folder)).wait()
    assert command.status == 0, command.output
    assert (run.folder / "pictures" / "conditions.png").is_file()


def test_inputs_are_shown_with_all_references_and_sixteen_samples(squares_run: Run) -> None:
    data, test = split_of(squares_run, "test")
    subject = Subject(squares_run.load_model(), data.view, test, seed=0)
    x, truths = subject.singles[0], subject.data.truths(subject.chosen[0])
    rows = samples(subject.model, subject.view, x, subject.noise, truths).rows
    assert list(rows[:3]) == ["x", *NAMES]
    assert len([row for row in rows if row.startswith(("ε", "sample"))]) == NUM_MASKS
    assert list(rows[-2:]) == ["mean", "2 × std. deviation"]


@pytest.mark.parametrize("number", [1, 7, 13, 40])
def test_of_few_inputs_all_are_shown(number: int) -> None:
    x = torch.arange(number).float()
    references = x.reshape(-1, 1).repeat(1, 2).byte()
    subject = Subject(MODEL, Segmentation([1, 6, 6]), Examples(x, x, x, NAMES, references), 0)
    singles = subject.singles[0]
    assert len(singles) == len(singles.unique()) == min(number, 10)
    assert subject.pairs[0].shape == (2, len(singles))


def test_fewer_large_images_are_decoded_at_once() -> None:
    assert at_once(100, 28 * 28) == at_once(100, 5) == 100
    assert at_once(100, 56 * 56) == 25
    assert at_once(100, 10**9) == 1


def test_samples_of_images_by_number(squares_run: Run, warm: Warm, tmp_path: Path) -> None:
    out = tmp_path / "drawn.npz"
    arguments = ("--images", "3,1", "--num-samples", "5", "--out", str(out))
    warm.start("cvae.sample", str(squares_run.folder), *arguments).wait()
    drawn = np.load(out)
    assert drawn["samples"].shape == (5, 2, 1, SIDE, SIDE)
    assert np.array_equal(drawn["x"][:, 0] * 255, squares(120, 2)["images"][[3, 1]])


def test_what_cannot_be_exported_says_so(squares_run: Run, warm: Warm) -> None:
    command = warm.start("cvae.export", str(squares_run.folder)).wait()
    assert command.status == 1
    assert "draws no digits" in command.output


def test_a_folder_that_has_changed_is_noticed(squares_run: Run, warm: Warm, tmp_path: Path) -> None:
    root = Path(squares_run.config["data"]["root"])
    for split in ("train", "val"):
        (tmp_path / f"{split}.npz").write_bytes((root / f"{split}.npz").read_bytes())
    np.savez(tmp_path / "test.npz", **squares(120, 7))
    command = warm.start(
        "cvae.sample", str(squares_run.folder), "--data-root", str(tmp_path), "--out", "a.png"
    ).wait()
    assert command.status == 1
    assert "test has changed since the run began" in command.output


class Coin(nn.Module):
    """p(y|x,z) that is x where z is above 0, and else its opposite."""

    def forward(self, x: Tensor, z: Tensor) -> Distribution:
        heads = (z[..., :1, None, None] > 0).expand(*z.shape[:-1], *x.shape[1:])
        means = torch.where(heads, x, 1 - x)
        return Independent(Bernoulli(probs=means, validate_args=False), 3, validate_args=False)


class Heads(nn.Module):
    """q(z|x,y) that knows whether y is x."""

    def forward(self, x: Tensor, y: Tensor) -> Distribution:
        heads = (x == y).all((-3, -2, -1), keepdim=True).squeeze((-2, -1))
        means = torch.where(heads, 1.0, -1.0).expand(*heads.shape[:-1], 2)
        return Independent(Normal(means, 0.1), 1)


MODEL = ConditionalVAE(Heads(), StandardNormal(2), Coin(), 2)


def test_a_model_that_draws_as_the_annotators_do_scores_as_the_oracle() -> None:
    draws = torch.Generator().manual_seed(0)
    x = (torch.rand(500, 1, 6, 6, generator=draws) > 0.5).float()
    references = torch.stack([x, 1 - x], 1).byte()
    found = against_references(
        MODEL, x, references, torch.full((500, 2), 0.5), ["a", "b"], 16, seed=0
    )
    assert found["posterior"] == found["oracle"]  # each of its draws is drawn again
    for numbers in (found, found["oracle"]):
        # all distances are 1: GED² of one image is 1 − 2·heads·tails/240 − ½, heads of 16 tosses
        error = numbers["ged2"]["standard_error"]
        assert abs(numbers["ged2"]["mean"]) < 4 * error
        assert numbers["ged2_with_diagonal"]["mean"] == pytest.approx(0.5 / 16, abs=4 * error)
        assert numbers["style_recall"]["mean"] > 0.999
        assert numbers["styles"]["observed"] == pytest.approx([0.5, 0.5], abs=0.02)
        assert numbers["styles"]["none"] == 0
        assert numbers["styles"]["expected_per_bin"][0][0] is None
    json.dumps(found, allow_nan=False)


def test_a_q_that_is_the_prior_is_not_sampled_a_second_time() -> None:
    x, prior = torch.ones(3, 1, 6, 6), StandardNormal(2)
    model = ConditionalVAE(PriorAsPosterior(prior), prior, Coin(), 2)
    references, often = torch.stack([x, 1 - x], 1).byte(), torch.full((3, 2), 0.5)
    assert "posterior" not in against_references(
        model, x, references, often, ["a", "b"], 16, seed=0
    )
    wide = ConditionalVAE(PriorAsPosterior(prior), prior, Wide(), 2)
    assert "drawn" not in against_references(wide, x, references, often, ["a", "b"], 16, seed=0)
    # of probabilities 0 and 1 nothing is left to draw but z, which is the same
    drawn, sure = (sampled_masks(model, x, 16, 0, drawn=drawn) for drawn in (True, False))
    assert torch.equal(drawn, sure)
    assert 0 < sure.double().mean() < 1


class Wide(nn.Module):
    """A density of other numbers than 0 and 1."""

    def forward(self, x: Tensor, z: Tensor) -> Distribution:
        means = x.expand(*z.shape[:-1], *x.shape[1:])
        return Independent(Normal(means, 1.0, validate_args=False), 3, validate_args=False)


class Sure(nn.Module):
    """p(y|x,z) with the mean x everywhere."""

    def forward(self, x: Tensor, z: Tensor) -> Distribution:
        means = x.expand(*z.shape[:-1], *x.shape[1:])
        return Independent(Bernoulli(probs=means, validate_args=False), 3, validate_args=False)


def test_a_mask_is_where_its_probability_is_above_one_half() -> None:
    model = ConditionalVAE(Heads(), StandardNormal(2), Sure(), 2)
    x = torch.tensor([0.0, 0.4, 0.5, 0.6, 1.0]).reshape(1, 1, 1, 5)
    expected = torch.tensor([False, False, False, True, True]).reshape(1, 1, 1, 5)
    assert torch.equal(masks_of(model, x, torch.zeros(1, 2)), expected)


def test_a_drawn_pixel_is_1_as_often_as_its_probability_says() -> None:
    """The standard error of a share of 4,000 is 0.008 at most, and 99.9% are within 0.027."""
    model = ConditionalVAE(Heads(), StandardNormal(2), Sure(), 2)
    x = torch.tensor([0.0, 0.1, 0.5, 0.6, 1.0]).reshape(1, 1, 1, 5)
    masks = sampled_masks(model, x, 4000, 0, drawn=True)
    share = masks.double().mean((0, 1)).flatten()
    assert share[[0, 4]].tolist() == [0, 1]
    assert share.tolist() == pytest.approx(x.flatten().tolist(), abs=0.027)
    pair = torch.corrcoef(masks[0, :, 0, 0, 2:4].double().T)  # each pixel by itself
    assert abs(pair[0, 1]) < 0.053


def test_each_number_is_that_of_its_own_function() -> None:
    samples, references, probabilities = ambiguous()
    found = measured(samples, references, probabilities)
    functions: dict[str, Callable[..., Tensor]] = {
        "ged2": partial(energy_distance, diagonal=False),
        "ged2_with_diagonal": partial(energy_distance, diagonal=True),
        "hungarian_iou": matched_iou,
        "style_recall": style_recall,
        "majority_dice": majority_dice,
    }
    for name, function in functions.items():
        numbers = function(samples, references, probabilities)
        assert found[name] == pytest.approx(mean_and_error(numbers))
    share, none = shares(samples, references, probabilities, STYLE_IOU)
    assert found["styles"]["observed"] == pytest.approx(share.mean(0).tolist())
    assert found["styles"]["none"] == pytest.approx(none.mean().item())


def test_a_point_has_the_colour_of_whose_mask_is_drawn_from_it() -> None:
    x, ε = torch.ones(250, 1, 6, 6), torch.randn(250, 2, generator=torch.Generator().manual_seed(0))
    references = torch.stack([x, 1 - x], 1).byte()
    references[7, :] = torch.eye(6, dtype=torch.uint8)  # a sixth of x, none of 1 − x
    z, style = whose(MODEL, x, references, ε)
    expected = torch.where(ε[:, 0] > 0, 0, 1)
    expected[7] = -1
    assert torch.equal(z, ε)
    assert torch.equal(style, expected)
    figure = plot_styles(z, style, NAMES, gaussian_latents(ε, ε.exp(), 0 * ε, 0 * ε + 1))
    found = {str(dots.get_label()): dots.get_offsets() for dots in figure.axes[0].collections}
    for label, name in enumerate([*NAMES, "nobody"]):
        chosen = expected == (label if name in NAMES else -1)
        np.testing.assert_allclose(found[name], ε[chosen].numpy())

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cvae.data.annotated import AnnotatedData
from cvae.data.annotators import HABITS, Annotators
from cvae.data.examples import Batch
from cvae.data.source import MNIST, Arrays
from cvae.data.splits import Split, Splits, digest
from cvae.data.views import Segmentation
from cvae.errors import UserError

HOW_OFTEN = {"faithful": 0.4, "thin": 0.2, "thick": 0.2, "fractured": 0.2}
TRAIN, HELD_OUT = 400, 100


class Few(MNIST):
    """A few of MNIST's digits."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        few = [arrays.train_images[: TRAIN + HELD_OUT], arrays.train_labels[: TRAIN + HELD_OUT]]
        few += [arrays.test_images[:HELD_OUT], arrays.test_labels[:HELD_OUT]]
        self.arrays = Arrays(*few, {"name": "mnist", "folder": ".", "images": "sha256:0"})

    def load(self, root: str | None) -> Arrays:
        return self.arrays


def make(arrays: Arrays, seed: int = 0, **options: Any) -> AnnotatedData:
    settings = {"annotators": list(HABITS), "probabilities": HOW_OFTEN, "style": "always"}
    source = Annotators(Few(arrays), **{**settings, "blur": 1.0, "noise": 0.15, **options})
    source.num_train = TRAIN
    data = AnnotatedData(source, Segmentation([1, 28, 28]), 100, seed)
    data.setup()
    return data


def batch(data: AnnotatedData, step: int, rank: int = 0, world_size: int = 1) -> Batch:
    """The first batch of an epoch, as the training step sees it that many steps in."""
    moment = {"training": True, "global_step": step, "global_rank": rank, "world_size": world_size}
    data.trainer = SimpleNamespace(**moment)  # type: ignore[assignment]
    return data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)


def who(data: AnnotatedData, seen: Batch) -> Tensor:
    """Which annotator drew each y; the first of several who drew the same."""
    references = data.datasets["train"].tensors[1][seen.position]
    return (references == seen.y).flatten(2).all(2).int().argmax(1)


@pytest.fixture(scope="module")
def data(arrays: Arrays) -> AnnotatedData:
    return make(arrays)


def test_each_annotator_draws_by_habit(data: AnnotatedData, arrays: Arrays) -> None:
    test = data.examples("test")
    assert test.references is not None
    for place, (name, habit) in enumerate(HABITS.items()):
        assert test.classes[place] == name
        drawn = torch.from_numpy(habit(arrays.test_images[:HELD_OUT]))
        assert torch.equal(test.references[:, place, 0].bool(), drawn)


def test_x_is_the_digit_blurred_and_noisy(arrays: Arrays) -> None:
    digits = arrays.test_images[:HELD_OUT].unsqueeze(1).float() / 255
    clear = make(arrays, blur=0.0, noise=0.0).examples("test").x
    assert torch.equal(clear, digits)
    blurred = make(arrays, noise=0.0).examples("test").x
    # a Gaussian filter keeps the sum but for what it moves over the edge and for rounding
    torch.testing.assert_close(blurred.sum((1, 2, 3)), digits.sum((1, 2, 3)), rtol=5e-3, atol=0)
    # and adds its variance, of one pixel, to a digit's own: rounding to bytes loses the faint rim
    more = (_height(blurred) - _height(digits)).mean().item()
    assert more == pytest.approx(1.0, abs=0.1)
    noisy = make(arrays, blur=0.0).examples("test").x
    inside = (digits > 0.4) & (digits < 0.6)  # where clamping hardly matters: three deviations away
    deviation = (noisy - digits)[inside].std().item()
    assert deviation == pytest.approx(0.15, rel=0.1)  # of some thousand draws: five errors


def _height(x: Tensor) -> Tensor:
    """The variance of the ink's row, (N,)."""
    ink = x.sum((1, 3)) / x.sum((1, 2, 3)).unsqueeze(1)
    row = torch.arange(28.0)
    return ink @ row.square() - (ink @ row).square()


def test_held_out_answers_are_one_draw_and_the_same_in_every_run(
    data: AnnotatedData, arrays: Arrays
) -> None:
    first, second = data.examples("test"), make(arrays, seed=5).examples("test")
    assert all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))
    assert first.references is not None
    chosen = first.references[torch.arange(HELD_OUT), first.labels]
    assert torch.equal(first.y, chosen.float())
    assert set(first.y.unique().tolist()) == {0, 1}


def test_a_training_step_has_draws_of_its_own(data: AnnotatedData) -> None:
    first, again, later = (batch(data, step) for step in (3, 3, 4))
    assert torch.equal(first.y, again.y)
    assert torch.equal(first.x, later.x)
    assert not torch.equal(first.y, later.y)


def test_the_ranks_together_see_what_one_process_sees(data: AnnotatedData) -> None:
    whole = batch(data, 7)
    parts = [batch(data, 7, rank, 2) for rank in range(2)]
    for alone, together in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(alone, torch.cat(together))


def test_annotators_answer_as_often_as_they_should(data: AnnotatedData) -> None:
    counts = sum(who(data, batch(data, step)).bincount(minlength=4) for step in range(60))
    assert isinstance(counts, Tensor)
    # 6,000 draws: the largest standard error is 0.0063
    expected = torch.tensor(list(HOW_OFTEN.values()))
    assert (counts / counts.sum() - expected).abs().max() < 4 * 0.0063


def test_answers_by_slant_have_the_probabilities_of_their_digits(arrays: Arrays) -> None:
    data = make(arrays, style="by_slant")
    probabilities = data.probabilities("train")
    torch.testing.assert_close(probabilities.sum(1), torch.ones(TRAIN))
    assert probabilities[:, 1].std() > 0.05
    seen = [batch(data, step) for step in range(100)]
    often = torch.zeros(TRAIN, 4)
    for one in seen:
        often[one.position, who(data, one)] += 1
    asked = often.sum(1) > 0  # the first batch's examples
    thin = (often / often.sum(1, keepdim=True))[asked, 1]
    expected = probabilities[asked, 1]
    # z-scores of 100 examples, 100 draws each: their squares have mean 1 and error 0.14
    scores = (thin - expected) / (expected * (1 - expected) / 100).sqrt()
    assert scores.square().mean().item() == pytest.approx(1, abs=0.7)


def test_one_annotator_is_one_reference_for_each_input(arrays: Arrays) -> None:
    data = make(arrays, annotators=["thin"])
    test = data.examples("test")
    assert test.references is not None
    assert test.references.shape == (HELD_OUT, 1, 1, 28, 28)
    assert torch.equal(test.y, test.references[:, 0].float())
    assert torch.equal(data.probabilities("test"), torch.ones(HELD_OUT, 1))


def test_the_mean_is_over_training_answers(
    data: AnnotatedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, references, _, answers, _ = data.datasets["train"].tensors
    drawn = [of_one[who] for of_one, who in zip(references, answers.tolist(), strict=True)]
    mean = torch.stack(drawn).double().mean(0, keepdim=True).float()
    monkeypatch.setattr("cvae.data.base.MOST", TRAIN // 3)  # in parts, the last of them smaller
    torch.testing.assert_close(data.mean(), mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"annotators": ["thin", "thin"]}, "name each once"),
        ({"probabilities": {**HOW_OFTEN, "thick": 0.0}}, "data.probabilities.thick"),
    ],
)
def test_annotators_that_cannot_be(arrays: Arrays, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(arrays, **options)


class Given:
    """The same examples in each of some splits."""

    def __init__(self, split: Split, *names: str) -> None:
        self.split, self.names = split, names

    def has_validation(self, root: str | None) -> bool:
        return "val" in self.names

    def prepare(self, root: str | None) -> None: ...

    def load(self, root: str | None) -> Splits:
        record = {"folder": "f", **dict.fromkeys(self.names, "sha256:0")}
        return Splits(dict.fromkeys(self.names, self.split), ["a", "b"], record)


def given(*names: str) -> AnnotatedData:
    images, masks = torch.zeros(200, 1, 4, 4), torch.zeros(200, 2, 4, 4)
    split = Split(images.byte(), masks.byte(), torch.full((200, 2), 0.5))
    data = AnnotatedData(Given(split, *names), Segmentation([1, 4, 4]), 2)
    data.setup()
    return data


def test_test_answers_do_not_depend_on_whether_there_is_validation() -> None:
    with_val, without = given("train", "val", "test"), given("train", "test")
    assert torch.equal(with_val.examples("test").labels, without.examples("test").labels)
    answers = [with_val.examples(split).labels for split in ("val", "test")]
    assert not torch.equal(*answers)


@pytest.mark.parametrize("now", [("train", "test"), ("train", "val", "test", "more")])
def test_a_split_that_has_come_or_gone_is_noticed(now: tuple[str, ...]) -> None:
    kept = {"given": 0, "hashes": given("train", "val", "test").hashes}
    data = given("train", "val", "test")
    data.load_state_dict(kept)
    data.record = {"folder": "f", **dict.fromkeys(now, "sha256:0")}
    with pytest.raises(UserError, match=r"f/(val|more) has changed"):
        data.load_state_dict(kept)


def test_images_made_otherwise_than_when_the_run_began_are_told_of(
    data: AnnotatedData, arrays: Arrays, caplog: pytest.LogCaptureFixture
) -> None:
    data.trainer = SimpleNamespace(num_training_batches=4)  # type: ignore[assignment]
    data.order = SimpleNamespace(given=0)  # type: ignore[assignment]
    kept = data.state_dict()
    before = {name: value for name, value in kept.items() if name != "made"}  # as it once was
    for told, same in ((kept, make(arrays)), (before, make(arrays, noise=0.1))):
        same.load_state_dict(told)
        assert not caplog.records
    make(arrays, noise=0.1).load_state_dict(kept)
    assert "are not, to the last bit, those that the run began with" in caplog.text


def test_the_digest_is_of_all_bytes_and_shapes() -> None:
    split = Split(torch.zeros(2, 1, 4, 4), torch.zeros(2, 2, 4, 4), torch.ones(2, 2))
    others = [
        Split(split.images + 1, *split[1:]),
        Split(split.images, split.references.flatten(2), split.probabilities),
        Split(*split[:2], split.probabilities / 2),
    ]
    assert len({digest(one) for one in (split, *others)}) == 4
    assert digest(split, split) != digest(split)


def test_images_of_another_shape_than_the_view_s() -> None:
    images, masks = torch.zeros(2, 3, 32, 16), torch.zeros(2, 1, 32, 16)
    tall = Split(images.byte(), masks.byte(), torch.ones(2, 1))
    data = AnnotatedData(Given(tall, "train", "test"), Segmentation([1, 28, 28]), 2)
    with pytest.raises(UserError, match=r"data\.view\.shape=\[3,32,16\]"):
        data.setup()

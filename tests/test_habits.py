import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from cvae.data.annotators import always, by_slant
from cvae.data.habits import HABITS, PERIOD, faithful, fractured, slant, thick, thin
from cvae.data.source import Arrays

EIGHT = np.ones((3, 3))


def bar(width: int, shear: float = 0.0) -> Tensor:
    """A digit of one stroke, 20 pixels high, that leans to the right by so much a row."""
    digit = torch.zeros(1, 28, 28, dtype=torch.uint8)
    for row in range(4, 24):
        left = round(14 - width / 2 + shear * (14 - row))
        digit[0, row, left : left + width] = 255
    return digit


def size(mask: np.ndarray) -> tuple[int, int]:
    """Height and width of what is drawn."""
    rows, columns = mask[0].any(1), mask[0].any(0)
    return int(rows.sum()), int(columns.sum())


@pytest.fixture(scope="module")
def digits(arrays: Arrays) -> Tensor:
    return arrays.train_images[:500]


def test_a_digit_is_ink_above_one_half() -> None:
    digit = torch.tensor([0, 127, 128, 255], dtype=torch.uint8).reshape(1, 2, 2)
    assert faithful(digit).tolist() == [[[False, False], [True, True]]]


def test_a_stroke_becomes_two_pixels_thinner_or_thicker() -> None:
    soft = bar(4)
    soft[0, 4:24, [11, 16]] = 140  # columns at both sides that are just ink
    assert size(faithful(soft)) == (20, 6)
    assert size(thin(soft)) == (20, 4)  # of a pixel with a sharp edge one half is left, enough
    assert size(thick(soft)) == (22, 8)


def test_the_habits_differ_as_their_names_say(digits: Tensor) -> None:
    masks = {name: habit(digits) for name, habit in HABITS.items()}
    whole = masks["faithful"]
    assert (masks["thick"] >= whole).all()
    assert (masks["fractured"] <= whole).all()
    areas = {name: mask.sum() / whole.sum() for name, mask in masks.items()}
    # a stroke of MNIST is three to four pixels wide; a gap is 2.5 pixels of 9
    assert 0.5 < areas["thin"] < 0.75
    assert 1.5 < areas["thick"] < 2.0
    assert 0.65 < areas["fractured"] < 0.8


def test_a_fractured_stroke_comes_apart_where_its_lines_are() -> None:
    mask = fractured(bar(3))
    _, pieces = ndimage.label(mask[0], EIGHT)
    # lines at 45° are √2 periods apart along an upright stroke
    assert pieces in (int(20 / (np.sqrt(2) * PERIOD)) + 1, int(20 / (np.sqrt(2) * PERIOD)) + 2)


def test_most_digits_come_apart(digits: Tensor) -> None:
    def pieces(masks: np.ndarray) -> np.ndarray:
        return np.array([ndimage.label(mask, EIGHT)[1] for mask in masks])

    # MNIST's digits are of one piece, but for a few in a hundred that were broken already
    assert (pieces(faithful(digits)) == 1).mean() > 0.95
    # a stroke 20 pixels high reaches 20 / 2√2 = 7 across the lines either way, past the gaps at
    # ±4.5, unless it leans like a \, as a few in a hundred do
    assert (pieces(fractured(digits)) >= 3).mean() > 0.95


@pytest.mark.parametrize("shear", [-0.5, 0.0, 0.25, 0.5])
def test_slant_is_the_shear_of_a_stroke(shear: float) -> None:
    # the stroke's steps are whole pixels: an error of half a pixel over 20 rows
    assert slant(bar(3, shear)).item() == pytest.approx(shear, abs=0.03)


def test_slant_does_not_depend_on_place_or_grey_level() -> None:
    digit = bar(3, 0.3)
    moved = torch.roll(digit, (2, -4), (1, 2)) // 2
    assert slant(moved).item() == pytest.approx(slant(digit).item(), abs=1e-5)


def test_who_leans_to_the_right_is_drawn_thin_and_to_the_left_thick() -> None:
    weights, tilt = torch.tensor([0.4, 0.2, 0.2, 0.2]), torch.tensor([0.0, 1.0, -1.0, 0.0])
    shears = {0.46: 1.0, -0.14: -1.0, 1.0: 2.0, -1.0: -2.0}  # the last two are beyond the ends
    found = by_slant(weights, tilt, torch.cat([bar(3, shear) for shear in shears]))
    torch.testing.assert_close(found.sum(1), torch.ones(len(shears)).double())
    # p ∝ p exp(c s), but that steps of whole pixels make the slants up to 0.004 larger, and 2 s
    # by 2 · 0.004 / 0.3
    for p, s in zip(found, shears.values(), strict=True):
        assert (p[1] / p[2]).log().item() == pytest.approx(2 * s, abs=0.03)
        assert (p[0] / p[3]).item() == pytest.approx(2.0)


def test_always_is_the_weights_made_to_add_up_to_one() -> None:
    found = always(torch.tensor([2.0, 1.0, 1.0]), torch.zeros(3), bar(3).expand(5, -1, -1))
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.25, 0.25]]).expand(5, -1))

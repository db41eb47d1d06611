import math

import pytest

from cvae.training.schedules import Constant, Cosine


def test_constant_is_one_throughout() -> None:
    assert [Constant()(done) for done in (0, 0.3, 1, 1.5)] == [1] * 4


@pytest.mark.parametrize(
    ("done", "factor"),
    [
        (0, 0),
        (0.1, 0.5),
        (0.2, 1),
        (0.4, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),
        (0.6, 0.55),
        (0.8, 0.1 + 0.9 * (1 - math.sqrt(0.5)) / 2),
        (1, 0.1),
        (1.1, 0.1),
    ],
)
def test_cosine_by_hand(done: float, factor: float) -> None:
    # float64's rounding
    assert Cosine(warmup=0.2, final=0.1)(done) == pytest.approx(factor, abs=1e-12)


def test_cosine_without_a_warmup_falls_from_one_to_zero() -> None:
    schedule = Cosine()
    factors = [schedule(step / 100) for step in range(101)]
    assert factors[0] == 1
    assert factors[-1] == pytest.approx(0, abs=1e-12)
    assert factors == sorted(factors, reverse=True)


@pytest.mark.parametrize("warmup", [0.02, 0.5, 0.99])
def test_cosine_has_no_jump_where_the_warmup_ends(warmup: float) -> None:
    schedule = Cosine(warmup=warmup)
    before, after = schedule(warmup - 1e-9), schedule(warmup + 1e-9)
    # the slopes times 1e-9
    assert before == pytest.approx(1, abs=1e-7)
    assert after == pytest.approx(1, abs=1e-7)

from argparse import ArgumentTypeError

import pytest

from cvae.finished import seed


def test_a_seed_is_a_whole_number_of_32_bits() -> None:
    assert [seed("0"), seed(str(2**32 - 1))] == [0, 2**32 - 1]


@pytest.mark.parametrize("text", ["-1", str(2**32), "1.5", "", "x", "²"])
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="a whole number from 0"):
        seed(text)

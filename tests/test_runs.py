"""Runs by their names."""

from pathlib import Path

import pytest

from cvae.errors import UserError
from cvae.runs import find


def test_a_folder_of_runs_is_answered_with_one_of_them(tmp_path: Path) -> None:
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
    with pytest.raises(
        UserError, match=f"holds several runs: name one of them, such as {tmp_path}/0"
    ):
        find(str(tmp_path))

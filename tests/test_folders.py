"""What comparisons of whole runs rest on: that a difference is found, and told where it is."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from cvae.checkpoint import write_checkpoint
from folders import differences, load

Reference = Callable[..., Path]


def test_another_seed_is_found_in_every_file_that_is_compared(reference: Reference) -> None:
    found = differences(reference(), reference("seed=1"))
    for place in ("last.ckpt/state_dict", "metrics.csv", "config.yaml", "metrics.json"):
        assert any(where.startswith(place) for where in found), place


def test_a_weight_that_is_off_by_its_last_bit_is_named(
    reference: Reference, tmp_path: Path
) -> None:
    folder = shutil.copytree(reference(), tmp_path / "run")
    path = folder / "checkpoints" / "last.ckpt"
    content = load(path)
    write_checkpoint(content, path)
    assert differences(reference(), folder) == []
    name, weight = next(iter(content["state_dict"].items()))
    weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(torch.inf))
    write_checkpoint(content, path)
    assert differences(reference(), folder) == [f"last.ckpt/state_dict/{name}"]

"""What the folders of two runs have in common, to the last bit."""

import json
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

TIMES = {"wall", "seconds", "wall_seconds", "images_per_second"}


def differences(first: Path, second: Path) -> list[str]:
    """Where two runs' checkpoints, tables and final numbers differ, but for the time they took."""
    names = {path.name for folder in (first, second) for path in folder.glob("checkpoints/*")}
    found = [] if "last.ckpt" in names else ["no last.ckpt"]
    for name in sorted(names):
        pair = (folder / "checkpoints" / name for folder in (first, second))
        found += _differ(*(load(path) if path.is_file() else None for path in pair), name)
    for name in ("metrics.csv", "config.yaml"):
        found += _differ(*((folder / name).read_text() for folder in (first, second)), name)
    found += _differ(*(results(folder) for folder in (first, second)), "metrics.json")
    return found


def load(checkpoint: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    return content


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


def names(folder: Path) -> set[str]:
    """Of all files of a run, but for pictures in its `pictures/`: training draws some there too."""
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {str(file) for file in files if file.parts[0] != "pictures"}


def finished(sweep: Path) -> set[str]:
    """The names of a sweep's jobs that have final numbers."""
    return {path.parent.name for path in sweep.glob("*/metrics.json")}


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's scalars of training and validation, all that the files hold."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(point.step, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag.startswith(("train/", "val/"))
    }


def step(folder: Path, name: str = "last") -> int:
    """The step at which a checkpoint was made."""
    count: int = load(folder / "checkpoints" / f"{name}.ckpt")["global_step"]
    return count


def _differ(first: Any, second: Any, where: str) -> list[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        found = [f"{where}: {key}" for key in first.keys() ^ second.keys()]
        for key in first.keys() & second.keys() - TIMES:
            found += _differ(first[key], second[key], f"{where}/{key}")
        return found
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        found = [] if len(first) == len(second) else [f"{where}: {len(first)}, {len(second)} long"]
        for index, pair in enumerate(zip(first, second, strict=False)):
            found += _differ(*pair, f"{where}/{index}")
        return found
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        same = first.dtype == second.dtype and torch.equal(first, second)
        return [] if same else [where]
    return [] if first == second else [f"{where}: {first} and {second}"]

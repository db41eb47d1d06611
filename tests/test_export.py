"""`python -m cvae.export` on runs that the real command has trained."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvae.export import TOLERANCE
from folders import names
from short_judge import BEFORE
from warm import Command, Warm

Export = Callable[..., Command]
GRAPHS = {"model.onnx", "model.int8.onnx"}


@pytest.fixture(scope="module")
def export(warm: Warm, judged: Path) -> Export:
    def run(*arguments: str | Path, before: str = "") -> Command:
        words, before = map(str, arguments), f"{BEFORE}\n{before}"
        return warm.start("cvae.export", *words, before=before, cwd=judged).wait()

    return run


def _results(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "export.json").read_text())
    return results


def test_a_mixture_is_no_graph(export: Export, reference: Callable[..., Path]) -> None:
    folder = reference("prior=mixture")
    done = export(folder)
    assert done.status == 1
    assert f"{folder} has prior=mixture" in done.error
    assert not GRAPHS & names(folder)


def test_a_run_of_digits_has_graphs_and_a_page(
    export: Export, reference: Callable[..., Path], resume: Callable[..., Command], tmp_path: Path
) -> None:
    # a name of a folder, which unlike that in the config may have any letters
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(reference(), folder)
    command = export(folder)
    assert command.status == 0, command.output
    forms = _results(folder)["forms"]
    assert set(forms) == {"checkpoint", "demo.html", *GRAPHS}
    for name in forms.keys() - {"checkpoint"}:
        assert forms[name]["bytes"] == (folder / name).stat().st_size
        assert f"{forms[name]['bytes']:,}" in command.output
    assert 0 < forms["model.onnx"]["max_difference"] < TOLERANCE
    for name in ("model.int8.onnx", "demo.html"):
        assert forms[name]["bytes"] < forms["model.onnx"]["bytes"]
        assert (
            TOLERANCE < forms[name]["mean_difference"] < 2 / 255
        )  # 8 bits of weights, not of pixels
        # five standard errors of 10,000 draws at one half, as if other samples were judged
        assert forms[name]["accuracy"] == pytest.approx(forms["checkpoint"]["accuracy"], abs=0.025)
    text = (folder / "demo.html").read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "<img" not in text

    before = {name: (folder / name).read_bytes() for name in ("export.json", "demo.html", *GRAPHS)}
    assert names(folder) == names(reference()) | set(before)  # what a resumed run takes away
    assert export(folder).status == 0
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert resume(folder, "trainer.max_epochs=4").status == 0  # to other weights
    assert not any((folder / name).exists() for name in before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["network=conv", "likelihood=gaussian"], "train with network=mlp"),
        (["data=quadrants", "model.latent_dim=4"], "the condition of this run is another"),
    ],
)
def test_what_cannot_be_a_page_has_graphs_all_the_same(
    export: Export, reference: Callable[..., Path], overrides: list[str], said: str
) -> None:
    folder = reference(*overrides)
    command = export(folder)
    assert command.status == 0, command.output
    assert f"no demo.html: {_results(folder)['no_page']}" in command.output
    assert said in command.output
    assert not (folder / "demo.html").exists()
    forms = _results(folder)["forms"]
    assert set(forms) == {"checkpoint", *GRAPHS}
    assert forms["model.onnx"]["max_difference"] < TOLERANCE


WRONG = """
from cvae.exporting.graph import Graph
exact = Graph.__call__
Graph.__call__ = lambda self, x, noise: exact(self, x, noise) + 1e-4
"""
MISSING = "import sys; sys.modules['onnxruntime'] = None"


@pytest.mark.parametrize(
    ("before", "said"),
    [(WRONG, "away from PyTorch: nothing was written"), (MISSING, "pip install")],
)
def test_without_a_checked_graph_nothing_is_written(
    export: Export, reference: Callable[..., Path], tmp_path: Path, before: str, said: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(reference(), folder)
    command = export(folder, before=before)
    assert command.status == 1
    assert said in command.error
    assert not any((folder / name).exists() for name in ("export.json", "demo.html", *GRAPHS))


@pytest.mark.parametrize(
    ("folder", "said"),
    [("nowhere", "nowhere is not a run's folder"), ("latest", "no run with a checkpoint")],
)
def test_a_mistake_ends_with_one_line(export: Export, folder: str, said: str) -> None:
    command = export(folder)
    assert command.status == 1
    assert said in command.error

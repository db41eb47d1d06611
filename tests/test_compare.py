"""Runs side by side: numbers by hand, folders by hand, and the real command over real runs."""

import csv
import io
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from omegaconf import OmegaConf

from conftest import TINY
from cvae.compare import compare
from cvae.comparison.curves import _lines
from cvae.comparison.groups import Comparison
from cvae.comparison.history import Curve, read_curves
from cvae.comparison.keys import differing, value_of
from cvae.comparison.rows import read_row
from cvae.comparison.sizes import draw_line, lines_against, swept_key
from cvae.comparison.table import as_csv, averages, runs, table
from cvae.errors import UserError
from cvae.run import Run
from warm import Command, Warm

Make = Callable[..., Path]
DATA = {"name": "mnist", "train-images-idx3-ubyte": "sha256:00"}
CURVES = "epoch,step,train/elbo,train/reconstruction,train/kl,val/elbo,val/reconstruction,val/kl\n"


@pytest.fixture
def make(compose: Callable[..., dict[str, Any]], tmp_path: Path) -> Make:
    """Writes a run's folder: a composed config, and the numbers that a test asks for."""

    def folder(
        name: str, elbo: float | None, *overrides: str, more: dict[str, Any] | None = None
    ) -> Path:
        path = tmp_path / name
        path.mkdir(parents=True)
        OmegaConf.save(compose("experiment=smoke", *overrides), path / "config.yaml")
        rows = [f"{epoch},{epoch}0,-9,-8,1,{-5 / epoch},-4,{epoch}\n" for epoch in (1, 2, 3)]
        (path / "metrics.csv").write_text(CURVES + "".join(rows))
        if elbo is not None:
            final = {
                "test/elbo": elbo,
                "test/reconstruction": elbo + 20,
                "test/kl": 20.0,
                "test/active_units": 7.0,
                "test/examples": 1000.0,
                "epochs": 3,
                "wall_seconds": 12.3,
                "density": "log-probability of 0/1 pixels",
                "data": DATA,
            }
            (path / "metrics.json").write_text(json.dumps(final | (more or {})))
        return path

    return folder


def evaluation(
    folder: Path, nll: float, samples: int, tenth: float | None = None, **more: Any
) -> None:
    estimates = {"importance": {"mean": nll, "mean_of_repeats": nll if tenth is None else tenth}}
    content = {"num_samples": samples, "nll": estimates, **more}
    (folder / "evaluation.json").write_text(json.dumps(content))


def cells(comparison: Comparison) -> list[dict[str, str]]:
    """The table's lines by heading."""
    split = [line.split("\t") for line in table(comparison, "tsv").splitlines()]
    headings, *lines = [[cell.strip() for cell in line] for line in split]
    return [dict(zip(headings, line, strict=True)) for line in lines]


def of(*folders: Path, keys: tuple[str, ...] = ()) -> Comparison:
    return Comparison([read_row(Run(folder)) for folder in folders], keys)


def test_runs_of_different_quadrants_are_not_averaged(make: Make) -> None:
    parts = [make(f"q{n}", -90.0 / n, "data=quadrants", f"data.observed={n}") for n in (1, 3)]
    comparison = of(*parts, keys=("model",))
    assert comparison.conditions == ["pixels"]
    assert [line["pixels"] for line in cells(comparison)] == ["196", "588"]


def test_seeds_are_averaged_and_settings_are_not(make: Make) -> None:
    """-90, -92, -97: mean -93, deviations 3, 1, -4, so sqrt(26 / 2) = 3.606."""
    elbos = enumerate((-90.0, -92.0, -97.0))
    bar = "trainer.enable_progress_bar"  # which changes no number
    runs = [make(f"a{s}", e, f"seed={s}", f"{bar}={s == 0}") for s, e in elbos]
    wide = make("wide", -80.0, "model.latent_dim=128", "seed=5")
    comparison = of(wide, *runs)
    assert comparison.keys == ["model.latent_dim"]
    assert cells(comparison) == [
        {
            "model.latent_dim": "64",
            "n": "3",
            "elbo": "-93.00 ± 3.61",
            "reconstruction": "-73.00 ± 3.61",
            "kl": "20.00 ± 0.00",
            "active units": "7.0 ± 0.0",
            "epochs": "3 ± 0",
            "wall seconds": "12 ± 0",
        },
        {
            "model.latent_dim": "128",
            "n": "1",
            "elbo": "-80.00 ± –",
            "reconstruction": "-60.00 ± –",
            "kl": "20.00 ± –",
            "active units": "7.0 ± –",
            "epochs": "3 ± –",
            "wall seconds": "12 ± –",
        },
    ]
    assert comparison.notes() == []


def test_what_runs_differ_in(compose: Callable[..., dict[str, Any]]) -> None:
    def keys(*overrides: tuple[str, ...]) -> list[str]:
        return differing([compose(*each) for each in overrides])

    assert keys((), ("seed=1", "name=other")) == []
    assert keys((), ("data.seed=1",)) == []
    assert keys(("optimizer.lr=1",), ("optimizer.lr=1.0",)) == []
    assert keys((), ("optimizer.lr=0.5",)) == ["optimizer.lr"]
    assert keys((), ("network.hidden=[512]",)) == ["network.hidden"]
    assert keys((), ("model=vae",)) == ["model", "prior"]  # the learned prior goes with the model
    assert keys(("objective=elbo",), ("objective=iwae",)) == ["objective"]
    assert keys(
        ("objective=elbo",), ("objective=elbo", "objective.beta=2"), ("objective=iwae",)
    ) == [
        "objective",
        "objective.beta",
    ]
    assert keys((), ("+optimizer.amsgrad=true",)) == ["optimizer.amsgrad"]
    assert keys((), ("+optimizer.betas=[0.9,0.999]",)) == []  # torch's default
    assert keys((), ("data.root=/a",), ("data.root=/b",)) == []
    guesses = (("model.guess=/a",), ("model.guess=/b",), ("model.guess=true",))
    assert keys(*guesses[:2]) == []
    assert keys(*guesses) == ["model.guess"]
    stopping = ("callbacks=early_stopping",)
    assert keys((), stopping) == ["callbacks.early_stopping"]
    masks = ("experiment=annotators", "model=deterministic")
    assert not [key for key in keys((), masks) if "probabilities" in key]  # of one of the data
    rarer = (*masks, "data.probabilities.thin=0.1")
    assert keys(masks, rarer) == ["data.source.probabilities.thin"]


def test_a_key_that_came_later_is_at_its_default_in_runs_of_before(make: Make) -> None:
    runs = [make(f"{seed}", -90.0 - seed, f"seed={seed}") for seed in (0, 1)]
    other = make("other", -80.0, "objective.kl_balance=0.8")
    path = runs[0] / "config.yaml"
    config = OmegaConf.load(path)
    del config.objective.kl_balance
    OmegaConf.save(config, path)
    lines = cells(of(*runs, other))
    assert [(line["objective.kl_balance"], line["n"]) for line in lines] == [
        ("0.5", "2"),
        ("0.8", "1"),
    ]


def test_configs_are_compared_without_importing_what_is_not_allowed(
    compose: Callable[..., dict[str, Any]],
) -> None:
    own = [compose(), compose()]
    own[0]["objective"] = {"_target_": "antigravity.Objective", "weight": 1}
    own[1]["objective"] = {"_target_": "antigravity.Objective"}
    assert differing(own) == ["objective.weight"]
    assert "antigravity" not in sys.modules


def test_values_are_written_as_on_the_command_line(
    compose: Callable[..., dict[str, Any]],
) -> None:
    config = compose("optimizer.lr=3e-4", "network.hidden=[8,16]", "model=vae")
    texts = {
        "model": "vae",
        "prior": "fixed_prior",
        "optimizer.lr": "0.0003",
        "network.hidden": "[8, 16]",
        "compile": "false",
        "data.root": "null",
        "model.latnt_dim": "",
        "seed.x": "",
    }
    assert {key: value_of(config, key) for key in texts} == texts


def test_runs_with_a_guess_of_their_own_each_are_averaged(make: Make) -> None:
    runs = [make(f"{s}", -90.0 - s, f"model.guess=/guess{s}", f"seed={s}") for s in (0, 1)]
    lines = cells(of(make("own", -95.0, "model.guess=true"), *runs))
    assert [(line["model.guess"], line["n"]) for line in lines] == [("FOLDER", "2"), ("true", "1")]


def test_a_group_says_when_its_runs_differ_in_more_than_seeds(make: Make) -> None:
    one, two = make("one", -90.0), make("two", -92.0, "optimizer.lr=0.5")
    comparison = of(one, two, keys=("model", "prior"))
    (line,) = cells(comparison)
    assert (line["model"], line["prior"]) == ("conditional_vae", "learned_prior")
    assert (line["n"], line["elbo"]) == ("2", "-91.00 ± 1.41")
    assert comparison.notes() == ["a line's runs differ in more than their seeds: optimizer.lr"]


def test_the_same_run_twice_is_no_second_seed(make: Make) -> None:
    """Whatever its numbers: on another machine they are others."""
    one, other = make("one", -90.0), make("other", -95.0, "seed=1")
    quiet = ("name=again", "data.root=/b", "trainer.enable_progress_bar=false")
    copies = make("two", -90.0), make("three", -90.5, *quiet)
    comparison = of(one, other, *copies)
    (line,) = cells(comparison)
    assert (line["n"], line["elbo"]) == ("2", "-92.50 ± 3.54")  # sqrt(2 · 2.5²)
    assert [row.folder for row in comparison.groups[0].rows] == [one, other]  # of the curves
    assert comparison.notes() == [
        f"the same run twice, seed too: {one} and {copy} (the first counts)" for copy in copies
    ]
    assert [row["folder"] for row in csv.DictReader(as_csv(comparison).splitlines())] == [
        str(folder) for folder in (one, other, *copies)
    ]


def test_another_precision_or_guess_is_another_run(make: Make) -> None:
    one, half = make("one", -90.0), make("half", -92.0, "trainer.precision=bf16-mixed")
    assert [line["n"] for line in cells(of(one, half))] == ["1", "1"]
    comparison = of(one, half, keys=("model",))
    assert [line["n"] for line in cells(comparison)] == ["2"]
    assert comparison.notes() == [
        "a line's runs differ in more than their seeds: trainer.precision"
    ]
    guesses = [make(f"guess{n}", -90.0, f"model.guess=/guess{n}") for n in (0, 1)]
    assert [line["n"] for line in cells(of(*guesses))] == ["2"]


def test_a_run_that_is_not_finished_counts_for_nothing_and_is_named(make: Make) -> None:
    one, two = make("one", -90.0, "seed=1"), make("two", None, "seed=2")
    comparison = of(two, one)
    (line,) = cells(comparison)
    assert (line["n"], line["elbo"]) == ("1", "-90.00 ± –")
    assert comparison.notes() == [f"not finished: {two}"]
    assert [row.folder for row in comparison.groups[0].rows] == [one, two]  # of one colour
    assert cells(of(two)) == []


@pytest.mark.parametrize(
    ("column", "more", "expected"),
    [
        ("density", {"density": "log-density of grey pixels"}, "different densities"),
        ("dataset", {"data": DATA | {"train-images-idx3-ubyte": "sha256:01"}}, "different data"),
        ("images", {"test/examples": 10000.0}, "different numbers of images"),
    ],
)
def test_what_cannot_be_compared_is_kept_apart(
    make: Make, column: str, more: dict[str, Any], expected: str
) -> None:
    one, two = make("one", -90.0, "seed=1"), make("two", 877.0, "seed=2", more=more)
    comparison = of(one, two, make("three", None, "seed=3"))
    lines = cells(comparison)
    assert sorted(len(group.rows) for group in comparison.groups) == [1, 2]
    assert [line["n"] for line in lines] == ["1", "1"]
    assert len({line[column] for line in lines}) == 2
    note, unfinished = comparison.notes()
    assert note.startswith("not comparable: ")
    assert unfinished.startswith("not finished: ")
    assert expected in note


@pytest.mark.parametrize(
    ("binarize", "others", "kept_apart"),
    [
        ("dynamic", "static", False),
        ("dynamic", "threshold", True),
        ("static", "none", True),
        ("none", None, False),  # masks, and runs from before there was the key
        ("dynamic", None, True),
    ],
)
def test_pixels_above_one_half_are_another_test_than_drawn_ones(
    make: Make, binarize: str, others: str | None, kept_apart: bool
) -> None:
    one = make("one", -90.0, "seed=1", f"data.binarize={binarize}")
    two = make("two", -70.0, "seed=2", f"data.binarize={others or 'none'}")
    if others is None:
        config = OmegaConf.load(two / "config.yaml")
        del config.data["binarize"]
        OmegaConf.save(config, two / "config.yaml")
    comparison = of(one, two, keys=("model",))
    assert comparison.conditions == (["binarize"] if kept_apart else [])
    assert [line["n"] for line in cells(comparison)] == (["1", "1"] if kept_apart else ["2"])
    said = any("pixels that were made 0 or 1 in different ways" in n for n in comparison.notes())
    assert said == kept_apart


def test_numbers_of_other_images_than_the_test_s_are_told(make: Make) -> None:
    folder = make("one", -90.0, "seed=1")
    evaluation(folder, 87.0, 1000, examples=10_000)
    (line,) = cells(of(folder, make("two", -91.0, "seed=2")))
    assert line["n"] == "2"
    assert line["evaluated"].startswith("10000 ")
    evaluation(folder, 87.0, 1000, examples=1000)
    assert "evaluated" not in cells(of(folder))[0]


def test_where_the_data_lay_is_no_difference(make: Make) -> None:
    elsewhere = {"data": DATA | {"folder": "elsewhere", "fetched_from": "a mirror"}}
    comparison = of(make("one", -90.0, "seed=1"), make("two", -91.0, "seed=2", more=elsewhere))
    assert comparison.conditions == []


def test_the_bound_of_runs_that_were_trained_on_it_has_a_column(make: Make) -> None:
    folder = make("one", -90.0, "objective=iwae", more={"test/iwae": -88.5})
    assert cells(of(folder))[0]["iwae"] == "-88.50 ± –"
    assert "iwae" not in cells(of(make("two", -91.0)))[0]


def test_evaluations_have_a_column_for_each_number_of_samples(make: Make) -> None:
    """87 and 89: mean 88, deviation sqrt(2)."""
    folders = [make(f"{s}", -90.0, f"seed={s}") for s in range(4)]
    assert not any(name.startswith(("nll", "judge")) for name in cells(of(*folders))[0])
    evaluation(folders[0], 87.0, 1000)
    evaluation(folders[1], 89.0, 1000, judge={"accuracy": 0.97})
    evaluation(folders[2], 86.0, 5000)
    (line,) = cells(of(*folders))
    assert line["nll (K=1000)"] == "88.00 ± 1.41 (2 of 4)"
    assert line["nll (K=5000)"] == "86.00 ± – (1 of 4)"
    assert line["judge accuracy"] == "0.9700 ± – (1 of 4)"
    notes = of(*folders).notes()
    assert [note.partition(":")[0] for note in notes] == ["(k of n)"]
    assert of(folders[0]).notes() == of(folders[3]).notes() == []
    assert list(line)[2:7] == ["elbo", "reconstruction", "kl", "nll (K=1000)", "nll (K=5000)"]


def test_spreads_have_a_column_for_each_number_of_masks(make: Make) -> None:
    folder = make("one", -90.0)
    spread = {"num_samples": 16, "ged2": {"mean": 0.03}, "style_recall": {"mean": 0.9}}
    evaluation(folder, 87.0, 10, references=spread)
    (line,) = cells(of(folder))
    assert (line["ged2 (N=16)"], line["style recall (N=16)"]) == ("0.0300 ± –", "0.900 ± –")


def test_an_estimate_that_more_samples_would_change_stands_in_brackets(make: Make) -> None:
    folders = [make(f"{s}", -90.0, f"seed={s}") for s in range(3)]
    for folder, tenth in zip(folders, (87.5, 87.4, 87.6), strict=True):
        evaluation(folder, 87.0, 1000, tenth)
    first, _, last = (of(folder) for folder in folders)
    assert cells(first)[0]["nll (K=1000)"] == "87.00 ± –"  # half a nat, and no more
    assert first.notes() == []
    assert cells(last)[0]["nll (K=1000)"] == "(87.00 ± –)"
    together = of(*folders)
    assert cells(together)[0]["nll (K=1000)"] == "(87.00 ± 0.00)"
    assert [note.partition(",")[0] for note in together.notes()] == ["in brackets: not converged"]
    assert runs(together, "tsv").count("(87.00)") == 1
    lines = list(csv.DictReader(io.StringIO(as_csv(together))))
    assert sorted(line["not converged"] for line in lines) == ["", "", "nll (K=1000)"]
    (line,) = csv.DictReader(io.StringIO(averages(together)))
    assert line["not converged"] == "nll (K=1000)"


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("evaluation.json", '{"num_samples": 10', "evaluation.json is not JSON"),
        ("evaluation.json", "[]", "evaluation.json does not hold names and values"),
        ("evaluation.json", '{"nll": 3}', "evaluation.json: nll/importance/mean is not a number"),
        ("evaluation.json", '{"nll": {"importance": {"mean": 3}}}', "num_samples is missing"),
        ("evaluation.json", '{"judge": {"accuracy": "1"}}', "judge/accuracy is not a number"),
        ("metrics.json", "{", "metrics.json is not JSON"),
        ("metrics.json", '{"test/elbo": "x"}', "metrics.json: test/elbo is not a number"),
        ("metrics.json", '{"test/elbo": 1' + "0" * 400 + "}", "test/elbo is not a number"),
        ("metrics.json", "{}", "metrics.json holds none of test/elbo"),
        ("metrics.csv", "epoch,val/elbo\n1,x\n", "metrics.csv is not a table of numbers"),
        ("metrics.csv", "val/elbo\n1\n", "metrics.csv is not a table of numbers"),
        ("config.yaml", "seed: 0\n", "one: the config has no callbacks"),
    ],
)
def test_a_malformed_file_is_named(
    make: Make, tmp_path: Path, file: str, content: str, expected: str
) -> None:
    (make("one", -90.0) / file).write_text(content)
    with pytest.raises(UserError) as caught:
        compare([str(tmp_path)], [], tmp_path / "out")
    assert str(tmp_path / "one") in str(caught.value)
    assert expected in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_unknown_key_is_answered_with_the_nearest(make: Make) -> None:
    one = make("one", -90.0, "data=quadrants")
    masks = make("masks", -90.0, "experiment=annotators", "model=deterministic")
    for key, expected in (
        ("modle", "did you mean model?"),
        (
            "model.latnt_dim",
            "--group-by model.latnt_dim: 'latnt_dim' is not one of guess, latent_dim; ",
        ),
        ("model._target_", "'_target_' is not one of guess, latent_dim"),
        ("seed.x", "'x' does not exist"),
        ("latent_dim", "in a run's config it is model.latent_dim"),
        ("data.observed", "in a run's config it is data.view.observed"),
        ("data.probabilities.thin", "it is data.source.probabilities.thin"),
    ):
        with pytest.raises(UserError, match=key.split(".")[0]) as caught:
            of(one, masks, keys=(key,))
        assert expected in str(caught.value)


def test_curves_are_of_training_where_nothing_is_validated(make: Make) -> None:
    one = make("one", -90.0)

    def elbo() -> tuple[str, dict[int, float], bool]:
        return read_curves(read_row(Run(one)))["elbo"]

    assert elbo() == ("val", {1: -5.0, 2: -2.5, 3: -5 / 3}, True)
    (one / "metrics.csv").write_text(f"{CURVES}1,10,-9,-8,1,,,\n2,20,-7,-6,1,,,\n")
    assert elbo() == ("train", {1: -9.0, 2: -7.0}, True)
    (one / "metrics.csv").write_text(f"{CURVES}1,10,-9,-8,1,,,\n2,20,-7,-6,1,-6,-5,1\n")
    assert elbo() == ("val", {2: -6.0}, True)  # validated every second epoch
    (one / "metrics.json").unlink()
    assert elbo() == ("val", {2: -6.0}, False)
    (one / "metrics.csv").unlink()
    assert read_curves(read_row(Run(one))) == {}


def test_the_mean_curve_is_of_finished_runs_over_the_epochs_they_share() -> None:
    axes = Figure().subplots()
    whole = [
        Curve("val", {1: -9.0, 2: -4.0, 3: -3.0}, True),
        Curve("val", {1: -7.0, 3: -2.0}, True),
    ]
    _lines(axes, [*whole, Curve("val", {1: -1.0}, False)], "C0")
    *thin, thick = [line.get_xydata().tolist() for line in axes.get_lines()]
    assert len(thin) == 3
    assert thick == [[1.0, -8.0], [3.0, -2.5]]


def test_the_files_say_all_of_each_run(make: Make, tmp_path: Path) -> None:
    folders = [
        make("a|b", -90.1234567890123, "seed=1"),
        make("b", None, "seed=2"),
        make("c", -95.0, "optimizer.lr=0.5", "data.split=full"),
    ]
    (folders[2] / "metrics.csv").write_text(f"{CURVES}1,10,-9,-8,1,,,\n2,20,-7,-6,1,,,\n")
    out = tmp_path / "new" / "out"
    printed = compare([str(tmp_path)], ["optimizer.lr"], out)
    with (out / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["folder"] for row in rows] == [str(folder) for folder in folders]
    assert [row["finished"] for row in rows] == ["true", "false", "true"]
    assert [row["elbo"] for row in rows] == ["-90.1234567890123", "", "-95.0"]
    assert [row["optimizer.lr"] for row in rows] == ["0.001", "0.001", "0.5"]
    assert [row["seed"] for row in rows] == ["1", "2", "0"]
    markdown = (out / "comparison.md").read_text()
    assert "![learning curves](comparison.png)" in markdown
    assert "a\\|b" in markdown
    assert f"- not finished: {folders[1]}" in markdown
    assert f"not finished: {folders[1]}" in printed.splitlines()
    assert f"written: {out / 'comparison.png'}" in printed.splitlines()
    assert "(log-probability of 0/1 pixels)" in printed.splitlines()[0]


def test_the_picture_shows_a_colour_a_group(make: Make, tmp_path: Path) -> None:
    for seed in (1, 2):
        make(f"a{seed}", -90.0, f"seed={seed}")

    def colours() -> set[tuple[int, ...]]:
        compare([str(tmp_path)], [], tmp_path)
        picture = imread(tmp_path / "comparison.png")
        assert picture.shape[0] > 600
        assert picture.shape[1] == 1500
        pixels = (picture[..., :3] * 255).round().astype(int).reshape(-1, 3)
        return {tuple(map(int, pixel)) for pixel in pixels}

    blue, orange = (31, 119, 180), (255, 127, 14)
    assert blue in colours()
    assert orange not in colours()
    make("b", -91.0, "optimizer.lr=0.5")
    assert {blue, orange} <= colours()


def test_runs_of_several_sizes_are_drawn_and_averaged_against_them(
    make: Make, tmp_path: Path
) -> None:
    """By hand: -90 and -92 have the mean -91 and the deviation sqrt(2)."""
    for size, seed, elbo in ((2, 0, -90.0), (2, 1, -92.0), (16, 0, -80.0), (16, 1, None)):
        overrides = (f"model.latent_dim={size}", f"seed={seed}")
        make(f"{size}_{seed}", elbo, *overrides)
        make(f"vae{size}_{seed}", elbo, "model=vae", *overrides)
    comparison = of(*(path.parent for path in tmp_path.glob("*/config.yaml")))
    assert swept_key(comparison) == "model.latent_dim"
    line = next(iter(lines_against(comparison, "model.latent_dim"))).content
    assert {size: len(group.finished) for size, group in line.items()} == {2: 2, 16: 1}
    axes = Figure().subplots()
    draw_line(axes, line, "elbo", "C0")
    (drawn,) = axes.containers
    assert drawn.lines[0].get_xydata().tolist() == [[2, -91], [16, -80]]
    bar = drawn.lines[2][0].get_segments()[0]
    assert bar[:, 1].tolist() == pytest.approx([-91 - 2**0.5, -91 + 2**0.5])
    compare([str(tmp_path)], [], tmp_path)
    with (tmp_path / "averages.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["model.latent_dim"], first["n"], first["elbo"]) == ("2", "2", "-91.0")
    assert float(first["elbo sd"]) == pytest.approx(2**0.5)
    assert (
        "![results against model.latent_dim](sizes.png)" in (tmp_path / "comparison.md").read_text()
    )
    assert imread(tmp_path / "sizes.png").shape[1] == 1500


def test_what_is_no_number_is_no_axis(make: Make) -> None:
    assert swept_key(of(make("a", -90.0), make("b", -91.0, "network=conv"))) is None
    seeds = [make(f"s{seed}", -90.0, f"seed={seed}") for seed in (1, 2)]
    assert swept_key(of(*seeds, keys=("model", "seed"))) is None
    assert swept_key(of(make("c", None), make("d", None, "model.latent_dim=2"))) is None
    rates = of(make("e", -90.0), make("f", -91.0, "optimizer.lr=0.5"))
    assert swept_key(rates) == "optimizer.lr"


def test_a_picture_that_no_comparison_made_is_left_where_it_is(make: Make, tmp_path: Path) -> None:
    size = [make(f"{size}", -90.0, f"model.latent_dim={size}") for size in (2, 4)]
    out = tmp_path / "out"
    out.mkdir()
    (out / "sizes.png").write_text("mine")
    compare([str(size[0])], [], out)
    assert (out / "sizes.png").read_text() == "mine"
    compare(list(map(str, size)), [], out)
    assert (out / "sizes.png").read_bytes() != b"mine"
    compare([str(size[0])], [], out)
    assert not (out / "sizes.png").exists()  # it would be of other runs than the page


def test_twenty_groups_nothing_finished_and_no_curve_can_be_drawn(
    make: Make, tmp_path: Path
) -> None:
    for seed in range(20):
        make(f"{seed}", None, f"seed={seed}")
    assert "not finished" in compare([str(tmp_path)], ["seed"], tmp_path)
    assert "(comparison.png)" in (tmp_path / "comparison.md").read_text()
    for table_of_run in tmp_path.glob("*/metrics.csv"):
        table_of_run.unlink()
    assert "not finished" in compare([str(tmp_path)], ["seed"], tmp_path)
    assert "(comparison.png)" not in (tmp_path / "comparison.md").read_text()
    assert not (tmp_path / "comparison.png").exists()


def test_numbers_that_are_not_finite_are_shown(make: Make) -> None:
    one, two = make("one", -math.inf, "seed=1"), make("two", -90.0, "seed=2")
    (line,) = cells(of(one, two))
    assert line["elbo"] == "-inf ± nan"


def run(warm: Warm, *arguments: str, **options: Any) -> Command:
    return warm.start("cvae.compare", *arguments, **options).wait()


def test_a_sweep_of_real_runs_is_compared_in_its_folder(
    warm: Warm, mnist_root: str, tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    words = ("-m", "seed=0,1", "model=vae", "trainer.max_epochs=2", f"hydra.sweep.dir={sweep}")
    settings = [word for word in TINY if word != "trainer.max_epochs=3"]
    command = warm.start("cvae.train", *words, *settings, f"data.root={mnist_root}").wait()
    assert command.status == 0, command.output
    command = run(warm, str(sweep))
    assert command.status == 0, command.output
    elbos = [json.loads((sweep / s / "metrics.json").read_text())["test/elbo"] for s in "01"]
    mean, deviation = sum(elbos) / 2, abs(elbos[0] - elbos[1]) / math.sqrt(2)
    assert f"{mean:.2f} ± {deviation:.2f}" in command.output
    assert f"written: {sweep}/comparison.md" in command.output
    assert {path.name for path in sweep.glob("comparison.*")} == {
        "comparison.md",
        "comparison.csv",
        "comparison.png",
    }
    assert run(warm, str(sweep)).output == command.output  # its own files do not confuse it


def test_runs_are_compared_below_outputs_or_where_out_says(
    warm: Warm, make: Make, tmp_path: Path
) -> None:
    one, two = make("one", -90.0), make("two", -91.0, "model=vae")
    command = run(warm, str(one), cwd=tmp_path)
    assert command.status == 0, command.output
    assert len(list(tmp_path.glob("outputs/comparisons/*/comparison.png"))) == 1
    assert not list(one.glob("comparison.*"))
    out = tmp_path / "out"
    command = run(warm, str(one), str(two), "--group-by", "model, seed", "--out", str(out))
    assert command.status == 0, command.output
    assert len((out / "comparison.csv").read_text().splitlines()) == 3


def test_mistakes_end_with_one_line(warm: Warm, make: Make, tmp_path: Path) -> None:
    one = make("one", -90.0)
    for arguments, expected in (
        ((str(one), "--group-by", "modle"), "--group-by modle: 'modle' is not one of"),
        ((str(tmp_path / "none"),), "none is not a run's folder: it has no config.yaml"),
        ((str(one), "--out", str(one / "config.yaml")), "could not be written"),
    ):
        command = run(warm, *arguments)
        assert command.status == 1, command.output
        assert len(command.output.splitlines()) == 1, command.output
        assert expected in command.output


def test_what_stands_for_a_failure_s_line_and_is_no_file_is_not_read(
    make: Make, tmp_path: Path
) -> None:
    make("runs/0", -90.0)
    note = tmp_path / "runs" / "1" / "failure.txt"
    note.parent.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("precious")
    note.symlink_to(secret)
    with pytest.raises(UserError, match=f"{note} is a link: put what it leads to in its place"):
        compare([str(tmp_path / "runs")], [], tmp_path / "out")
    note.unlink()
    os.mkfifo(note)
    assert "failed" not in compare([str(tmp_path / "runs")], [], tmp_path / "out")


def test_where_every_job_failed_a_key_is_no_mistake(make: Make, tmp_path: Path) -> None:
    folder = make("runs/0", None)
    (folder / "failure.txt").write_text("too little memory")
    told = compare([str(tmp_path / "runs")], ["model"], tmp_path / "out")
    assert f"failed: {folder}: too little memory" in told

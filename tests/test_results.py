"""docs/results.md: the tables' numbers of ours out of records, none typed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import TINY
from cvae.columns import AGAINST, COLUMNS
from cvae.errors import UserError
from cvae.published import DOCS, read_published, read_records, render
from cvae.results import keep, main, record
from cvae.run import Run

REPOSITORY = Path(__file__).resolve().parents[1]
NLL = {
    "mean": 100.0,
    "standard_error": 0.25,
    "monte_carlo_error": 0.004,
    "mean_of_repeats": 100.5,
    "effective_samples": 66.9,
}


def test_the_words_of_a_command_are_kept(reference: Callable[..., Path]) -> None:
    kept = yaml.safe_load((reference() / ".hydra" / "overrides.yaml").read_text())
    assert kept[: len(TINY)] == list(TINY)
    assert all(word.startswith("data.root=") for word in kept[len(TINY) :])


@pytest.fixture
def finished(reference: Callable[..., Path], tmp_path: Path) -> Run:
    """A run's folder as `train` leaves it, evaluated by hand."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.yaml", "metrics.json", "metrics.csv"):
        (folder / name).write_bytes((reference() / name).read_bytes())
    (folder / ".hydra").mkdir()
    overrides = [
        "experiment=smoke",
        "trainer.enable_progress_bar=false",
        "data.root=/a",
        "name=a b",
    ]
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    _evaluate(folder, 100.0)
    return Run(folder)


SPREAD = {
    "ged2_with_diagonal": {"mean": 0.12},
    "hungarian_iou": {"mean": 0.8},
    "style_recall": {"mean": 0.69},
    "majority_dice": {"mean": 0.95},
    "styles": {"largest_error": 0.03, "none": 0.02},
    "oracle": {"ged2": {"mean": 0.001}, "style_recall": {"mean": 0.92}},
}


def _evaluate(folder: Path, mean: float, num_samples: int = 5000, rise: float = 0.5) -> None:
    evaluation = {
        "num_samples": num_samples,
        "density": "log-probability of 0/1 pixels",
        "nll": {
            "importance": {**NLL, "mean": mean},
            "prior": {"mean": 130.0, "mean_of_repeats": 130.0 + rise},
        },
        "elbo": {"mean": -101.0},
        "kl": {"mean": 12.5},
        "references": {"ged2": {"mean": mean / 1000, "standard_error": 0.0005}, **SPREAD},
        "judge": {"accuracy": 0.75},
        "latent": {"active_units": 4},
        "data": {"folder": "/somewhere", "name": "mnist"},
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))


def _docs(folder: Path, run: str, baseline: str | None = None) -> Path:
    published = {
        "preface": "# Results",
        "tables": [
            {
                "title": "A table",
                "protocol": "How.",
                "published": ["theirs", "others'"],
                "columns": [*COLUMNS, *AGAINST],
                "rows": [
                    {"label": "one", "published": [99.5, None], "run": run, "baseline": baseline},
                    {"label": "other", "published": [None, 3], "run": baseline or "nobody"},
                ],
                "remarks": "Why.",
            }
        ],
    }
    (folder / "published.yaml").write_text(yaml.safe_dump(published))
    return folder


def _page(docs: Path) -> str:
    """What the records there make, without writing it."""
    return render([*read_records(docs).values()], read_published(docs))


def test_the_committed_page_is_what_the_command_writes() -> None:
    docs = REPOSITORY / DOCS
    assert (docs / "results.md").read_text() == _page(docs)


def test_a_record_holds_what_a_reader_needs_to_repeat_the_run(finished: Run) -> None:
    kept = record(finished)
    assert kept["command"] == "python -m cvae.train experiment=smoke 'name=a b'"
    assert kept["config"]["model"] == finished.config["model"]
    assert "/somewhere" not in json.dumps(kept)
    assert str(finished.config["data"]["root"]) not in json.dumps(kept)
    assert [row["epoch"] for row in kept["curve"]] == [1, 2, 3]
    assert kept["curve"][-1]["train/elbo"] < 0
    assert kept["evaluation"]["nll"]["importance"] == NLL
    json.dumps(kept)


def test_a_row_has_the_published_number_beside_ours(finished: Run, tmp_path: Path) -> None:
    docs = _docs(tmp_path, finished.config["name"])
    keep([finished], docs)
    (line,) = (line for line in _page(docs).splitlines() if line.startswith("| one"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    metrics = json.loads(finished.metrics.read_text())
    minutes = f"{metrics['wall_seconds'] / 60:.0f}"
    expected = (
        "one,99.50,–,100.00,5000,0.25,0.004,100.50,67,130.00,-101.00,12.50,75.0%,4,"
        "0.1000,0.0005,0.1200,0.0010,0.800,0.690,75.0%,0.030,2.0%,0.950,1,3"
    )
    assert cells == [*expected.split(","), minutes, "", ""]
    assert "python -m cvae.train experiment=smoke" in _page(docs)
    assert "python -m cvae.evaluate FOLDER --num-samples 5000" in _page(docs)
    assert any(line.startswith("| other") and "not run" in line for line in _page(docs).split("\n"))


def test_seeds_are_averaged(finished: Run, tmp_path: Path) -> None:
    docs = _docs(tmp_path, finished.config["name"])
    keep([finished], docs)
    _evaluate(finished.folder, 102.0)
    keep([Run(finished.folder, {**finished.config, "seed": 1})], docs)
    assert len(list((docs / "runs").iterdir())) == 2
    assert "101.00 ± 1.41" in _page(docs)  # of 100 and 102, n − 1 in the denominator


def test_a_row_says_how_far_it_is_below_its_baseline(finished: Run, tmp_path: Path) -> None:
    docs = _docs(tmp_path, "mine", baseline="theirs")
    for name, mean in (("theirs", 103.5), ("mine", 100.0)):
        _evaluate(finished.folder, mean)
        keep([Run(finished.folder, {**finished.config, "name": name})], docs)
    (line,) = (line for line in _page(docs).splitlines() if line.startswith("| one"))
    below, closed = (cell.strip() for cell in line.split("|")[-3:-1])
    assert below == "3.50"
    assert closed == "3%"  # from 0.1035 to 0.1 of the way to the oracle's 0.001


def test_an_estimate_that_has_not_converged_stands_in_brackets(
    finished: Run, tmp_path: Path
) -> None:
    docs = _docs(tmp_path, finished.config["name"])
    _evaluate(finished.folder, 100.0, rise=1.5)
    keep([finished], docs)
    assert "(130.00)" in _page(docs)


def test_two_runs_of_one_name_and_seed_are_not_one_record(finished: Run, tmp_path: Path) -> None:
    docs = _docs(tmp_path, finished.config["name"])
    with pytest.raises(UserError, match="have the same name and seed: tell them apart"):
        keep([finished, finished], docs)
    assert not (docs / "runs").exists()


def test_a_name_may_have_folders(finished: Run, tmp_path: Path) -> None:
    docs = _docs(tmp_path, "a/b")
    keep([Run(finished.folder, {**finished.config, "name": "a/b"})], docs)
    assert (docs / "runs" / "a" / "b_seed0.json").is_file()
    (line,) = (line for line in _page(docs).splitlines() if line.startswith("| one"))
    assert "not run" not in line
    model = {**finished.config["model"], "latent_dim": 3}
    other = Run(finished.folder, {**finished.config, "name": "a/b", "model": model, "seed": 1})
    with pytest.raises(UserError, match=r"differ in model\.latent_dim: remove that record"):
        keep([other], docs)


def test_seeds_with_a_guess_each_are_one_row_and_no_path_is_kept(
    finished: Run, tmp_path: Path
) -> None:
    docs = _docs(tmp_path, finished.config["name"])
    for seed in (0, 1):
        model = {**finished.config["model"], "guess": f"/home/me/guess{seed}"}
        run = Run(finished.folder, {**finished.config, "model": model, "seed": seed})
        run.write_words([f"model.guess={model['guess']}"])
        keep([run], docs)
    assert "100.00 ± 0.00" in _page(docs)
    for path in (docs / "runs").iterdir():
        assert "model.guess=FOLDER" in path.read_text()
        assert "/home/me" not in path.read_text()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_record_gives_way_to_none_of_another_experiment(
    finished: Run, tmp_path: Path, seed: int
) -> None:
    docs = _docs(tmp_path, finished.config["name"])
    keep([finished], docs)
    before = _page(docs)
    model = {**finished.config["model"], "latent_dim": 3}
    with pytest.raises(UserError, match=r"differ in model\.latent_dim: remove that record"):
        keep([Run(finished.folder, {**finished.config, "model": model, "seed": seed})], docs)
    assert _page(docs) == before


def test_two_seeds_given_at_once_are_of_one_experiment(finished: Run, tmp_path: Path) -> None:
    docs = _docs(tmp_path, finished.config["name"])
    model = {**finished.config["model"], "latent_dim": 3}
    copy = tmp_path / "copy"
    shutil.copytree(finished.folder, copy)
    other = Run(copy, {**finished.config, "model": model, "seed": 1})
    with pytest.raises(UserError, match=r"differ in model\.latent_dim"):
        keep([finished, other], docs)
    assert not (docs / "runs").exists()


def test_elsewhere_than_in_the_repository_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["cvae.results"])
    with pytest.raises(UserError, match="run it from the repository's folder"):
        main()
    assert not any(tmp_path.iterdir())


def test_estimates_of_two_kinds_are_not_averaged(finished: Run, tmp_path: Path) -> None:
    docs = _docs(tmp_path, finished.config["name"])
    before = keep([finished], docs).read_text()
    _evaluate(finished.folder, 100.0, num_samples=100)
    with pytest.raises(UserError, match="differ in K"):
        keep([Run(finished.folder, {**finished.config, "seed": 1})], docs)
    assert _page(docs) == before == (docs / "results.md").read_text()  # nothing was written


@pytest.mark.parametrize("other", ["mine", "theirs"])
@pytest.mark.parametrize(
    ("part", "change"),
    [("N", {"references": {"num_samples": 4}}), ("data", {"data": {"file": "sha256:01"}})],
)
def test_what_was_measured_otherwise_stands_in_no_row_together(
    finished: Run, tmp_path: Path, other: str, part: str, change: dict[str, Any]
) -> None:
    """Nor beside a baseline of the kind."""
    docs = _docs(tmp_path, "mine", baseline="theirs")
    for name, seed in (("mine", 0), ("theirs", 0), (other, 1)):
        keep([Run(finished.folder, {**finished.config, "name": name, "seed": seed})], docs)
    _page(docs)
    path = docs / "runs" / f"{other}_seed1.json"
    kept = json.loads(path.read_text())
    for name, values in change.items():
        kept["evaluation"][name] |= values
    path.write_text(json.dumps(kept))
    with pytest.raises(UserError, match=f"differ in {part}"):
        _page(docs)
    if other == "theirs":
        (docs / "runs" / "theirs_seed0.json").unlink()
        with pytest.raises(UserError, match=f"mine and theirs differ in {part}"):
            _page(docs)


@pytest.mark.parametrize(
    ("damaged", "expected"),
    [
        ({}, r"mine_seed0\.json is no record of a run: it has no name"),
        ({"name": "mine", "command": "", "config": {}, "metrics": {}}, "it has no evaluation"),
        (
            {"name": "mine", "command": "", "config": None, "metrics": {}, "evaluation": []},
            "it has no config",
        ),
        (
            {"name": "mine", "command": "", "config": {}, "metrics": {}, "evaluation": {}},
            "mine has no number evaluation/",
        ),
    ],
)
def test_a_damaged_record_is_named(damaged: dict[str, Any], expected: str, tmp_path: Path) -> None:
    docs = _docs(tmp_path, "mine")
    (docs / "runs").mkdir()
    (docs / "runs" / "mine_seed0.json").write_text(json.dumps(damaged))
    with pytest.raises(UserError, match=expected):
        _page(docs)


@pytest.mark.parametrize("missing", ["metrics.json", "evaluation.json"])
def test_a_run_that_is_not_finished_or_not_evaluated_is_refused(
    missing: str, finished: Run
) -> None:
    (finished.folder / missing).unlink()
    with pytest.raises(UserError, match=r"train it to its end, then python -m cvae\.evaluate"):
        record(finished)


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("metrics.csv", "epoch,train/elbo\nfirst,-1", "is not a table of numbers with an epoch"),
        ("metrics.csv", None, r"metrics\.csv is missing"),
        ("metrics.json", "{}", r"metrics\.json does not say of which data it is"),
        ("evaluation.json", "{}", r"evaluation\.json does not say of which data it is"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(
    finished: Run, file: str, content: str | None, expected: str
) -> None:
    path = finished.folder / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=expected):
        record(finished)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"columns": ["our"]}, r"A table: 'our' is not one of .*; did you mean ours\?"),
        ({"rows": [{"label": "one", "run": "mine"}]}, "A table: a row has no published"),
        ({"title": None}, "a table has no title"),
        ({"published": ["theirs"]}, "A table: one: published: 1 numbers, null for none"),
        (
            {"rows": [{"label": "one", "published": ["99", None], "run": "mine"}]},
            "A table: one: published: 2 numbers, null for none",
        ),
        (
            {"rows": [{"label": "one", "published": [1, 2], "run": "mine", "baseline": "their"}]},
            "A table: one: its baseline is the run of no row",
        ),
    ],
)
def test_a_mistake_in_the_published_figures_is_named(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    path = _docs(tmp_path, "mine") / "published.yaml"
    content = yaml.safe_load(path.read_text())
    content["tables"][0] |= change
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=expected):
        keep([], tmp_path)


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_no_place_on_this_machine_is_kept(finished: Run, plus: str) -> None:
    finished.write_words([f"{plus}data.root=/home/me", f"{plus}model.guess=/home/me/run", "seed=0"])
    assert record(finished)["command"] == f"python -m cvae.train {plus}model.guess=FOLDER seed=0"


def test_a_command_says_how_many_masks_were_drawn(finished: Run, tmp_path: Path) -> None:
    path = finished.evaluation()
    content = json.loads(path.read_text())
    content["references"]["num_samples"] = 4
    path.write_text(json.dumps(content))
    page = keep([finished], _docs(tmp_path, finished.config["name"])).read_text()
    assert "python -m cvae.evaluate FOLDER --num-samples 5000 --masks 4\n" in page

"""The real command, started from a shell, on real MNIST."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cvae.data.pixels import ONCE
from cvae.data.source import MNIST
from cvae.data.views import Label
from cvae.noise import Stream, generator
from cvae.run import Run

Command = Callable[..., subprocess.CompletedProcess[str]]
SMOKE = ("experiment=smoke", "trainer.enable_progress_bar=false")
TERMS = ("elbo", "reconstruction", "kl", "loss")


@pytest.fixture(scope="module")
def finished(train: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a small run of two epochs."""
    folder = tmp_path_factory.mktemp("run")
    result = train(
        "experiment=smoke",
        "callbacks.pictures.every_epochs=1",
        "++trainer.max_epochs=9",
        "trainer.max_epochs=2",
        "trainer.limit_train_batches=100",
        f"hydra.run.dir={folder}",
    )
    assert result.returncode == 0, result.stderr
    return folder, result.stdout + result.stderr


def test_the_run_ends_with_its_numbers_and_its_folder(finished: tuple[Path, str]) -> None:
    folder, output = finished
    results = json.loads((folder / "metrics.json").read_text())
    assert f"{results['test/elbo']:.2f} ±" in output
    assert "log-probability of 0/1 pixels" in output
    assert f"folder: {folder}" in output
    assert f"folder: {folder}" in (folder / "train.log").read_text()
    assert "val/elbo=" in output  # in the progress bar


def test_a_key_that_is_given_twice_is_told(finished: tuple[Path, str]) -> None:
    (line,) = (one for one in finished[1].splitlines() if "is given" in one)
    assert line.endswith("[WARNING] trainer.max_epochs= is given 2 times, and the last counts")


def test_final_metrics_are_complete_and_consistent(finished: tuple[Path, str]) -> None:
    results = json.loads((finished[0] / "metrics.json").read_text())
    for split in ("test", "val"):
        terms = {name: results[f"{split}/{name}"] for name in TERMS}
        assert terms["elbo"] == pytest.approx(terms["reconstruction"] - terms["kl"], abs=1e-3)
        assert terms["loss"] == pytest.approx(-terms["elbo"], abs=1e-3)
        assert terms["kl"] >= 0
    assert results["epochs"] == 2
    assert results["steps"] == 200
    assert results["seed"] == 0
    assert results["images_per_second"] > 0
    assert results["data"]["verified"] == "official checksums"
    assert results["versions"]["torch"] == torch.__version__


def test_there_is_a_row_an_epoch(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    elbos = [float(row["val/elbo"]) for row in rows]
    assert elbos[1] > elbos[0]
    best = json.loads((folder / "metrics.json").read_text())["val/elbo"]
    assert best == max(elbos)
    assert float(rows[1]["train/elbo"]) > float(rows[0]["train/elbo"])


def test_tensorboard_holds_terms_pictures_and_hyperparameters(finished: tuple[Path, str]) -> None:
    events = EventAccumulator(str(finished[0] / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    expected = {f"{split}/{name}" for split in ("train", "val", "test") for name in TERMS}
    expected |= {"train/beta", "train/learning_rate", "val/active_units"}
    assert expected <= set(tags["scalars"])
    assert set(tags["images"]) == {"reconstructions", "samples"}
    assert set(tags["histograms"]) == {"val/kl_per_dimension", "test/kl_per_dimension"}
    metadata = events.SummaryMetadata("_hparams_/session_start_info")
    assert metadata.plugin_data.plugin_name == "hparams"
    assert b"latent_dim" in metadata.plugin_data.content
    assert [point.step for point in events.Scalars("train/elbo")] == [50, 100, 150, 200]


def test_pictures_show_ink(finished: tuple[Path, str]) -> None:
    for name in ("reconstructions", "samples"):
        with Image.open(finished[0] / "pictures" / f"{name}.png") as picture:
            low, high = picture.convert("L").getextrema()
            assert picture.width > 10 * 28
        assert low < 30
        assert high > 100


def test_a_run_is_rebuilt_from_its_folder_alone(finished: tuple[Path, str]) -> None:
    """The model in the folder has the numbers that the folder claims, on the fixed draws."""
    run = Run(finished[0])
    model = run.load_model()
    claimed = json.loads(run.metrics.read_text())
    count = int(claimed["test/examples"])
    arrays = MNIST().load(None)
    pixels = ONCE["dynamic"](arrays.test_images, generator(Stream.FIXED_PIXELS, 1))
    x, y = Label()(pixels[:count], arrays.test_labels[:count])
    latent = generator(Stream.FIXED_LATENT, 1)
    noise = torch.randn(10_000, 1, model.latent_dim, generator=latent)[:count, 0]
    with torch.no_grad():
        terms = model.elbo(x, y, noise)
    elbo = terms.elbo
    # sums of float32 in another order
    assert elbo.mean().item() == pytest.approx(claimed["test/elbo"], rel=1e-5)
    error = elbo.double().std(correction=0).item() / count**0.5
    # the same sums' last digits; an estimate with n - 1 in it would be off by 1 / 2n = 5e-4
    assert error == pytest.approx(claimed["test/elbo_standard_error"], rel=1e-4)
    active = int((terms.posterior.mean.var(0, correction=0) > 0.01).sum())
    assert 0 < active < model.latent_dim  # or a count of none or of all could be right by chance
    assert claimed["test/active_units"] == active


def test_checkpoints_hold_tensors_and_plain_values(finished: tuple[Path, str]) -> None:
    for name in ("best", "last"):
        checkpoint = torch.load(Run(finished[0]).checkpoint(name), weights_only=True)
        assert checkpoint["global_step"] == 200  # validation was best at the end, as seen above


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    train: Command, tmp_path: Path
) -> None:
    def elbo(folder: str, seed: int) -> float:
        result = train(*SMOKE, f"seed={seed}", f"hydra.run.dir={tmp_path / folder}")
        assert result.returncode == 0, result.stderr
        value: float = json.loads((tmp_path / folder / "metrics.json").read_text())["test/elbo"]
        return value

    first = elbo("first", 3)
    assert elbo("again", 3) == first
    assert elbo("other", 4) != first


def test_of_two_runs_in_one_folder_the_second_is_refused(train: Command, tmp_path: Path) -> None:
    folder = f"hydra.run.dir={tmp_path}"
    assert train(*SMOKE, "model.latent_dim=0", folder).returncode == 1  # leaves it free
    assert train(*SMOKE, folder).returncode == 0
    config = (tmp_path / "config.yaml").read_bytes()
    again = train(*SMOKE, "seed=1", folder)
    assert again.returncode == 1
    assert "holds a run: choose another hydra.run.dir" in again.stderr
    assert (tmp_path / "config.yaml").read_bytes() == config


@pytest.mark.slow
def test_a_wheel_trains_from_another_folder(tmp_path: Path, mnist_root: str) -> None:
    root = Path(__file__).parents[1]
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, root], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = ["-m", "pip", "install", "--quiet", "-c", root / "constraints.txt", wheel]
    subprocess.run([python, *install], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [python, "-m", "cvae.train", *SMOKE, f"data.root={mnist_root}"]
    subprocess.run(command, cwd=elsewhere, check=True)
    assert len(list(elsewhere.glob("outputs/cvae_learned_prior/*/metrics.json"))) == 1

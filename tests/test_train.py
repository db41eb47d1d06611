"""The real command, started from a shell, on real MNIST."""

import csv
import json
import signal
import subprocess
import sys
import time
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
    """The model in the folder has the ELBO that the folder claims, on the fixed draws."""
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
        elbo = model.elbo(x, y, noise).elbo
    # sums of float32 in another order
    assert elbo.mean().item() == pytest.approx(claimed["test/elbo"], rel=1e-5)


def test_checkpoints_hold_tensors_and_plain_values(finished: tuple[Path, str]) -> None:
    for name in ("best", "last"):
        checkpoint = torch.load(Run(finished[0]).checkpoint(name), weights_only=True)
        assert checkpoint["global_step"] in (100, 200)


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


def test_two_processes_train_the_run_that_one_trains(train: Command, tmp_path: Path) -> None:
    whole = ("trainer.limit_val_batches=null", "trainer.limit_test_batches=null")
    for trainer in ("cpu", "ddp_cpu"):
        folder = f"hydra.run.dir={tmp_path / trainer}"
        result = train(*SMOKE, *whole, f"trainer={trainer}", folder)
        assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cpu", "ddp_cpu"]
    one, two = (
        json.loads((tmp_path / trainer / "metrics.json").read_text())
        for trainer in ("cpu", "ddp_cpu")
    )
    assert two["device"].startswith("2 x cpu")
    assert two["test/examples"] == one["test/examples"] == 10_000
    for name, value in one.items():
        if name.startswith(("val/", "test/")):
            # the same sums in another order, after twenty steps of it
            assert two[name] == pytest.approx(value, rel=1e-5), name
    assert "training on 2 x cpu" in (tmp_path / "ddp_cpu" / "train.log").read_text()


def test_a_terminated_parent_takes_its_processes_along(tmp_path: Path, mnist_root: str) -> None:
    options = [*SMOKE, "trainer=ddp_cpu", "trainer.max_epochs=1000", f"data.root={mnist_root}"]
    command = [sys.executable, "-m", "cvae.train", *options, f"hydra.run.dir={tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        wait_for(lambda: (tmp_path / "checkpoints" / "last.ckpt").exists())
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(30) != 0
    wait_for(lambda: not processes_with(str(tmp_path)))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def processes_with(argument: str) -> list[int]:
    """The running processes with an argument that holds the text."""
    listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    return [int(line.split()[0]) for line in listing.stdout.splitlines() if argument in line]


def test_of_two_runs_in_one_folder_the_second_is_refused(train: Command, tmp_path: Path) -> None:
    folder = f"hydra.run.dir={tmp_path}"
    assert train(*SMOKE, "model.latent_dim=0", folder).returncode == 1  # leaves it free
    assert train(*SMOKE, folder).returncode == 0
    config = (tmp_path / "config.yaml").read_bytes()
    again = train(*SMOKE, "seed=1", folder)
    assert again.returncode == 1
    assert "holds a run: choose another hydra.run.dir" in again.stderr
    assert (tmp_path / "config.yaml").read_bytes() == config


def test_a_sweep_goes_on_after_a_bad_job(train: Command, tmp_path: Path) -> None:
    result = train("-m", *SMOKE, "model.latent_dim=2,0,8", f"hydra.sweep.dir={tmp_path}")
    assert result.returncode == 1
    assert "model.latent_dim=0: Input should be greater than 0" in result.stdout + result.stderr
    assert "1 job of the sweep failed" in result.stderr
    finished = {path.parent.name for path in tmp_path.glob("*/metrics.json")}
    assert finished == {"0", "2"}


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["model=vae", "prior=learned"], "use model=cvae_learned_prior"),
        (["model=unknown"], "Could not find 'model/unknown'"),
        (["model.unknown=1"], "Key 'unknown' is not in struct"),
        (["model.latent_dim=0"], "model.latent_dim=0: Input should be greater than 0"),
        (["data.batch_size=-1"], "data.batch_size=-1: Input should be greater than 0"),
        (["data.batch_size=50001"], "more than 50000 examples"),
        (["data.binarize=sometimes"], "data.binarize=sometimes: Input should be 'dynamic'"),
        (["optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
        (["trainer.max_epochs=many"], "trainer.max_epochs=many: Input should be a valid integer"),
        (["trainer.precision=bf16-true"], "one of 32-true, bf16-mixed, 16-mixed"),
        (["trainer.limit_test_batches=0"], "a run ends with its test"),
        (["trainer.max_epochs=-1", "trainer.max_time=00:00:01:00"], "give trainer.max_epochs or"),
        (["+trainer.accumulate_grad_batches=2"], "give a larger data.batch_size"),
        (["+trainer.fast_dev_run=true"], "use experiment=smoke"),
        (["trainer.precision=16-mixed", "trainer.gradient_clip_val=1"], "optimizer.fused=false"),
        (["seed=-1"], "data.seed=-1: Input should be greater than or equal to 0"),
        (["seed=abc"], "data.seed=abc: Input should be a valid integer"),
        (["trainer=multi_node", "trainer.accelerator=cpu", "trainer.devices=1"], "with torchrun"),
        (["trainer=gpu"], "trainer.accelerator=gpu: no GPU"),
        (["trainer=ddp_cpu", "data.batch_size=65"], "choose a multiple of 2"),
        (["data.root=/nowhere"], "/nowhere has no train-images-idx3-ubyte"),
        (["network.hidden=[]"], "network.hidden=[]: List should have at least 1 item"),
        (["network=conv", "network.channels=[8,8,8]"], "give fewer channels"),
    ],
)
def test_a_mistake_ends_with_a_line_that_says_what_to_change(
    train: Command, tmp_path: Path, overrides: list[str], line: str
) -> None:
    result = train(*SMOKE, *overrides, f"hydra.run.dir={tmp_path}")
    assert result.returncode == 1
    assert line in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "metrics.json").exists()


def test_the_whole_traceback_is_there_for_the_asking(train: Command, tmp_path: Path) -> None:
    result = train(*SMOKE, "model.latent_dim=0", f"hydra.run.dir={tmp_path}", HYDRA_FULL_ERROR="1")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


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

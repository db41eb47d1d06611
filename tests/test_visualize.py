"""`python -m cvae.visualize` on runs that the real command has trained."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cvae.data.examples import Examples
from cvae.evaluation.data import data_of
from cvae.evaluation.latents import latents
from cvae.pictures.gallery import PICTURES
from cvae.pictures.subject import SHOWN, Subject
from cvae.run import Run
from folders import names
from warm import Command, Warm

Visualize = Callable[..., Command]
Shown = Callable[..., tuple[Path, set[str], str]]
EXPECTED = set(PICTURES) - {"styles"}  # which needs several annotators
LABELS_ALONE = {name for name in EXPECTED if name.startswith("interpolation")}


@pytest.fixture(scope="module")
def visualize(warm: Warm) -> Visualize:
    def run(*arguments: str | Path) -> Command:
        return warm.start("cvae.visualize", *map(str, arguments)).wait()

    return run


@pytest.fixture(scope="module")
def visualized(
    visualize: Visualize, reference: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("visualized") / "run"
    shutil.copytree(reference("model.latent_dim=2"), folder)
    command = visualize(folder)
    assert command.status == 0, command.output
    return folder, command.output


@pytest.fixture
def shown(visualize: Visualize, reference: Callable[..., Path], tmp_path: Path) -> Shown:
    def run(*overrides: str, split: str = "test") -> tuple[Path, set[str], str]:
        """A run's folder, the pictures that the command added to it, and what it said."""
        trained, folder = reference(*overrides), tmp_path / "run"
        shutil.copytree(trained, folder)
        command = visualize(folder, "--split", split)
        assert command.status == 0, command.output
        return folder, _added(folder, trained), command.output

    return run


def _files(folder: Path) -> dict[str, bytes]:
    """What the command wrote, but for TensorBoard's events, which have a time."""
    names = [*folder.glob("pictures/*.png"), *folder.glob("latents*.npz")]
    projector = folder.glob("tensorboard/pictures/**/*.*v")  # tsv
    return {str(path.relative_to(folder)): path.read_bytes() for path in [*names, *projector]}


def _shown(folder: Path) -> Examples:
    """The examples that the projector and the scatter plot have."""
    run = Run(folder)
    test = data_of(run).examples("test")
    some = Subject(run.load_model(), run.view, test, seed=0).some
    return Examples(*(values[some] for values in test[:3]))


def _added(folder: Path, before: Path) -> set[str]:
    """Pictures that one folder has more than the other."""
    names = [{path.stem for path in run.glob("pictures/*.png")} for run in (folder, before)]
    return names[0] - names[1]


def test_all_pictures_of_a_small_z_are_there_dark_on_white(
    visualized: tuple[Path, str], reference: Callable[..., Path]
) -> None:
    folder, output = visualized
    assert "left out" not in output
    assert _added(folder, reference("model.latent_dim=2")) == EXPECTED
    for name in EXPECTED:
        assert f"pictures/{name}.png" in output
        with Image.open(folder / "pictures" / f"{name}.png") as picture:
            low, high = picture.convert("L").getextrema()
            assert picture.width > 500
        assert low < 100
        assert high == 255


def test_nothing_that_was_drawn_outlives_its_weights(
    visualized: tuple[Path, str], reference: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(visualized[0], folder)
    Run(folder).forget()
    assert names(folder) == names(reference("model.latent_dim=2"))
    assert not any((folder / "pictures").iterdir())


def test_latents_are_kept_in_the_order_of_the_data(visualized: tuple[Path, str]) -> None:
    folder, _ = visualized
    run = Run(folder)
    test = data_of(run).examples("test")
    use = latents(run.load_model(), test.x, test.y).arrays()
    with np.load(folder / "latents.npz") as kept:
        assert set(kept) == {*use, "label"}
        assert np.array_equal(kept["label"], test.labels.numpy())
        for name, values in use.items():
            assert kept[name].shape == (10_000, 2)
            np.testing.assert_allclose(kept[name], values, rtol=1e-5, atol=1e-6)


def test_tensorboard_holds_the_pictures_and_the_projector(visualized: tuple[Path, str]) -> None:
    folder = visualized[0] / "tensorboard" / "pictures"
    events = EventAccumulator(str(folder))
    events.Reload()
    assert set(events.Tags()["images"]) == {f"pictures/{name}" for name in EXPECTED}
    assert 'tensor_name: "posterior_means:00000"' in (folder / "projector_config.pbtxt").read_text()
    (means,) = folder.glob("**/tensors.tsv")
    assert len(means.read_text().splitlines()) == SHOWN
    header, *shown = (means.parent / "metadata.tsv").read_text().splitlines()
    assert header == "class\tKL"
    labels = _shown(visualized[0]).labels.tolist()
    assert [int(line.split("\t")[0]) for line in shown] == labels
    with Image.open(means.parent / "sprite.png") as picture:
        sprite = torch.from_numpy(np.asarray(picture.convert("L")).copy()) / 255
    side = sprite.shape[1] // 28
    tiles = sprite.unfold(0, 28, 28).unfold(1, 28, 28).flatten(0, 1)[:SHOWN]
    assert side * side >= SHOWN
    torch.testing.assert_close(tiles, _shown(visualized[0]).y[:, 0], rtol=0, atol=0.6 / 255)


def test_a_second_time_gives_the_same_and_another_seed_other_samples(
    visualized: tuple[Path, str], visualize: Visualize, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(visualized[0], folder)
    for path in folder.glob("pictures/*.png"):
        path.unlink()
    assert visualize(folder).status == 0
    before = _files(visualized[0])
    again = _files(folder)
    assert again == {name: before[name] for name in again}
    assert {f"pictures/{name}.png" for name in EXPECTED} < set(again)
    assert len([*folder.glob("tensorboard/pictures/events*")]) == 1
    assert visualize(folder, "--seed", "1").status == 0
    other = _files(folder)
    changed = {name for name, content in other.items() if content != again[name]}
    seeded = ("conditions", "posterior_and_prior", "posterior_means", "aggregate")
    assert {f"pictures/{name}.png" for name in seeded} < changed
    assert not {"pictures/kl.png", "latents.npz"} & changed


def test_where_x_is_a_picture_what_makes_no_sense_is_left_out_in_one_line(shown: Shown) -> None:
    folder, added, output = shown("data=quadrants", "model.latent_dim=4", split="val")
    (line,) = (line for line in output.splitlines() if "left out" in line)
    assert line.endswith(
        "(a mixture of two pictures is no condition); manifold (z has not two dimensions)"
    )
    assert all(name in line for name in LABELS_ALONE)
    assert added == set()
    drawn = {path.stem for path in folder.glob("pictures_val/*.png")}
    assert drawn == EXPECTED - LABELS_ALONE - {"manifold"}
    with np.load(folder / "latents_val.npz") as kept:
        assert kept["prior_scale"].shape == (10_000, 4)
        assert len(np.unique(kept["prior_mean"][:, 0])) > 1000  # a prior for each x
    assert (folder / "tensorboard" / "pictures_val").is_dir()


def test_a_model_without_z_shows_what_it_makes_of_x(shown: Shown) -> None:
    folder, added, output = shown("data=quadrants", "model=deterministic")
    assert "there is no z" in output
    assert added == {"conditions"}
    assert not (folder / "latents.npz").exists()


def test_of_a_posterior_that_is_the_prior_there_is_nothing_to_see(shown: Shown) -> None:
    _, added, output = shown("model=gsnn", "model.latent_dim=2")
    assert "(q(z|x,y) is the prior)" in output
    assert added == {"conditions", "interpolation_of_conditions", "manifold"}


def test_the_images_of_a_model_that_ignores_x_have_a_noise_each(shown: Shown) -> None:
    folder, _, output = shown("model=vae", "model.latent_dim=2")
    assert "left out: interpolation_of_conditions (the model ignores x)" in output
    for name, height in (("conditions", 40), ("samples", 0)):
        with Image.open(folder / "pictures" / f"{name}.png") as picture:
            pixels = torch.from_numpy(np.asarray(picture.convert("L")).copy())
        first, second = pixels[height : height + 50, 20:60], pixels[height : height + 50, 80:120]
        assert not torch.equal(first, second), name


def test_a_run_that_cannot_be_shown_leaves_the_others_their_turn(
    visualized: tuple[Path, str], visualize: Visualize, tmp_path: Path
) -> None:
    for name in ("0", "1"):
        shutil.copytree(visualized[0], tmp_path / name)
        (tmp_path / name / "latents.npz").unlink()
    shutil.rmtree(tmp_path / "0" / "checkpoints")
    command = visualize(tmp_path)
    assert command.status == 1
    assert "does not exist: has the run been trained?" in command.output
    assert not (tmp_path / "0" / "latents.npz").exists()
    assert (tmp_path / "1" / "latents.npz").is_file()


@pytest.fixture(scope="module")
def places(
    visualized: tuple[Path, str], mnist_root: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A run, one that does not say which data it saw, and data of which a bit has changed."""
    folder = tmp_path_factory.mktemp("mistakes")
    shutil.copytree(visualized[0], folder / "silent")
    checkpoint = folder / "silent" / "checkpoints" / "best.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["ImageData"] = {"given": 0, "hashes": {}}
    torch.save(content, checkpoint)
    shutil.copytree(mnist_root, folder / "altered")
    labels = folder / "altered" / "t10k-labels-idx1-ubyte"
    altered = bytearray(labels.read_bytes())
    altered[-1] ^= 1
    labels.write_bytes(altered)
    return {"whole": visualized[0], "silent": folder / "silent", "altered": folder / "altered"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nowhere", "nowhere is not a run's folder"),
        ("{silent}", "best.ckpt does not say which data it was trained on"),
        ("{whole} --data-root {altered}", "t10k-labels-idx1-ubyte has changed"),
    ],
)
def test_a_mistake_ends_with_one_line(
    visualize: Visualize, places: dict[str, Path], words: str, said: str
) -> None:
    command = visualize(*words.format(**places).split(" "))
    assert command.status == 1
    (line,) = [line for line in command.output.splitlines() if "[ERROR]" in line]
    assert said in line
    assert command.output.splitlines()[-1] == line


def test_the_help_tells_what_is_written(visualize: Visualize) -> None:
    command = visualize("--help")
    assert command.status == 0
    for name in (*PICTURES, "latents.npz", "--split", "--data-root", "--seed", "latest"):
        assert name in command.output

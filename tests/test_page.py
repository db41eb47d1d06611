"""demo.html in a real browser: the canvases hold what PyTorch draws."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from browser import Page, opened
from cvae.build import build
from cvae.evaluation.generation import Draw, Sampler
from cvae.evaluation.judge import Judge
from cvae.exporting.digits import digit_model
from cvae.exporting.facts import facts
from cvae.exporting.page import FIRST_TEMPERATURE, page
from cvae.run import Run
from warm import Command

STILL = "--force-prefers-reduced-motion"
SECOND, TENTH = 1000, 100  # milliseconds
SHARED = 5  # times that a machine with other work on it may take longer
NUMBERS = {"accuracy": 1.0, "standard_error": 0.0, "mean_difference": 0.0}


def _page_of(folder: Path, path: Path) -> tuple[Draw, Draw]:
    """Write the page of a run; what it should draw, by its own weights and by the checkpoint's."""
    run = Run(folder)
    model = run.load_model()
    view, source = (build(run.config["data"][name], name) for name in ("view", "source"))
    digits = digit_model(model, view, source)
    first = {"temperature": FIRST_TEMPERATURE, **NUMBERS}
    path.write_bytes(page(digits, facts(run, NUMBERS, {**NUMBERS, "first": first})))
    return digits, Sampler(model)


def _expected(draw: Draw, shown: dict[str, Any]) -> Tensor:
    labels = torch.tensor([int(digit) for digit in shown["digits"]])
    noise = torch.tensor(shown["noise"]) * shown["temperature"]
    with torch.inference_mode():
        return draw(torch.eye(10)[labels], noise)


@pytest.fixture(scope="module")
def tiny(
    reference: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Page, Draw, Draw]]:
    """The page of a run that has learned little: its arithmetic is that of any other."""
    path = tmp_path_factory.mktemp("page") / "demo.html"
    own, checkpoint = _page_of(reference(), path)
    with opened(path, STILL) as shown:
        yield shown, own, checkpoint


def test_the_canvas_holds_what_pytorch_draws_for_the_same_noise(
    tiny: tuple[Page, Draw, Draw],
) -> None:
    reader, own, checkpoint = tiny
    for text, temperature in (("3141592653", 0.7), ("07", 1.5), ("8", 0.0)):
        reader.set("temperature", temperature)
        reader.type(text)
        shown = reader.shown
        assert (shown["digits"], shown["temperature"]) == (text, temperature)
        pictures = reader.pictures()
        assert len(pictures) == len(text)
        assert (pictures - _expected(own, shown)).abs().max() < 0.6 / 255  # it rounds
        assert (pictures - _expected(checkpoint, shown)).abs().mean() < 2 / 255


def test_a_new_sample_has_new_noise_and_the_same_hand_one_for_all(
    tiny: tuple[Page, Draw, Draw],
) -> None:
    reader, *_ = tiny
    reader.type("1122334455")
    before = torch.tensor(reader.shown["noise"])
    reader.click("button[type=submit]")
    assert torch.equal(torch.tensor(reader.shown["noise"]), before)
    reader.click("#again")
    after = torch.tensor(reader.shown["noise"])
    assert (after != before).all()
    assert abs(after.mean()) < 5 / after.numel() ** 0.5  # standard normal, five errors wide
    assert abs(after.var() - 1) < 5 * (2 / after.numel()) ** 0.5
    reader.click("#same")
    same = torch.tensor(reader.shown["noise"])
    assert torch.equal(same, after[:1].expand(10, -1))
    reader.click("#same")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("12a4", "“a” is not a digit"),
        ("½", "“½” is not a digit"),
        ("-1", "“-” is not a digit"),
        ("<b>", "“<” is not a digit"),
        ("", "type one to ten digits"),
        ("12345678901", "11 digits, and 10 fit"),
    ],
)
def test_what_cannot_be_written_is_told_and_the_paper_stays(
    tiny: tuple[Page, Draw, Draw], typed: str, said: str
) -> None:
    reader, *_ = tiny
    reader.type("42")
    before = reader.pictures()
    reader.type(typed)
    assert said in reader.message
    assert torch.equal(reader.pictures(), before)
    reader.click("#again")
    reader.set("temperature", reader.shown["temperature"])  # which writes anew
    assert torch.equal(reader.pictures(), before)
    reader.type(" 4 2 ")
    assert reader.message == ""
    assert torch.equal(reader.pictures(), before)


def test_it_asks_for_nothing_says_nothing_and_fits_a_phone(
    tiny: tuple[Page, Draw, Draw], tmp_path: Path
) -> None:
    reader, *_ = tiny
    reader.type("3141592653")
    for width, height in ((1100, 900), (360, 740)):
        reader.screenshot(tmp_path / f"{width}.png", width, height)
        widest = "return document.documentElement.scrollWidth"
        assert reader.driver.execute_script(widest) <= width
    assert reader.requests() == []
    assert reader.complaints() == []
    unnamed = "return [...document.querySelectorAll('input')].filter(i => !i.labels.length).length"
    assert reader.driver.execute_script(unnamed) == 0
    assert "3141592653" in reader.driver.find_element("id", "paper").get_attribute("aria-label")
    assert "3141592653" in reader.driver.find_element("id", "written").get_attribute("textContent")


@pytest.fixture(scope="module")
def trained(begin: Callable[..., Command], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network and latent space of blog_cvae with a learned prior, trained for a while."""
    folder = tmp_path_factory.mktemp("trained")
    words = ("network.hidden=[512,512]", "model.latent_dim=256", "data.batch_size=128")
    all_data = [f"trainer.limit_{split}_batches=null" for split in ("train", "val", "test")]
    command = begin(folder, *words, *all_data, "trainer.max_epochs=5").wait()
    assert command.status == 0, command.output
    return folder


@pytest.mark.slow
def test_of_two_hundred_digits_almost_all_are_what_was_typed(
    trained: Path, judge: Judge, tmp_path: Path
) -> None:
    path = tmp_path / "demo.html"
    own, checkpoint = _page_of(trained, path)
    assert path.stat().st_size < 1_500_000
    right = 0.0
    with opened(path, STILL) as reader:
        assert reader.first_paint() < SHARED * SECOND
        times = []
        for _ in range(20):
            reader.click("#again")
            reader.type("0123456789")
            pictures, shown = reader.pictures(), reader.shown
            times.append(shown["milliseconds"])
            assert (pictures - _expected(own, shown)).abs().max() < 0.6 / 255  # it rounds
            assert (pictures - _expected(checkpoint, shown)).abs().mean() < 2 / 255
            right += judge.correct(pictures, torch.arange(10)).mean() / 20
        assert reader.complaints() == []
    assert min(times) < TENTH  # what else the machine does only adds to it
    assert right >= 0.97


@pytest.mark.slow
def test_the_ink_flows_until_the_number_stands(trained: Path, tmp_path: Path) -> None:
    own, _ = _page_of(trained, tmp_path / "demo.html")
    with opened(tmp_path / "demo.html") as reader:
        frames = reader.frames("7", 2 * SECOND)  # four times what a digit takes
        expected = _expected(own, reader.shown)
    shares = (frames.sum((1, 2, 3, 4)) / expected.sum()).tolist()
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert len({share for share in shares if 0 < share < 0.99}) > 2  # of some thirty frames
    assert (frames[-1] - expected).abs().max() < 0.6 / 255

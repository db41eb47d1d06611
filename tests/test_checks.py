"""What a config may not ask for on this machine, or on others."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cvae.errors import UserError
from cvae.training.checks import check_trainer


@pytest.mark.parametrize(
    ("words", "gpu", "line"),
    [
        (["trainer.accelerator=mps"], False, "accelerator=mps: Input should be 'auto', 'cpu', "),
        (["trainer.accelerator=auto"], False, "which has no float64: choose trainer=cpu"),
        (["trainer.precision=16-mixed"], True, "give trainer.precision=bf16-mixed"),
        (
            ["trainer=gpu", "trainer.precision=16-mixed", "trainer.gradient_clip_val=1"],
            True,
            "needs a run with optimizer.fused=false",
        ),
    ],
)
def test_what_a_device_cannot_do_is_refused(
    compose: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    gpu: bool,
    line: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(UserError, match=line):
        check_trainer(compose(*words))


def test_float16_is_for_gpus(
    compose: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_trainer(compose("trainer=gpu", "trainer.precision=16-mixed"))


@pytest.mark.parametrize(("epochs", "told"), [(300, True), (301, False)])
def test_a_training_that_ends_within_its_warmup_is_told_of(
    compose: Callable[..., dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
    epochs: int,
    told: bool,
) -> None:
    words = ("objective.warmup_epochs=300", f"trainer.max_epochs={epochs}")
    check_trainer(compose(*words))
    assert ("all of the training is its warm-up" in caplog.text) == told

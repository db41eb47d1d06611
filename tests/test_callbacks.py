"""What callbacks do during a real, tiny training."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvae.errors import UserError
from cvae.run import Run
from cvae.training.fit import fit

Train = Callable[..., dict[str, Any]]
FROZEN = ("optimizer.lr=0.0", "schedule=constant")  # nothing ever improves
PATIENT = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1")


@pytest.fixture
def trained(compose: Callable[..., dict[str, Any]], tmp_path: Path, mnist_root: str) -> Train:
    """Trains five steps an epoch in `tmp_path` and gives the results."""

    def run(*overrides: str) -> dict[str, Any]:
        config = compose(
            "experiment=smoke",
            "trainer.limit_train_batches=5",
            "trainer.limit_val_batches=1",
            "trainer.limit_test_batches=1",
            "trainer.enable_progress_bar=false",
            f"data.root={mnist_root}",
            *overrides,
        )
        return fit(Run.create(tmp_path, config))

    return run


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_early_stopping_stops_what_does_not_improve(trained: Train) -> None:
    assert trained(*PATIENT, *FROZEN, "trainer.max_epochs=9")["epochs"] == 2


def test_early_stopping_waits_until_the_warm_up_has_ended(trained: Train) -> None:
    overrides = (*PATIENT, *FROZEN, "trainer.max_epochs=9", "objective.warmup_epochs=3")
    assert trained(*overrides)["epochs"] == 4


def test_early_stopping_needs_validation_data(trained: Train) -> None:
    with pytest.raises(UserError, match=r"needs validation data"):
        trained(*PATIENT, "data.split=full")


def test_an_epoch_without_validation_has_an_empty_place_in_its_row(
    trained: Train, tmp_path: Path
) -> None:
    results = trained("trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2")
    assert [bool(row["val/elbo"]) for row in rows(tmp_path)] == [False, True, False, True]
    assert results["best_epoch"] in (2, 4)


def test_without_validation_the_best_weights_are_the_last(trained: Train, tmp_path: Path) -> None:
    results = trained("trainer.max_epochs=2", "data.split=full")
    assert not [name for name in results if name.startswith(("val/", "best"))]
    best, last = (Run(tmp_path).load_model(name).state_dict() for name in ("best", "last"))
    assert all(best[name].equal(last[name]) for name in last)


def test_the_warm_up_is_in_the_loss_and_not_in_the_elbo(trained: Train, tmp_path: Path) -> None:
    trained("objective.warmup_epochs=1", "trainer.max_epochs=1")
    (row,) = rows(tmp_path)
    terms = {name: float(value) for name, value in row.items() if value}
    assert terms["train/elbo"] == pytest.approx(
        terms["train/reconstruction"] - terms["train/kl"], abs=1e-3
    )
    assert terms["train/loss"] < -terms["train/elbo"] - 1e-3  # β was below 1 throughout


def test_a_trained_folder_is_not_trained_again(trained: Train, tmp_path: Path) -> None:
    trained()
    before = (tmp_path / "metrics.csv").read_bytes()
    with pytest.raises(UserError, match="holds a trained run"):
        trained()
    assert (tmp_path / "metrics.csv").read_bytes() == before

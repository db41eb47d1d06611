"""A run's folder: its config, its checkpoints, its model. Nothing here needs Lightning or data."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from cvae.build import build, check_targets
from cvae.data.idx import write_atomically
from cvae.densities import Head
from cvae.errors import UserError
from cvae.model import ConditionalVAE

Config = Mapping[str, Any]
MODEL_PREFIX = "model."  # of the model's weights in a checkpoint


class Run:
    """Whoever has the folder has the experiment.

    Args:
        folder: holds `config.yaml` and, once trained, `checkpoints/` and `metrics.json`.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @classmethod
    def create(cls, folder: Path | str, config: Config) -> "Run":
        """Write a resolved config into a folder, which makes it a run.

        Raises:
            UserError: the config names a target that is not on the list, or the folder holds a
                run that has been trained.
        """
        check_targets(config, "config")
        run = cls(folder)
        if run.checkpoint().parent.exists():
            raise UserError(f"{folder} holds a trained run: choose another hydra.run.dir")
        text = OmegaConf.to_yaml(OmegaConf.create(dict(config)))
        write_atomically(run.folder / "config.yaml", text.encode())
        return run

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config, plain values only.

        Raises:
            UserError: the folder is not a run, or its config names a target not on the list.
        """
        path = self.folder / "config.yaml"
        if not path.is_file():
            raise UserError(f"{self.folder} is not a run's folder: it has no config.yaml")
        config = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        if not isinstance(config, dict):
            raise UserError(f"{path} does not hold a run's config")
        check_targets(config, "config")
        return {str(key): value for key, value in config.items()}

    @property
    def metrics(self) -> Path:
        """Final numbers."""
        return self.folder / "metrics.json"

    def checkpoint(self, name: str = "best") -> Path:
        """`checkpoints/NAME.ckpt`: best or last."""
        return self.folder / "checkpoints" / f"{name}.ckpt"

    def build_model(self) -> ConditionalVAE:
        """The composition that the config describes, with fresh weights."""
        config = self.config
        view = build(config["data"]["view"], "data.view")
        model: ConditionalVAE = build(
            config["model"],
            "model",
            x_shape=view.x_shape,
            y_shape=view.y_shape,
            networks=build(config["network"], "network"),
            prior=build(config["prior"], "prior"),
            likelihood=build(config["likelihood"], "likelihood"),
        )
        return model

    def load_model(self, name: str = "best") -> ConditionalVAE:
        """The trained model on the CPU, in evaluation mode.

        Raises:
            UserError: the checkpoint is missing, or does not fit the config.
        """
        path = self.checkpoint(name)
        if not path.is_file():
            raise UserError(f"{path} does not exist: has the run been trained?")
        weights = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        model = self.build_model()
        own = {
            key.removeprefix(MODEL_PREFIX): value
            for key, value in weights.items()
            if key.startswith(MODEL_PREFIX)
        }
        try:
            model.load_state_dict(own)
        except RuntimeError as error:
            raise UserError(f"{path} does not fit {self.folder}/config.yaml: {error}") from error
        return model.eval()


def density_label(likelihood: Head, binarize: str) -> str:
    """What the numbers of a likelihood on such pixels are, in words, wherever they are shown."""
    if likelihood.binary and binarize == "none":
        return "cross-entropy on grey pixels, not a log-likelihood"
    if not likelihood.binary and binarize != "none":
        return "log-density on 0/1 pixels, which has no meaning as a likelihood of images"
    return "log-probability of 0/1 pixels" if likelihood.binary else "log-density of grey pixels"

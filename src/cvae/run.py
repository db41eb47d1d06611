"""A run's folder: its config, its checkpoints, its model. Nothing here needs Lightning or data."""

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from cvae.build import build, check_targets
from cvae.densities import Head
from cvae.errors import UserError
from cvae.files import write_atomically
from cvae.model import ConditionalVAE

Config = Mapping[str, Any]
MODEL_PREFIX = "model."  # of the model's weights in a checkpoint


class Run:
    """Whoever has the folder has the experiment.

    Args:
        folder: holds `config.yaml` and, once trained, `checkpoints/` and `metrics.json`.
        config: of a run that is about to be made; otherwise the folder's own is read.
    """

    def __init__(self, folder: Path | str, config: Config | None = None) -> None:
        self.folder = Path(folder)
        self._given = config

    def claim(self) -> None:
        """Write the config into the folder, which from then on belongs to this run alone.

        Raises:
            UserError: the config names a target that is not on the list, the folder holds a run
                already, or it cannot be written.
        """
        text = OmegaConf.to_yaml(OmegaConf.create(dict(self.config)))
        checkpoints = self.checkpoint().parent
        try:
            checkpoints.mkdir(parents=True)  # of two runs that come at once, one succeeds
        except FileExistsError as error:
            raise UserError(f"{self.folder} holds a run: choose another hydra.run.dir") from error
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written ({error.strerror})") from error
        write_atomically(self.folder / "config.yaml", text.encode())

    def release(self) -> None:
        """Give up the claim if nothing was trained, so that a second try can have the folder."""
        with suppress(OSError):
            self.checkpoint().parent.rmdir()  # refuses if it is not empty

    @cached_property
    def config(self) -> Config:
        """The resolved config, plain values only.

        Raises:
            UserError: the folder is not a run, or its config names a target not on the list.
        """
        config = self._read() if self._given is None else self._given
        check_targets(config, "config")
        return config

    def _read(self) -> Config:
        path = self.folder / "config.yaml"
        if not path.is_file():
            raise UserError(f"{self.folder} is not a run's folder: it has no config.yaml")
        config = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        if not isinstance(config, dict):
            raise UserError(f"{path} does not hold a run's config")
        return {str(key): value for key, value in config.items()}

    @property
    def metrics(self) -> Path:
        """Final numbers."""
        return self.folder / "metrics.json"

    @property
    def weights(self) -> str:
        """Which weights stand for the run: the best, or the last where nothing was validated."""
        return "best" if self.checkpoint("best").is_file() else "last"

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

    def load_model(self, name: str | None = None) -> ConditionalVAE:
        """The trained model on the CPU, in evaluation mode.

        Args:
            name: best or last; the run's own `weights` if not given.

        Raises:
            UserError: the checkpoint is missing, or does not fit the config.
        """
        path = self.checkpoint(name or self.weights)
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

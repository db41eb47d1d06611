"""A run's folder: its config, its checkpoints, its model. Nothing here needs Lightning or data."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from cvae.build import build, check_arguments
from cvae.checkpoint import read_checkpoint
from cvae.config import ROOT, Config, check_config, parse
from cvae.data.views import View
from cvae.densities import Head
from cvae.errors import UserError
from cvae.files import write_atomically
from cvae.model import ConditionalVAE
from cvae.run_folder import RunFolder, resume_command

MODEL_PREFIX = "model."  # of the model's weights in a checkpoint
DENSITIES = {  # by whether the likelihood is of 0/1, and whether the pixels are grey
    (True, False): "log-probability of 0/1 pixels",
    (True, True): "cross-entropy on grey pixels, not a log-likelihood",
    (False, False): "log-density on 0/1 pixels, which has no meaning as a likelihood of images",
    (False, True): "log-density of grey pixels",
}


class Run(RunFolder):
    """Whoever has the folder has the experiment.

    Args:
        folder: holds `config.yaml` and, once trained, `checkpoints/` and `metrics.json`.
        config: of a run that is about to be made; otherwise the folder's own is read.
    """

    def __init__(self, folder: Path | str, config: Config | None = None) -> None:
        super().__init__(folder)
        self._given = config

    def begin(self) -> None:
        """Write the config of a new run into its folder.

        Raises:
            UserError: the config names a target that is not on the list, the folder holds a run
                already, or a config of something else, or it cannot be written.
        """
        if self.begun:
            raise UserError(
                f"{self.folder} holds a run: choose another hydra.run.dir, or go on with "
                f"{resume_command(self.folder)}"
            )
        self.check_place()
        self.write_config()
        self.checkpoint("best").unlink(missing_ok=True)  # of a run that was killed before its last

    def check_place(self) -> None:
        """Refuse to write over a config that is not a run's.

        Raises:
            UserError: the folder has one.
        """
        path = self.folder / "config.yaml"
        try:
            foreign = path.exists() and not ROOT.keys() <= Run(self.folder)._read().keys()
        except UserError:
            foreign = True
        if foreign:
            raise UserError(f"{path} is not a run's and would be lost: choose another folder")

    def changed(self, changes: Sequence[str]) -> "Run":
        """The run with other options of its trainer: how it goes on, not what it is.

        Args:
            changes: `trainer.KEY=VALUE`.

        Raises:
            UserError: a change is of another form, of anything else than the trainer, or to a value
                that it cannot have.
            HydraException: a value cannot be read.
        """
        trainer = dict(self.config["trainer"])
        for change in changes:
            key, equals, _ = change.partition("=")
            name = key.removeprefix("trainer.")
            if not equals or name == key or name.startswith("_"):
                raise UserError(
                    f"{change}: a run goes on with its own config, only trainer.KEY=VALUE can be "
                    "changed; for anything else start a new run"
                )
            (override,) = OverridesParser.create().parse_overrides([change])  # as cvae.train does
            if override.is_sweep_override():
                raise UserError(f"{change}: one value is expected")
            trainer[name] = override.value()
        check_arguments(trainer, "trainer")
        return Run(self.folder, {**self.config, "trainer": trainer})

    def write_config(self) -> None:
        """Write the config into the folder."""
        text = OmegaConf.to_yaml(OmegaConf.create(dict(self.config)))
        write_atomically(self.folder / "config.yaml", text.encode())

    def write_words(self, words: Sequence[str]) -> None:
        """Keep what was given on the command line that began it."""
        write_atomically(self.words, OmegaConf.to_yaml(list(words)).encode())

    @cached_property
    def config(self) -> Config:
        """The resolved config, plain values only.

        Raises:
            UserError: the folder is not a run, or its config is not one, or names a target that is
                not on the list.
        """
        config = self._read() if self._given is None else self._given
        check_config(config)
        return config

    def _read(self) -> Config:
        path = self.folder / "config.yaml"
        if not path.is_file():
            raise UserError(f"{self.folder} is not a run's folder: it has no config.yaml")
        config = parse(path.read_bytes(), str(path))
        if not isinstance(config, dict):
            raise UserError(f"{path} does not hold a run's config")
        return {str(key): value for key, value in config.items()}

    @cached_property
    def view(self) -> View:
        """What of its data is x and what is y."""
        view: View = self.part(View, "data", "view")
        return view

    @property
    def density(self) -> str:
        """What the numbers of its likelihood on its pixels are, in words."""
        binary = self.part(Head, "likelihood").binary
        grey = self.config["data"].get("binarize", "none") == "none" and not self.view.mask
        return DENSITIES[binary, grey]

    def build_model(self) -> ConditionalVAE:
        """The composition that the config describes, with fresh weights."""
        config = self.config
        model: ConditionalVAE = build(
            config["model"],
            "model",
            x_shape=self.view.x_shape,
            y_shape=self.view.y_shape,
            networks=build(config["network"], "network"),
            prior=build(config["prior"], "prior"),
            likelihood=self.part(Head, "likelihood"),
        )
        return model

    def part(self, kind: type, *place: str, **given: Any) -> Any:
        """One object that the config describes.

        Args:
            kind: that it has to be.
            place: where it stands.
            given: arguments that config cannot hold.

        Raises:
            UserError: there is none, or it is of another kind, or cannot be built.
        """
        node: Any = self.config
        for name in place:
            node = node.get(name) if isinstance(node, Mapping) else None
        path = ".".join(place)
        if not isinstance(node, Mapping):
            raise UserError(f"{self.folder}: its config describes no {path}")
        part = build(node, path, **given)
        if not isinstance(part, kind):
            raise UserError(f"{self.folder}: {path} is no {kind.__name__}")
        return part

    def load_model(self, name: str | None = None) -> ConditionalVAE:
        """The trained model on the CPU, in evaluation mode.

        Args:
            name: best or last; the run's own `weights` if not given.

        Raises:
            UserError: the checkpoint is missing, damaged, or does not fit the config.
        """
        path = self.checkpoint(name or self.weights)
        weights = read_checkpoint(path)["state_dict"]
        model = self.build_model()
        own = {
            key.removeprefix(MODEL_PREFIX): value
            for key, value in weights.items()
            if key.startswith(MODEL_PREFIX)
        }
        try:
            model.load_state_dict(own)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path} does not fit {self.folder}/config.yaml: {reason}") from error
        return model.eval()

"""A run's folder may come from anywhere: its config can neither run code nor write elsewhere.

The command line is trusted, and may admit a package of the user's own.
"""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from cvae import allowed, build
from cvae.allowed import allow
from cvae.build import check_targets
from cvae.config import check_config
from cvae.data.source import Arrays
from cvae.errors import UserError
from cvae.evaluation import judge
from cvae.evaluation.judge_training import RECIPE
from cvae.run import Run
from cvae.runs import find
from cvae.training.checks import check_trainer
from folders import load
from warm import Command, Warm

Start = Callable[..., Command]
Compose = Callable[..., dict[str, Any]]
SYSTEM = {"_target_": "os.system", "command": "true"}
INIT = """
import os
from subprocess import Popen
from torch.optim import SGD
from .parts import WidePrior
"""
PARTS = """
import subprocess

import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Laplace, Normal

from cvae.densities import Head
from cvae.ranges import Positive

class WidePrior(nn.Module):
    def __init__(self, x_shape, latent_dim: int, networks, scale: Positive = 1.0):
        super().__init__()
        self.latent_dim, self.scale = latent_dim, scale

    def forward(self, x):
        mean = torch.zeros(len(x), self.latent_dim, device=x.device)
        return Independent(Normal(mean, self.scale * torch.ones_like(mean)), 1)

class PointedPrior(WidePrior):
    def forward(self, x):
        gaussian = super().forward(x)
        return Independent(Laplace(gaussian.mean, gaussian.stddev), 1)

class HotHead(Head):
    num_parameters = 1
    binary = True

    def __init__(self, temperature: Positive):
        super().__init__()
        self.temperature = temperature

    def forward(self, *parameters):
        return Bernoulli(logits=parameters[0] / self.temperature)

def narrow_prior(x_shape, latent_dim: int, networks):
    return WidePrior(x_shape, latent_dim, networks, scale=0.5)

instance = HotHead(1.0)
"""
TYPED = """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from torch import Tensor

class Head:
    def __init__(self, scale: Tensor) -> None: ...
"""
OWN = (
    "prior._target_=my_package.parts.WidePrior",
    "+prior.scale=2.0",
    "likelihood._target_=my_package.parts.HotHead",
    "+likelihood.temperature=2",
    "trainer.max_epochs=1",
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A package of the user's own, and how a command comes to find it."""
    (tmp_path / "code" / "my_package").mkdir(parents=True)
    (tmp_path / "code" / "my_package" / "__init__.py").write_text(INIT)
    (tmp_path / "code" / "my_package" / "parts.py").write_text(PARTS)
    (tmp_path / "code" / "broken.py").write_text("import my_package\n1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setattr(allowed, "_packages", set())
    path = str(tmp_path / "code")
    return {"before": f"import sys; sys.path.insert(0, {path!r})", "PYTHONPATH": path}


@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu"])
def test_a_package_of_ones_own_trains_and_resumes_only_where_the_command_line_admits_it(
    begin: Start, resume: Start, package: dict[str, str], tmp_path: Path, trainer: str
) -> None:
    folder = tmp_path / "run"
    words = (*OWN, f"trainer={trainer}")
    refused = begin(folder, *words, **package).wait()
    assert refused.status == 1
    assert "my_package.parts.HotHead is not on the list" in refused.output
    assert "allow=PACKAGE" in refused.output

    trained = begin(folder, *words, "allow=my_package", **package).wait()
    assert trained.status == 0, trained.output
    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert isinstance(config, dict)
    assert "allow" not in config
    assert config["prior"]["scale"] == 2.0

    refused = resume(folder, "trainer.max_epochs=2", **package)
    assert refused.status == 1
    assert "is not on the list" in refused.output
    resumed = resume(folder, "trainer.max_epochs=2", "--allow", "my_package", **package)
    assert resumed.status == 0, resumed.output
    assert json.loads((folder / "metrics.json").read_text())["epochs"] == 2


def test_a_prior_of_ones_own_that_is_no_gaussian_ends_the_run_with_one_line(
    begin: Start, package: dict[str, str], tmp_path: Path
) -> None:
    words = ("prior._target_=my_package.parts.PointedPrior", "allow=my_package")
    command = begin(tmp_path / "run", *words, **package).wait()
    assert command.status == 1
    assert "Independent(Laplace) is no density of z: " in command.error


def test_values_are_checked_in_a_package_of_ones_own(
    begin: Start, package: dict[str, str], tmp_path: Path
) -> None:
    words = (*OWN, "allow=my_package", "prior.scale=-1")
    command = begin(tmp_path / "run", *words, **package).wait()
    assert command.status == 1
    assert "prior.scale=-1: Input should be greater than 0" in command.output


def test_an_annotation_that_is_only_there_for_a_type_checker_is_told(
    package: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "code" / "typed.py").write_text(TYPED)
    allowed.allow("typed")
    with pytest.raises(UserError, match=r"typed\.Head has an annotation .*'Tensor' is not defined"):
        build.build({"_target_": "typed.Head", "scale": 1.0}, "likelihood")


@pytest.mark.parametrize(
    "target",
    ["WidePrior", "parts.WidePrior", "parts.HotHead", "parts.narrow_prior"],
)
def test_what_an_admitted_package_defines_is_admitted(package: dict[str, str], target: str) -> None:
    node = {"_target_": f"my_package.{target}"}
    with pytest.raises(UserError, match="is not on the list"):
        check_targets(node)
    allow("my_package")
    check_targets(node)


@pytest.mark.parametrize(
    "target",
    [
        "my_package.os.system",
        "my_package.Popen",
        "my_package.SGD",
        "my_package.parts.subprocess.Popen",
        "my_package.parts.torch.load",
        "my_package.parts.Positive",
        "my_package.parts.instance",
        "my_package.parts.HotHead.load_state_dict",
        "my_package.parts.HotHead.forward.__globals__",
        "my_package.parts.HotHead.__subclasses__",
        "my_package.parts",
        "my_package.parts:HotHead.to",
        "my_package.missing",
        "my_package",
        "my_package.",
        "my_package_2.parts",
        "os.system",
    ],
)
def test_what_an_admitted_package_has_from_elsewhere_is_refused(
    package: dict[str, str], target: str
) -> None:
    allow("my_package")
    with pytest.raises(UserError, match="is not on the list"):
        check_targets({"_target_": target})


@pytest.mark.parametrize("name", ["broken", "missing", "", ".", "my_package.", "my-package", 7, []])
def test_what_is_no_package_is_refused(package: dict[str, str], name: Any) -> None:
    with pytest.raises(UserError, match=r"^allow="):
        allow(name)
    assert allowed.packages() == []


def test_a_folder_cannot_admit_a_package(
    package: dict[str, str], compose: Compose, tmp_path: Path
) -> None:
    config = compose() | {"allow": "my_package"}
    config["prior"] = {"_target_": "my_package.parts.WidePrior", "_partial_": True}
    with pytest.raises(UserError, match=r"prior\._target_=my_package\.parts\.WidePrior is not on"):
        check_config(config)
    with pytest.raises(UserError, match="allow: 'allow' is not one of"):
        check_config(compose() | {"allow": "my_package"})
    assert allowed.packages() == []


LISTED = "os.system is not on the list"
DICTIONARY = "Input should be a valid dictionary"
CHANGES: dict[str, tuple[str, Any, str]] = {
    "target": ("model._target_", "os.system", LISTED),
    "target in the trainer": ("trainer._target_", "subprocess.run", "run is not on the list"),
    "target in an argument of the trainer": ("trainer.profiler", SYSTEM, LISTED),
    "target in a list": ("trainer.devices", [SYSTEM], LISTED),
    "target in a list of lists": ("network.hidden", [[8], [SYSTEM]], LISTED),
    "target in the logger": ("logger.default_hp_metric", SYSTEM, LISTED),
    "target as a callback": ("callbacks.mine", SYSTEM, LISTED),
    "target in a callback": ("callbacks.pictures.every_epochs", SYSTEM, LISTED),
    "target in checkpoint": ("checkpoint.every_minutes", SYSTEM, LISTED),
    "target as the name": ("name", SYSTEM, LISTED),
    "target under an unknown key": ("more", [{"a": SYSTEM}], LISTED),
    "environment in a target": ("model._target_", "${oc.env:TARGET}", "TARGET} is not on the list"),
    "interpolated target": ("model._target_", "${name}", "${name} is not on the list"),
    "created node": ("model", "${oc.create:{_target_: os.system}}", DICTIONARY),
    "node of another resolver": ("model", "${mine:os.system}", DICTIONARY),
    "interpolated node": ("model", "${network}", DICTIONARY),
    "logger's sub_dir": ("logger.sub_dir", "../../elsewhere", "is not one of"),
    "logger's save_dir": ("logger.save_dir", "/tmp", "is not one of"),
    "logger's name": ("logger.name", "../../elsewhere", "is not one of"),
    "logger's version": ("logger.version", "/tmp", "is not one of"),
    "trainer's root": ("trainer.default_root_dir", "/tmp", "is not one of"),
    "trainer's plugins": ("trainer.plugins", ["async_checkpoint"], "is not one of"),
    "trainer's logger": ("trainer.logger", True, "is not one of"),
    "trainer's callbacks": ("trainer.callbacks", [], "is not one of"),
    "trainer's profiler": ("trainer.profiler", "pytorch", "Input should be 'simple' or"),
    "callback that is none": ("callbacks.mine", "checkpoint", DICTIONARY),
    "callback without a target": ("callbacks.mine", {"dirpath": "/tmp"}, "_target_ is missing"),
    "callbacks that are a list": ("callbacks", [], DICTIONARY),
    "data root that is a list": ("data.root", ["/etc"], "Input should be a valid string"),
    "data root that is a node": ("data.root", {"a": "/etc"}, "Input should be a valid string"),
    "name with a path": ("name", "../../elsewhere", "a word, or words"),
    "name with a line break": ("name", "run\nssh-rsa AAAA", "a word, or words"),
    "partial at the top": ("trainer._partial_", True, "_partial_ would leave it without"),
    "more arguments": ("model._args_", [1], "is not one of"),
    "recursion": ("model._recursive_", False, "is not one of"),
}


@pytest.mark.parametrize(("place", "value", "said"), CHANGES.values(), ids=list(CHANGES))
def test_a_hostile_config_is_refused_before_anything_is_built(
    compose: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    value: Any,
    said: str,
) -> None:
    def check(config: dict[str, Any]) -> None:
        text = OmegaConf.to_yaml(OmegaConf.create(config), resolve=False)
        (tmp_path / "config.yaml").write_text(text)
        check_trainer(find(str(tmp_path)).config)

    config = deepcopy(compose())
    monkeypatch.setattr(build, "_build", lambda *_: pytest.fail("something was built"))
    monkeypatch.setenv("TARGET", "os.system")
    check(config)  # with nothing else that it could be refused for
    *parents, key = place.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[key] = value
    with pytest.raises(UserError, match=re.escape(said)) as refusal:
        check(config)
    assert str(refusal.value).startswith(place.split(".")[0])


@pytest.mark.parametrize(
    "words",
    [
        ["--experimental-rerun", "FILE"],
        ["--experimental-rerun=FILE"],
        ["--experimental-re=FILE"],
        ["-m", "--exp", "FILE", "model=vae"],
    ],
)
def test_hydra_may_not_unpickle_a_file(warm: Warm, tmp_path: Path, words: list[str]) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "attacked"),)

    file = tmp_path / "config.pickle"
    file.write_bytes(pickle.dumps(Attack()))
    words = [word.replace("FILE", str(file)) for word in words]
    command = warm.start("cvae.train", *words, cwd=tmp_path).wait()
    assert command.status == 1
    (line,) = command.output.splitlines()
    assert "--experimental-rerun would run code out of the file: give the run's words" in line
    assert "experiment=NAME, without dashes" in line
    assert not (tmp_path / "attacked").exists()


BOMB = "a: &a [x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)
NO_CONSTRUCTOR = "could not determine a constructor for the tag '"
FAULTS = {  # in the place of a whole config's name
    "object": ("name: !!python/object/apply:os.mkdir ['MARK']", NO_CONSTRUCTOR + "tag:yaml.org"),
    "name": ("name: !!python/name:os.system", NO_CONSTRUCTOR + "tag:yaml.org"),
    "own tag": ("name: !mine test", NO_CONSTRUCTOR + "!mine"),
    "bomb": (f"{BOMB}name: test", "*a repeats a part"),
    "merge": ("more: &a {b: 1}\nname: {<<: *a}", "*a repeats a part"),
    "depth": (f"name: {'[' * 1000}{']' * 1000}", "maximum recursion depth"),
    "broken": ("name: [1", "expected ',' or ']'"),
    "bytes": ("name: \udcff", "invalid start byte"),
    "twice": ("name: test\nname: test", "duplicate key name"),
    "grammar": ("name: ${a", "no viable alternative"),
    "missing": ("name: ???", "name=???: a word"),
    "other keys": ("name: test\n1: 2", "1: '1' is not one of"),
}
TEXTS = {
    "list": ("- 1", "does not hold a run's config"),
    "word": ("word", "word: 'word' is not one of"),
    "number": ("7", "Invalid loaded object type: int"),
    "nothing": ("", "the config has no callbacks, "),
}


def write(folder: Path, text: str) -> Run:
    (folder / "config.yaml").write_bytes(text.encode(errors="surrogateescape"))
    return Run(folder)


@pytest.mark.parametrize(("fault", "said"), FAULTS.values(), ids=list(FAULTS))
def test_one_fault_in_the_yaml_of_a_whole_config_is_refused_and_does_nothing(
    compose: Compose, tmp_path: Path, fault: str, said: str
) -> None:
    whole, mark = OmegaConf.to_yaml(OmegaConf.create(compose())), tmp_path / "mark"
    assert write(tmp_path, whole).config == compose()
    text = whole.replace("name: test\n", fault.replace("MARK", str(mark)) + "\n")
    assert text != whole
    with pytest.raises(UserError, match=re.escape(said)) as refusal:
        write(tmp_path, text).config  # noqa: B018
    assert "\n" not in str(refusal.value)
    assert not mark.exists()


@pytest.mark.parametrize(("text", "said"), TEXTS.values(), ids=list(TEXTS))
def test_what_is_no_config_at_all_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as refusal:
        write(tmp_path, text).config  # noqa: B018
    assert "\n" not in str(refusal.value)


def test_a_date_stays_the_word_that_it_is(compose: Compose, tmp_path: Path) -> None:
    whole = OmegaConf.to_yaml(OmegaConf.create(compose()))
    run = write(tmp_path, whole.replace("name: test\n", "name: 2026-01-01\n"))
    assert run.config == compose() | {"name": "2026-01-01"}


def test_a_missing_part_is_told(compose: Compose, tmp_path: Path) -> None:
    config = compose()
    del config["trainer"], config["model"]
    with pytest.raises(UserError, match="the config has no model, trainer"):
        check_config(config)


LINKS = [".lock", "train.log", "metrics.csv", "tensorboard", "pictures", "tensorboard/hparams.yaml"]


@pytest.mark.parametrize("name", LINKS)
def test_a_folder_with_a_link_in_the_place_of_an_output_is_refused(
    resume: Start, compose: Compose, tmp_path: Path, name: str
) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_text("precious")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(compose())))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(elsewhere)
    command = resume(folder)
    assert command.status == 1
    assert f"{folder / name} is a link" in command.output
    assert elsewhere.read_text() == "precious"


def test_the_command_refuses_a_hostile_folder_in_one_line(
    resume: Start, compose: Compose, tmp_path: Path
) -> None:
    config = compose()
    config["logger"] |= {"sub_dir": "../../elsewhere"}
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "run" / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    command = resume(tmp_path / "run")
    assert command.status == 1
    *told, last = command.output.splitlines()
    assert "logger.sub_dir: 'sub_dir' is not one of default_hp_metric" in last
    assert all("][INFO] " in line for line in told)
    assert not (tmp_path / "elsewhere").exists()


FAULTS = {
    "whole.Priorr": r"AttributeError: module 'faults\.whole' has no attribute 'Priorr'",
    "hole.Prior": r"ModuleNotFoundError: No module named 'faults\.hole'",
    "lacking.Prior": "ModuleNotFoundError: No module named 'lacking_dependency'",
    "unfinished.Prior": r"SyntaxError: .*\(unfinished\.py, line 1\)",
    "faulty.Prior": "ZeroDivisionError: division by zero",
}


def test_what_is_wrong_in_an_admitted_package_is_told_in_the_line(
    package: dict[str, str], tmp_path: Path
) -> None:
    code = tmp_path / "code" / "faults"
    code.mkdir()
    (code / "whole.py").write_text("class Prior: ...\n")
    (code / "lacking.py").write_text("import lacking_dependency\n")
    (code / "unfinished.py").write_text("class Prior(\n")
    (code / "faulty.py").write_text("1 / 0\n")
    allow("faults")
    check_targets({"_target_": "faults.whole.Prior"})
    for target, fault in FAULTS.items():
        line = rf"is not on the list of cvae\.allowed \({fault}\); a class .* with --allow PACKAGE"
        with pytest.raises(UserError, match=line):
            check_targets({"_target_": f"faults.{target}"})


def test_what_is_of_no_admitted_package_is_not_imported(
    package: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "code" / "elsewhere.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    allow("my_package")
    with pytest.raises(UserError, match=r"is not on the list of cvae\.allowed; a class of your"):
        check_targets({"_target_": "elsewhere.Prior"})
    assert not (tmp_path / "run").exists()


def attack_on(folder: Path) -> object:
    """What makes `attacked` in a folder when it is unpickled."""

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(folder / "attacked"),)

    return Attack()


@pytest.mark.parametrize("command", ["cvae.evaluate", "cvae.sample", "cvae.visualize"])
def test_nothing_in_the_weights_of_a_finished_run_is_run(
    warm: Warm, reference: Callable[..., Path], tmp_path: Path, command: str
) -> None:
    folder = shutil.copytree(reference(), tmp_path / "run")
    best, attack = Run(folder).checkpoint("best"), attack_on(tmp_path)
    for content in ({**load(best), "attack": attack}, attack):
        torch.save(content, best)
        assert_not_opened(warm.start(command, str(folder), cwd=tmp_path).wait(), best)
    best.write_bytes(pickle.dumps(attack))
    assert_not_opened(warm.start(command, str(folder), cwd=tmp_path).wait(), best)
    assert not (tmp_path / "attacked").exists()


def assert_not_opened(command: Command, path: Path) -> None:
    assert command.status == 1
    (line,) = [line for line in command.output.splitlines() if "[ERROR]" in line]
    assert f"{path} is damaged or not a checkpoint" in line
    assert "Traceback" not in command.output


def test_nothing_in_a_judge_s_file_is_run(arrays: Arrays, tmp_path: Path) -> None:
    path, attack = tmp_path / "judges" / "mnist.ckpt", attack_on(tmp_path)
    path.parent.mkdir()
    made_from = judge._made_from(arrays, RECIPE)
    for content in (attack, {"state_dict": {"weight": attack}, "made_from": made_from}):
        torch.save(content, path)
        with pytest.raises(UserError, match=f"{path} does not hold a judge"):
            judge.judge_of("mnist", arrays, tmp_path)
    path.write_bytes(pickle.dumps(attack))
    with pytest.raises(UserError, match=f"{path} does not hold a judge"):
        judge.judge_of("mnist", arrays, tmp_path)
    assert not (tmp_path / "attacked").exists()

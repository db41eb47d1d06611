import inspect
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cvae import networks
from cvae.allowed import ALLOWED
from cvae.build import build, check_arguments, check_targets
from cvae.densities import GaussianHead
from cvae.errors import UserError
from cvae.networks import MLP
from cvae.objectives import BetaElbo
from cvae.options import OPTIONS

MLP_NODE = {"_target_": "cvae.networks.MLP", "hidden": [8, 4], "activation": "relu"}
HEAD = "cvae.densities.GaussianHead"
DATA = {
    "_target_": "cvae.data.module.ImageData",
    "source": {"_target_": "cvae.data.source.MNIST"},
    "view": {"_target_": "cvae.data.views.Label"},
    "binarize": "none",
    "batch_size": 8,
}
ROADS = [
    "os.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.Popen",
    "torch.load",
    "torch.optim.lr_scheduler.os.system",
    "lightning.pytorch.callbacks.model_checkpoint.os.system",
    "cvae.data.source.os.system",
    "cvae.networks.MLP.__init__.__globals__",
    "cvae.networks.MLP.encoder",
    "cvae.networks",
    "cvae.networks:MLP",
    "cvae.networks.MLP ",
    "cvae.build.build",
    "functools.partial",
    "hydra.utils.instantiate",
    "",
]
OTHER_THINGS = [["cvae.networks.MLP"], [], 7, None, True, {"a": 1}, {"_target_": HEAD}]


@pytest.mark.parametrize("target", sorted(ALLOWED))
def test_every_allowed_target_exists(target: str) -> None:
    assert callable(pkgutil.resolve_name(target))


def test_builds_what_a_node_describes() -> None:
    family = build(MLP_NODE, "network")
    assert isinstance(family, MLP)
    assert (family.hidden, family.activation) == ([8, 4], "relu")


def test_builds_nested_nodes_first() -> None:
    data = build(DATA | {"seed": 3, "root": None}, "data")
    assert type(data.source).__name__ == "MNIST"
    assert type(data.view).__name__ == "Label"
    assert (data.batch_size, data.seed, data.root) == (8, 3, None)


def test_given_arguments_join_those_of_the_config() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = build({"_target_": "torch.optim.Adam", "lr": 0.5}, "optimizer", params=[weight])
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_partial_waits_for_its_other_arguments() -> None:
    node = {"_target_": "cvae.models.fixed_prior", "_partial_": True}
    prior = build(node, "prior")([(3,)], latent_dim=5, networks=None)
    assert prior(torch.zeros(2, 3)).mean.shape == (2, 5)


def test_building_leaves_the_config_as_it_was() -> None:
    node = {**MLP_NODE, "hidden": [8]}
    build(node, "network").hidden.append(9)
    assert node == {**MLP_NODE, "hidden": [8]}


@pytest.mark.parametrize("target", ROADS + OTHER_THINGS, ids=repr)
def test_a_target_that_is_not_on_the_list_is_refused(target: Any) -> None:
    with pytest.raises(UserError, match=rf"^network\._target_={re.escape(str(target))} is not on"):
        build({"_target_": target, "command": "true"}, "network")


BAD = {"_target_": "os.system", "command": "true"}
PLACES: dict[str, tuple[dict[str, Any], str]] = {
    "argument": (DATA | {"source": BAD}, "data.source"),
    "argument of an argument": (
        DATA | {"source": {"_target_": "cvae.data.source.MNIST", "root": BAD}},
        "data.source.root",
    ),
    "list": (DATA | {"source": [1, BAD]}, "data.source[1]"),
    "list in a list": (DATA | {"source": [[1], [0, BAD]]}, "data.source[1][1]"),
    "plain dict": (DATA | {"source": {"a": {"b": BAD}}}, "data.source.a.b"),
    "list in a plain dict": (DATA | {"source": {"a": [BAD]}}, "data.source.a[0]"),
    "partial": (DATA | {"source": BAD | {"_partial_": True}}, "data.source"),
    "argument of a partial": (
        {"_target_": "cvae.models.fixed_prior", "_partial_": True, "networks": BAD},
        "data.networks",
    ),
    "unknown argument": (DATA | {"unknown": BAD}, "data.unknown"),
}


@pytest.mark.parametrize(("node", "place"), PLACES.values(), ids=list(PLACES))
@pytest.mark.parametrize("check", [build, check_targets])
def test_the_list_holds_at_every_depth(
    check: Callable[..., Any], node: dict[str, Any], place: str
) -> None:
    with pytest.raises(UserError, match=rf"^{re.escape(place)}\._target_=os\.system is not on"):
        check(node, "data")


def test_nothing_is_built_when_one_nested_target_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    class Recorded(MLP):
        def __init__(self, hidden: list[int], activation: str) -> None:
            built.append(hidden)

    monkeypatch.setattr(networks, "MLP", Recorded)
    good_and_bad = {"first": MLP_NODE, "second": BAD}
    with pytest.raises(UserError, match=r"os\.system"):
        build(good_and_bad, "config")
    assert built == []
    build({"first": MLP_NODE}, "config")
    assert built == [[8, 4]]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "string for a number": ({"_target_": HEAD, "scale": "0.5"}, "head.scale=0.5"),
    "bool for an integer": (DATA | {"batch_size": True}, "head.batch_size=true"),
    "float for an integer": (DATA | {"batch_size": 8.0}, "head.batch_size=8.0"),
    "zero where positive": (DATA | {"batch_size": 0}, "head.batch_size=0"),
    "not a number": ({"_target_": HEAD, "scale": float("nan")}, "head.scale=nan"),
    "negative scale": ({"_target_": HEAD, "scale": -1.0}, "head.scale=-1.0"),
    "null where a value is needed": (MLP_NODE | {"hidden": None}, "head.hidden=null"),
    "empty list": (MLP_NODE | {"hidden": []}, "head.hidden=[]"),
    "number for a list": (MLP_NODE | {"hidden": 8}, "head.hidden=8"),
    "bad element": (MLP_NODE | {"hidden": [8, -4]}, "head.hidden=[8, -4]"),
    "unknown choice": (MLP_NODE | {"activation": "sigmoid"}, "head.activation=sigmoid"),
    "dict for a word": (MLP_NODE | {"activation": {"a": 1}}, "head.activation={'a': 1}"),
    "another class": (DATA | {"view": MLP_NODE}, "head.view="),
    "name for an object": (DATA | {"view": "cvae.data.views.Label"}, "head.view=cvae.data"),
    "unknown key": (MLP_NODE | {"widths": [8]}, "head.widths"),
    "hydra's own key": (MLP_NODE | {"_args_": [[8], "relu"]}, "head._args_"),
    "no key at all": (MLP_NODE | {3: 4}, "head.3"),
    "nested": (
        DATA | {"view": {"_target_": "cvae.data.views.Label", "digits": 3}},
        "head.view.digits",
    ),
    "range of a schedule": (
        {"_target_": "cvae.training.schedules.Cosine", "warmup": 1.0},
        "head.warmup=1.0",
    ),
    "range of an objective": (
        {"_target_": "cvae.objectives.BetaElbo", "beta": -0.1},
        "head.beta=-0.1",
    ),
    "a trainer's argument": (
        {"_target_": "lightning.pytorch.Trainer", "max_epochs": "many"},
        "head.max_epochs=many",
    ),
    "range of an optimizer's argument": (
        {"_target_": "torch.optim.Adam", "lr": -1.0},
        "head.lr=-1.0",
    ),
    "missing argument": ({"_target_": "cvae.networks.MLP", "hidden": [8]}, "head: "),
    "what a partial cannot take": (
        {"_target_": "cvae.models.fixed_prior", "_partial_": True, "latent_dim": "two"},
        "head.latent_dim=two",
    ),
    "no truth value for _partial_": (MLP_NODE | {"_partial_": "no"}, "head._partial_=no"),
}


@pytest.mark.parametrize(("node", "place"), REFUSED.values(), ids=list(REFUSED))
def test_a_refused_value_is_named_with_its_place(node: dict[str, Any], place: str) -> None:
    given = {"params": [torch.zeros(1)]} if "optim" in node["_target_"] else {}
    with pytest.raises(UserError, match=rf"^{re.escape(place)}") as refusal:
        build(node, "head", **given)
    assert "\n" not in str(refusal.value)


def test_a_partial_that_is_given_an_argument_twice_is_refused() -> None:
    node = {"_target_": "cvae.models.fixed_prior", "_partial_": True, "latent_dim": 2}
    with pytest.raises(UserError, match="latent_dim"):
        build(node, "prior", latent_dim=3)


@pytest.mark.parametrize("max_scale", [0.1, 1.0], ids=["below", "equal"])
def test_limits_of_a_learned_scale_that_leave_no_room_are_refused(max_scale: float) -> None:
    with pytest.raises(UserError, match="min_scale"):
        build({"_target_": HEAD, "min_scale": 1.0, "max_scale": max_scale}, "likelihood")


@pytest.mark.parametrize("value", [1, 0.5, None], ids=repr)
def test_an_integer_will_do_for_a_real_number(value: float | None) -> None:
    head = build({"_target_": HEAD, "scale": value}, "likelihood")
    assert isinstance(head, GaussianHead)
    assert head.scale == value
    assert isinstance(build({"_target_": "cvae.objectives.BetaElbo", "beta": 2}, "o"), BetaElbo)


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "${seed}", "${oc.decode:1}", "???", "$HOME"])
def test_strings_stay_plain_strings(text: str, tmp_path: Path) -> None:
    assert build(DATA | {"root": text}, "data").root == text


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_options_are_arguments_of_the_class(name: str) -> None:
    parameters = inspect.signature(pkgutil.resolve_name(name)).parameters
    assert name in ALLOWED
    assert OPTIONS[name].keys() <= parameters.keys()


def test_the_config_shows_every_option_of_the_trainer(
    compose: Callable[..., dict[str, Any]],
) -> None:
    trainer = compose()["trainer"]
    assert trainer.keys() - {"_target_"} == OPTIONS["lightning.pytorch.Trainer"].keys()


def test_plain_values_are_checked_without_building_anything() -> None:
    check_arguments({"a": [DATA, {"b": MLP_NODE}]})
    with pytest.raises(UserError, match=r"^a\[1\]\.b\.hidden=0: Input should be a valid list"):
        check_arguments({"a": [DATA, {"b": MLP_NODE | {"hidden": 0}}]})
    with pytest.raises(UserError, match=r"^a\._target_=os\.system is not on"):
        check_arguments({"a": BAD, "b": MLP_NODE | {"hidden": 0}})


def test_a_name_that_does_not_exist_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^n\.hiden: 'hiden' is not one of .*did you mean hidden"):
        build(MLP_NODE | {"hiden": [8]}, "n")

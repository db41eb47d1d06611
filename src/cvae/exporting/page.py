"""demo.html: one file with a model, its arithmetic and its look, that asks for nothing else."""

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

from torch import Tensor

from cvae.exporting.digits import DigitModel

SCRIPTS = ("model.js", "ink.js", "page.js")
FIRST_TEMPERATURE = 0.6  # of the page when it opens: a careful hand


def page(model: DigitModel, facts: Mapping[str, str]) -> bytes:
    """The page.

    Its policy has the browser run this script and no other, and fetch nothing.

    Args:
        model: what it draws with.
        facts: names and values that it shows, escaped.
    """
    script = "".join(map(_part, SCRIPTS))
    style = _part("page.css")
    filled = Template(_part("page.html")).substitute(
        policy=f"script-src {_hash(script)}; style-src {_hash(style)}",
        script=script,
        style=style,
        model=json.dumps(_content(model)),
        facts="\n".join(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
            for name, value in facts.items()
        ),
        temperature=FIRST_TEMPERATURE,
    )
    return filled.encode(errors="xmlcharrefreplace")  # a folder's name may be no text


def _content(model: DigitModel) -> dict[str, Any]:
    """What model.js reads: numbers as base64 of little-endian bytes, functions by name."""
    return {
        "mean": _base64(model.mean, "<f4"),
        "scale": _base64(model.scale, "<f4"),
        "layers": [
            {
                "values": _base64(weight.values, "i1"),
                "scale": _base64(weight.scale, "<f4"),
                "bias": _base64(bias, "<f4"),
            }
            for weight, bias in model.layers
        ],
        "activation": model.activation.name,
        "output": model.output.name,
    }


def _base64(numbers: Tensor, dtype: str) -> str:
    return base64.b64encode(numbers.detach().numpy().astype(dtype).tobytes()).decode()


def _hash(text: str) -> str:
    """As a content security policy names a script or a style that stands in the page itself."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _part(name: str) -> str:
    return files("cvae.exporting").joinpath(name).read_text(encoding="utf-8")

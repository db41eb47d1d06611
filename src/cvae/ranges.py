"""Types with a range, for what config sets, and the check of values against them."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import (
    AfterValidator,
    AllowInfNan,
    ConfigDict,
    TypeAdapter,
    ValidationError,
)

from cvae.errors import UserError, unknown


def _like(pattern: str, words: str) -> AfterValidator:
    """Text of a pattern, which the message gives in words."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{words} is expected")
        return text

    return AfterValidator(check)


def _with_target(node: dict[str, Any]) -> dict[str, Any]:
    if "_target_" not in node:
        raise ValueError("its _target_ is missing, which says what it is")
    return node


def _whole(node: dict[str, Any]) -> dict[str, Any]:
    if "_partial_" in node:
        raise ValueError("_partial_ would leave it without its other arguments")
    return node


Finite = Annotated[float, AllowInfNan(False)]
Positive = Annotated[Finite, Gt(0)]
NonNegative = Annotated[Finite, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Weight = Annotated[float, Ge(0), Le(1)]
Size = Annotated[int, Gt(0)]
Count = Annotated[int, Ge(0)]
Sizes = Annotated[list[Size], Len(1)]
Text = Annotated[str, Len(1)]
Seed = Annotated[int, Ge(0), Lt(2**32)]
Share = Size | Annotated[float, Gt(0), Le(1)]  # so many of something, or such a part of it
Duration = Annotated[str, _like(r"\d\d:\d\d:\d\d:\d\d", "DD:HH:MM:SS")]
# of a run, and so of its folder below outputs/
Name = Annotated[
    str,
    _like(
        r"\w[\w.,=+-]*(/\w[\w.,=+-]*)*",
        "a word, or words with / between, of letters, digits, .,_=+-",
    ),
]
PartialNode = Annotated[dict[str, Any], AfterValidator(_with_target)]  # describes a function
Node = Annotated[PartialNode, AfterValidator(_whole)]  # describes an object


def check_values(hints: Mapping[str, Any], values: Mapping[str, Any], path: str = "") -> None:
    """Compare values by name with types, ranges included.

    Args:
        hints: the type of each name.
        values: plain, or objects.
        path: where they stand in the config, for messages.

    Raises:
        UserError: naming the key, the value and what it should be.
    """
    for key, value in values.items():
        place = f"{path}.{key}" if path else str(key)
        if key not in hints:
            raise unknown(place, str(key), hints)
        adapter = TypeAdapter(hints[key], config=ConfigDict(arbitrary_types_allowed=True))
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as error:
            reasons = ", or ".join(sorted({detail["msg"] for detail in error.errors()}))
            expected = reasons.replace(", or Input should be", ", or").replace("Value error, ", "")
            shown = {"None": "null", "True": "true", "False": "false"}.get(str(value), value)
            raise UserError(f"{place}={shown}: {expected}") from error

"""Types with a range, for the arguments that config sets; `build` checks them."""

from typing import Annotated

from annotated_types import Ge, Gt, Len, Lt

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Size = Annotated[int, Gt(0)]
Sizes = Annotated[list[Size], Len(1)]
Seed = Annotated[int, Ge(0), Lt(2**32)]

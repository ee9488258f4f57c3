"""Kinds of numbers and lists that settings are, with the bounds that all of a kind have; no section is here."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

HUGE = 2**31
# Beyond it float32, in which models compute, overflows: Adam multiplies rates by what it keeps of gradients.
LARGEST = 1e30

Positive = Annotated[int, Field(gt=0, lt=HUGE)]
Several = Annotated[int, Field(ge=2, lt=HUGE)]
Count = Annotated[int, Field(ge=0, lt=HUGE)]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Rate = Annotated[float, Field(gt=0, le=LARGEST)]
Weight = Annotated[float, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]


def _some(weights: list[int]) -> list[int]:
    if not sum(weights):
        raise ValueError("one of the weights has to be positive")
    return weights


def _each_once(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise ValueError("name each only once")
    return values


Shares = Annotated[list[Count], Field(min_length=3, max_length=3), AfterValidator(_some)]
# For lists whose elements differ.
Once = AfterValidator(_each_once)

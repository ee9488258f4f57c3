"""How policies are merged: a section of an experiment's configuration, as in `settings`."""

from typing import Annotated, Self, get_args

from pydantic import Field, field_validator, model_validator

from rlphf.settings import Section
from rlphf.settings_types import Number, Positive, Rate
from rlphf.soup_rules import SoupRule

# What other methods of soups, and folders of soups, go by.
TAKEN = ("unprompted", "declared", "inferred", "front")


class Merging(Section):
    """How the policies of a combination are merged."""

    rule: SoupRule = Field(
        "delta",
        description="`delta` averages the products B.A; `factor` averages A and B separately; `ties` and `dare` sparsify each"
        " B.A first.",
    )
    svd_rank: Positive | None = Field(
        None, description="Truncate soups to this rank by SVD (not with `factor`); null keeps `delta` soups exact."
    )
    density: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="For `ties` and `dare`: share of each B.A that is kept."
    )
    scale: Rate = Field(1.0, description="Factor on all weights of a combination, which sum to 1 without `soup.weights`.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rule == "factor" and self.svd_rank is not None:
            raise ValueError("svd_rank: truncates no soup of rule factor; set it to null, or choose rule delta")
        return self


class Soup(Merging):
    """How adapters are merged."""

    weights: dict[str, Number] = Field({}, description="Weight per preference; those without one get 1/k in a combination of k.")
    compared: dict[Annotated[str, Field(pattern="^[a-z]+(_[a-z]+)*$")], Merging] = Field(
        {},
        description="Further ways to merge the same policies, by name, each with `rule`, `svd_rank`, `density` and `scale` of its"
        " own. What its soups answer is one more method, `psoups_<name>`.",
    )

    @field_validator("compared")
    @classmethod
    def _free(cls, named: dict[str, Merging]) -> dict[str, Merging]:
        for name, merging in named.items():
            if name in TAKEN:
                raise ValueError(f"{name}: other soups have this name; choose another")
            if name in get_args(SoupRule) and name != merging.rule:
                raise ValueError(f"{name}: is a rule, and these are merged by {merging.rule}; choose another name")
        return named

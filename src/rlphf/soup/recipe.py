"""Recipes: which adapters a soup is merged from, with which weights and by which rule. No tensors here."""

import posixpath
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rlphf.errors import InputError
from rlphf.files import read_yaml, write_text
from rlphf.preferences import AXES, axis_of
from rlphf.soup_rules import SPARSE, SoupRule

RECIPE = "recipe.yaml"
Weight = Annotated[float, Field(allow_inf_nan=False)]


class Results(BaseModel):
    """What a merge measured of its soup; written with the recipe, and ignored by later merges."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    relative_error: float = Field(description="||soup - exact|| / ||exact|| over all modules, Frobenius norm of the deltas.")
    module_errors: dict[str, float] | None = Field(None, description="The same per module, for a soup that is not exact.")
    shared_init: bool | None = Field(None, description="`factor`: whether the adapters' A factors had one initialisation.")


class Recipe(BaseModel):
    """A soup's adapters, weights and rule. The order of the adapters means nothing: names are kept sorted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: SoupRule = Field(
        "delta",
        description="`delta` sums the products B.A; `factor` sums A and B apart; `ties` and `dare` thin out each B.A first.",
    )
    weights: dict[str, Weight] = Field(description="Weight per adapter, any finite number; they need not sum to 1.")
    paths: dict[str, str] = Field(description="Folder per adapter, relative to the working directory.")
    svd_rank: Annotated[int, Field(gt=0, lt=2**31)] | None = Field(
        None, description="Truncate the soup to this rank; not with `factor`."
    )
    density: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="`ties` and `dare`: share of each B.A that is kept."
    )
    results: Results | None = Field(None, description="Left by the merge.")

    @field_validator("weights", "paths")
    @classmethod
    def _sorted(cls, named: dict[str, Any]) -> dict[str, Any]:
        if not named:
            raise ValueError("names no adapter; give at least one")
        if "" in named:
            raise ValueError("an adapter has an empty name; name it")
        return dict(sorted(named.items()))

    @field_validator("paths")
    @classmethod
    def _relative(cls, paths: dict[str, str]) -> dict[str, str]:
        for name, path in paths.items():
            if "\0" in path:
                raise ValueError(f"the path of adapter {name!r} holds a NUL; give the adapter's folder")
            if not path.strip():
                raise ValueError(f"the path of adapter {name!r} is empty; give the adapter's folder")
            if PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute():
                raise ValueError(f"the path of adapter {name!r} is absolute ({path}); give it relative to the working directory")
            if posixpath.normpath(path).split("/")[0] == "..":
                raise ValueError(f"the path of adapter {name!r} leaves the working directory ({path}); move the adapter inside")
        return {name: posixpath.normpath(path) for name, path in paths.items()}

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if odd := sorted(self.weights.keys() ^ self.paths.keys()):
            has, lacks = ("weight", "path") if odd[0] in self.weights else ("path", "weight")
            raise ValueError(f"adapter {odd[0]!r} has a {has} and no {lacks}; name the same adapters in weights and paths")
        if self.rule == "factor" and self.svd_rank is not None:
            raise ValueError("svd_rank truncates no soup of rule factor; remove it, or choose rule delta")
        if (self.rule in SPARSE) != (self.density is not None):
            raise ValueError("density is what the rules ties and dare need, and no other; give it for these alone")
        return self


def rule_name(rule: str, svd_rank: int | None) -> str:
    """Return the name of a rule in tables: "delta", "factor", "ties", "dare", or "svd16" for a delta truncated to rank 16."""
    return f"svd{svd_rank}" if svd_rank and rule == "delta" else rule


def make_recipe(weights: dict[str, float], paths: dict[str, str], **settings: Any) -> Recipe:
    """Return a recipe (`settings`: rule, svd_rank, density); raise InputError if it is none."""
    return _parse({"weights": weights, "paths": paths, **settings}, "recipe")


def read_recipe(path: Path | str) -> Recipe:
    """Read a recipe from YAML (safe loader).

    Raises InputError naming file, line and field for anything that is no recipe, an adapter named twice included.
    """
    raw, tree = read_yaml(path)
    return _parse(raw, str(path), tree)


def recipe_text(recipe: Recipe) -> str:
    """Return the recipe as YAML; equal recipes give equal text. Settings that are not set are left out."""
    return yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True, width=120)


def write_recipe(recipe: Recipe, folder: Path | str) -> None:
    """Write recipe.yaml into `folder`, atomically."""
    write_text(Path(folder) / RECIPE, recipe_text(recipe))


def _parse(raw: Any, where: str, tree: yaml.Node | None = None) -> Recipe:
    if not isinstance(raw, dict):
        raise InputError(f"{where}: expected rule, weights and paths, got {type(raw).__name__}")
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    node = tree
    for part in first["loc"]:
        node = _child(node, part) or node
    line = f": line {node.start_mark.line + 1}" if node is not None else ""
    field = ".".join(str(part) for part in first["loc"])
    hint = (
        "unknown key; a recipe has rule, weights, paths, svd_rank and density"
        if first["type"] == "extra_forbidden"
        else first["msg"]
    )
    raise InputError(f"{where}{line}: {field + ': ' if field else ''}{hint.removeprefix('Value error, ')}")


def _child(node: yaml.Node | None, key: Any) -> yaml.Node | None:
    """Return the value under `key` of a YAML mapping, if there is one."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == str(key)), None)


def asked(weights: Mapping[str, float]) -> list[str]:
    """Return the preferences that a soup's questions ask for, in the order of the axes.

    Of each axis it is the one of the greatest weight; none where two weigh the same, because their prompts contradict each other.
    """
    by_axis: dict[str, list[str]] = {}
    for name in sorted(name for name, weight in weights.items() if weight > 0):
        by_axis.setdefault(axis_of(name), []).append(name)
    found = []
    for axis in AXES:
        most = max((weights[name] for name in by_axis.get(axis, [])), default=0.0)
        heaviest = [name for name in by_axis.get(axis, []) if weights[name] == most]
        found += heaviest if len(heaviest) == 1 else []
    return found

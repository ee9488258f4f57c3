"""Soups: adapters merged with weights into one adapter, and how far each rule is from the exact merge.

Works on factors and builds a module's full delta matrix for the rules that need it alone (`sparse`). No model is loaded.
"""

import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from rlphf.cards import soup_card
from rlphf.config import load
from rlphf.derived import combinations_of
from rlphf.errors import InputError
from rlphf.files import CARD, atomic_folder, write_json, write_parquet, write_text
from rlphf.layout import ADAPTER
from rlphf.soup.adapter import ABOUT, CONFIG, SHARED, WEIGHTS, Adapter, Factors, check_alike, read_about, read_adapter
from rlphf.soup.recipe import RECIPE, Recipe, Results, make_recipe, read_recipe, rule_name, write_recipe
from rlphf.soup.sparse import Rule, low_rank, seed_of, thinned
from rlphf.soup.wanted import merging, wanted, way
from rlphf.soup_rules import SPARSE
from rlphf.tracking.record import EARLIER, METRICS, RECORD, SENT, step

Term = tuple[float, Adapter]
Pair = tuple[Tensor, Tensor]
# What a step leaves in the folder of its soup.
RECORDS = (RECORD, METRICS, SENT, EARLIER)
Norms = tuple[float, float]  # of a module's error, and of its exact delta
# A norm this far below that of the factors is what rounding leaves of deltas that cancel: zero.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Soup:
    """A merged adapter: its factors per module, PEFT's configuration, adapter.json, and the recipe with its results."""

    recipe: Recipe
    config: dict[str, Any]
    modules: Factors
    about: dict[str, Any]

    @property
    def results(self) -> Results:
        """Relative errors of the merge."""
        assert self.recipe.results is not None
        return self.recipe.results


def merge(recipe: Recipe, adapters: Mapping[str, Adapter] | None = None) -> Soup:
    """Merge a recipe's adapters; `adapters` saves reading them again.

    Rule `delta` gives sum w_i s_i B_i A_i exactly, as a LoRA of the summed rank and scaling 1 (Personalized Soups,
    section 3.2, on the deltas); with svd_rank, the best approximation of that rank. Rule `factor`
    gives (sum w_i A_i, sum w_i B_i) under the adapters' own scaling, as the release does with equal weights. Rules `ties` and
    `dare` thin out each delta first (`sparse.thinned`), and give a LoRA of svd_rank, or of the summed rank. Weights
    are taken as they are. An adapter of weight 0 is checked and left out; one adapter of weight 1 stays bit for bit,
    unless it is thinned out.
    Raises InputError for adapters that do not fit together, and warns of rule `factor` over different initial A.
    """
    soup = _merge(recipe, _read_all(recipe) if adapters is None else adapters)
    if soup.results.shared_init is False:
        warnings.warn(
            f"the adapters {', '.join(recipe.weights)} start from different LoRA-A initialisations: rule factor is "
            f"{soup.results.relative_error:.0%} away from the merge of their deltas; use rule delta",
            stacklevel=2,
        )
    return soup


def save_soup(folder: Path | str, recipe: Recipe, adapters: Mapping[str, Adapter] | None = None) -> Soup:
    """Merge and write a soup: PEFT's two files, recipe.yaml with the results, adapter.json, its card; all or nothing.

    An older soup in `folder` is replaced. Raises InputError as `merge` does, and for a folder that holds anything else.
    """
    folder = Path(folder)
    check_replaceable(folder, recipe)
    soup = merge(recipe, adapters)
    with atomic_folder(folder) as temporary:
        write_soup(temporary, soup)
    return soup


def write_soup(folder: Path, soup: Soup) -> None:
    """Write a soup's five files into a folder, one after the other; `save_soup` does it all or nothing."""
    state = {f"{module}.lora_A.weight": a.contiguous() for module, (a, _) in soup.modules.items()}
    state |= {f"{module}.lora_B.weight": b.contiguous() for module, (_, b) in soup.modules.items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / CONFIG, soup.config)
    write_json(folder / ABOUT, soup.about)
    write_text(folder / CARD, soup_card(soup.recipe, soup.config, soup.about))
    write_recipe(soup.recipe, folder)


def check_replaceable(folder: Path, recipe: Recipe) -> None:
    """Raise InputError where writing a soup to `folder` would destroy something that is no soup, or one of its adapters.

    The record of an attempt that came to nothing may lie there.
    """
    for name, path in recipe.paths.items():
        if folder.resolve() == Path(path).resolve():
            raise InputError(f"{folder}: is the folder of adapter {name}; choose another folder for the soup")
    free = not folder.exists() or (folder.is_dir() and all(path.name in RECORDS for path in folder.iterdir()))
    if not free and read_about(folder).get("kind") != "soup":
        raise InputError(f"{folder}: exists and is no soup; choose another folder, or remove it")


def relative_errors(recipe: Recipe, adapters: Mapping[str, Adapter] | None = None) -> dict[str, float]:
    """Return {rule: ||soup - exact|| / ||exact||} for the recipe's adapters and weights.

    Rules: "delta" (0), "factor" (left out if ranks or scalings differ), the recipe's own, and "svd<r>" for the adapters' own
    (largest) rank r and for the recipe's svd_rank. Norms are Frobenius norms of the deltas over all modules.
    """
    known = _read_all(recipe) if adapters is None else adapters
    used = [known[name] for name in recipe.weights]
    own = max(a.rank for a in used)
    settings: list[dict[str, Any]] = [{"rule": "delta", "svd_rank": None}]
    if len({(a.rank, a.scaling) for a in used}) == 1:
        settings.append({"rule": "factor", "svd_rank": None})
    settings += [{"rule": "delta", "svd_rank": rank} for rank in sorted({own, recipe.svd_rank or own})]
    variants = [make_recipe(recipe.weights, recipe.paths, **s) for s in settings]
    variants += [recipe] if recipe.rule in SPARSE else []
    return {rule_name(variant.rule, variant.svd_rank): _merge(variant, known).results.relative_error for variant in variants}


def soups_step(config: Path, adapters: Path, out: Path, compared: str | None = None) -> None:
    """Merge the soups of the experiment at `config`: one per combination, `<out>/<combination>/`, and `<out>/front/<weight>/`.

    Reads `<adapters>/<preference>/adapter`; writes `<out>/merges.parquet` (combination, rule, relative_error) last. With
    `compared` the soups of combinations are merged as this entry of `soup.compared` says, and none on the front.
    Paths in the recipes are relative to the working directory. Raises InputError before anything is written.
    """
    import pyarrow as pa

    experiment = load(config)
    if compared is not None and compared not in experiment.soup.compared:
        known = ", ".join(experiment.soup.compared) or "nothing"
        raise InputError(f"--compared: {compared!r} is not in soup.compared, which names {known}")
    settings = merging(experiment, compared)
    recipes: dict[str, Recipe] = {}
    for name, weights in wanted(experiment, compared).items():
        paths = {p: Path(os.path.relpath(adapters), p, ADAPTER).as_posix() for p in weights}
        recipes[name] = make_recipe(weights, paths, **settings)
    folders = {name: path for recipe in recipes.values() for name, path in recipe.paths.items()}
    read = {name: read_adapter(path, name) for name, path in folders.items()}
    for soup, recipe in recipes.items():
        check_alike([read[name] for name in recipe.weights], same_rank=recipe.rule == "factor")
        check_replaceable(Path(out) / soup, recipe)
    rows: list[dict[str, Any]] = []
    title = f"soups {compared}" if compared else "soups"
    with step(title, out, experiment, way(experiment, compared), folders, {"rule": settings["rule"]}) as run:
        for soup, recipe in recipes.items():
            save_soup(Path(out) / soup, recipe, read)
        for combination in combinations_of(experiment):
            errors = relative_errors(recipes[combination], read)
            rows += [{"combination": combination, "rule": name, "relative_error": error} for name, error in errors.items()]
            run.log({f"{name}_relative_error/{combination}": error for name, error in errors.items()})
        schema = pa.schema([("combination", pa.string()), ("rule", pa.string()), ("relative_error", pa.float64())])
        write_parquet(Path(out) / "merges.parquet", pa.Table.from_pylist(rows, schema=schema))
        run.output(*(Path(out) / soup for soup in recipes), Path(out) / "merges.parquet")
        run.artifact(*(Path(out) / combination / RECIPE for combination in combinations_of(experiment)))


def merge_step(recipe: Path, out: Path) -> None:
    """Merge the recipe in the file `recipe` into the folder `out`, with the record of it; an older soup there is replaced.

    Raises InputError before anything is written.
    """
    wanted = read_recipe(recipe)
    check_replaceable(out, wanted)
    inputs = {"recipe": recipe, **{f"adapter/{name}": Path(path) for name, path in wanted.paths.items()}}
    soup = merge(wanted)
    with step("soup merge", out, params=soup.recipe.model_dump(mode="json", exclude={"paths"}), inputs=inputs) as run:
        with replacing(out) as folder:
            write_soup(folder, soup)
        run.output(*soup_files(out))
        run.artifact(out / RECIPE)


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield a folder whose files replace those of `out` at the end, but for the record of the step that makes them.

    PEFT's configuration, without which a folder is no adapter, is removed first and written last.
    """
    with TemporaryDirectory(dir=out, prefix=".soup.") as temporary:
        folder = Path(temporary)
        yield folder
        (out / CONFIG).unlink(missing_ok=True)
        made = {path.name for path in folder.iterdir()}
        for path in soup_files(out):
            if path.name not in made:
                path.unlink()
        for name in sorted(made, key=lambda name: (name == CONFIG, name)):
            os.replace(folder / name, out / name)


def soup_files(out: Path) -> list[Path]:
    """Return the files of a soup whose folder also has the record of the step that made it."""
    return [path for path in sorted(out.iterdir()) if path.is_file() and path.name not in RECORDS and path.name[0] != "."]


def _read_all(recipe: Recipe) -> dict[str, Adapter]:
    return {name: read_adapter(path, name) for name, path in recipe.paths.items()}


def _merge(recipe: Recipe, adapters: Mapping[str, Adapter]) -> Soup:
    used = [adapters[name] for name in recipe.weights]
    check_alike(used, same_rank=recipe.rule == "factor")
    weighted: list[Term] = [(weight, adapters[name]) for name, weight in recipe.weights.items()]
    terms = [term for term in weighted if term[0] != 0] or weighted[:1]
    first = terms[0][1]
    stacked = sum(adapter.rank for _, adapter in terms)
    sparse = recipe.rule in SPARSE
    cut = recipe.svd_rank is not None and (sparse or recipe.svd_rank < stacked)
    measured: dict[str, Norms] = {}
    modules: Factors = {}
    shape: dict[str, Any] = {"r": first.rank, "lora_alpha": first.config["lora_alpha"]}
    shape["use_rslora"] = bool(first.config.get("use_rslora"))
    if len(terms) == 1 and terms[0][0] == 1 and not cut and not sparse:
        modules = first.modules
    elif recipe.rule == "factor":
        for module in first.modules:
            modules[module], measured[module] = _factor(terms, module)
    else:
        rank = recipe.svd_rank if cut and recipe.svd_rank else stacked
        shape = {"r": rank, "lora_alpha": rank, "use_rslora": False}
        for module in first.modules:
            if sparse:
                (a, b), measured[module] = _thin(terms, module, recipe, rank)
            elif cut:
                (a, b), measured[module] = _truncate(*_stack(terms, module), rank)
            else:
                a, b = _stack(terms, module)
            modules[module] = a.float(), b.float()
    for module, factors in modules.items():
        if not all(torch.isfinite(factor).all() for factor in factors):
            raise InputError(f"weights of {', '.join(recipe.weights)}: module {module} overflows; make them smaller")
    results = Results(
        relative_error=_relative(measured.values()),
        module_errors={module: _relative([pair]) for module, pair in measured.items()} or None,
        shared_init=_shared_init(terms) if recipe.rule == "factor" else None,
    )
    return Soup(recipe.model_copy(update={"results": results}), _config(first) | shape, modules, _about(used))


def _stack(terms: Sequence[Term], module: str) -> Pair:
    """Return A' (sum of ranks x in) and B' (out x sum of ranks), float64, with B'A' = sum w_i s_i B_i A_i."""
    a = torch.cat([adapter.modules[module][0].double() for _, adapter in terms])
    b = torch.cat([weight * adapter.scaling * adapter.modules[module][1].double() for weight, adapter in terms], dim=1)
    return a, b


def _factor(terms: Sequence[Term], module: str) -> tuple[Pair, Norms]:
    """Return sum w_i A_i and sum w_i B_i, float32, with the norm of their delta's difference to the exact one, and of that."""
    pairs = [(weight, *adapter.modules[module]) for weight, adapter in terms]
    a = torch.stack([weight * a_i.double() for weight, a_i, _ in pairs]).sum(0).float()
    b = torch.stack([weight * b_i.double() for weight, _, b_i in pairs]).sum(0).float()
    exact_a, exact_b = _stack(terms, module)
    difference = torch.cat([a.double(), exact_a]), torch.cat([terms[0][1].scaling * b.double(), -exact_b], dim=1)
    return (a, b), (_norm(*difference), _norm(exact_a, exact_b))


def _truncate(a: Tensor, b: Tensor, rank: int) -> tuple[Pair, Norms]:
    """Return the best factors of `rank` for B.A, with the norm of what is cut off and of the whole.

    The SVD is that of the small core R_B R_A^T, where B = Q_B R_B and A^T = Q_A R_A.
    """
    (q_a, r_a), (q_b, r_b) = torch.linalg.qr(a.T), torch.linalg.qr(b)
    u, s, vh = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    s = torch.where(s > ROUNDING * a.norm() * b.norm(), s, 0.0)
    kept = min(rank, len(s))
    root = s[:kept].sqrt()
    # A module narrower than `rank` is filled up with zeros, so that all modules have the one rank of the configuration.
    short = rank - kept
    new_a = torch.nn.functional.pad((root[:, None] * vh[:kept]) @ q_a.T, (0, 0, 0, short))
    new_b = torch.nn.functional.pad(q_b @ (u[:, :kept] * root), (0, short))
    return (new_a, new_b), (float(s[kept:].norm()), float(s.norm()))


def _thin(terms: Sequence[Term], module: str, recipe: Recipe, rank: int) -> tuple[Pair, Norms]:
    """Return factors of `rank` of the merge by `ties` or `dare`, and the norms of its error and of the exact delta."""
    deltas = [
        adapter.scaling * (adapter.modules[module][1].double() @ adapter.modules[module][0].double()) for _, adapter in terms
    ]
    weights = [weight for weight, _ in terms]
    a, b = low_rank(thinned(deltas, weights, cast(Rule, recipe.rule), recipe.density or 1.0, seed_of(module)), rank)
    exact = sum((weight * delta for weight, delta in zip(weights, deltas, strict=True)), torch.zeros_like(deltas[0]))
    return (a, b), (float((b @ a - exact).norm()), float(exact.norm()))


def _norm(a: Tensor, b: Tensor) -> float:
    """Return the Frobenius norm of B.A, from the triangular factors of both."""
    r_a, r_b = torch.linalg.qr(a.T, mode="r").R, torch.linalg.qr(b, mode="r").R
    norm = (r_b @ r_a.T).norm()
    return float(norm) if norm > ROUNDING * a.norm() * b.norm() else 0.0


def _relative(measured: Collection[Norms]) -> float:
    """Return the norm of all errors over that of all exact deltas, to six digits; 0 where nothing differs."""
    errors, norms = zip(*measured, strict=True) if measured else ((), ())
    error, norm = (sum(x * x for x in xs) ** 0.5 for xs in (errors, norms))
    if error == 0:
        return 0.0
    return float(f"{error / norm:.6g}") if norm else float("inf")


def _shared_init(terms: Sequence[Term]) -> bool | None:
    digests = {adapter.about.get("lora_a_sha256") for _, adapter in terms}
    return None if None in digests else len(digests) == 1


def _config(adapter: Adapter) -> dict[str, Any]:
    """Return what a soup's PEFT configuration takes from its adapters, dropout and initialisation reset."""
    kept = {key: value for key in (*SHARED, "auto_mapping") if (value := adapter.config.get(key)) is not None}
    kept = {key: sorted(value) if isinstance(value, list) else value for key, value in kept.items()}
    return kept | {"peft_type": "LORA", "bias": "none", "lora_dropout": 0.0, "inference_mode": True, "init_lora_weights": True}


def _about(adapters: Sequence[Adapter]) -> dict[str, Any]:
    backbones = {adapter.about.get("backbone_sha256") for adapter in adapters}
    return {"kind": "soup"} | ({} if None in backbones else {"backbone_sha256": backbones.pop()})

"""A person's own soup: from pairs that the person chose between to weights, a recipe and a merged adapter."""

import os
from pathlib import Path

from rlphf.config import Experiment, load
from rlphf.data.sources.raw import Bad, Dropped, Pair
from rlphf.data.sources.table import read
from rlphf.errors import InputError
from rlphf.files import write_json
from rlphf.layout import policy, reward_model
from rlphf.seeds import derive
from rlphf.soup.adapter import check_alike, read_adapter
from rlphf.soup.merge import check_replaceable, merge, replacing, soup_files, write_soup
from rlphf.soup.recipe import RECIPE, Recipe, make_recipe
from rlphf.soup.wanted import merging
from rlphf.tracking.record import step
from rlphf.users.weights import DRAWS, asked, described, fit, recipe_weights

WEIGHTS = "weights.json"
COLUMNS = {name: name for name in ("prompt", "chosen", "rejected")}


def read_choices(path: Path) -> list[dict[str, str]]:
    """Return the pairs of a person's own file in any format of tables, as {prompt, chosen, rejected}; other fields are left.

    Raises InputError for a file without pairs, and with file, line and field for a record that is none: a text that is missing
    or empty, or a response that was chosen over itself.
    """
    found = []
    for raw in read(path, COLUMNS, None):
        if isinstance(raw, Pair):
            texts = {"prompt": raw.prompt, "chosen": raw.chosen, "rejected": raw.rejected}
            empty = next((name for name, text in texts.items() if not text), None)
            if empty:
                raw = Bad(raw.place, empty, "is empty", "")
            elif raw.chosen == raw.rejected:
                raw = Bad(raw.place, "rejected", "is the same text as chosen", "")
            else:
                found.append(texts)
        if isinstance(raw, Dropped):
            raw = Bad(raw.place, "", raw.reason, "")
        if isinstance(raw, Bad):
            raise raw.error("correct it")
    if not found:
        raise InputError(f"{path}: holds no pairs; write one per line, with prompt, chosen and rejected")
    return found


def recipe_of(experiment: Experiment, models: Path, weights: dict[str, float]) -> Recipe:
    """Return the recipe of a person's soup of the policies in the seed's folder `models`, by {preference: weight}."""
    paths = {name: policy(Path(os.path.relpath(models)), name).as_posix() for name in weights}
    return make_recipe(weights, paths, **merging(experiment))


def fit_soup_step(pairs: Path, config: Path, backbone: Path, models: Path, out: Path) -> None:
    """Fit weights to the choices in the file `pairs`; write the person's soup to `out`, as a soup's folder.

    Reads `<models>/reward/<preference>/adapter` and `<models>/ppo/<preference>/adapter` of the experiment's preferences. Beside
    the soup's files goes weights.json: how many pairs there were, what is known of each weight and share, and which preferences
    the soup is to be asked for. An older soup in `out` is replaced. Raises InputError before anything is written.
    """
    experiment = load(config)
    choices = read_choices(pairs)
    names = experiment.preferences
    everything = recipe_of(experiment, models, dict.fromkeys(names, 1 / len(names)))
    check_replaceable(out, everything)
    policies = {name: read_adapter(path, name) for name, path in everything.paths.items()}
    check_alike(list(policies.values()), same_rank=everything.rule == "factor")
    # Imports transformers and trl, which a bad file need not wait for.
    from rlphf.lm.backbone import backbone_sha256
    from rlphf.lm.rewards import check_rewards
    from rlphf.users.differences import differences

    rewards = {name: reward_model(models, name) for name in names}
    check_rewards(rewards.items(), backbone_sha256(backbone))
    inputs = {"pairs": pairs, "backbone": backbone, **{f"reward/{name}": path for name, path in rewards.items()}}
    inputs |= {f"ppo/{name}": Path(path) for name, path in everything.paths.items()}
    params = {"soup": experiment.soup.model_dump(mode="json"), "prior": experiment.cold_start.prior}
    with step("fit soup", out, experiment, params, inputs) as run:
        posterior = fit(differences(choices, rewards, backbone, experiment.reward.max_length), names, experiment.cold_start.prior)
        draws = posterior.draws(DRAWS, derive(experiment.seed, "fit soup"))
        known, named = described(posterior, draws), asked(posterior, draws)
        soup = merge(recipe_of(experiment, models, recipe_weights(posterior, draws)), policies)
        with replacing(out) as folder:
            write_soup(folder, soup)
            write_json(folder / WEIGHTS, {"n": len(choices), "preferences": known, "asked": named})
        run.log({"pairs": len(choices), **{f"share/{name}": row["share"] for name, row in known.items()}})
        run.tag(asked=" ".join(named))
        run.output(*soup_files(out))
        run.artifact(out / RECIPE, out / WEIGHTS)

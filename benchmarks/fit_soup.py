"""From a person's pairs to weights: seconds of the fit for 5 to 1000 pairs and eight preferences, and of scoring these pairs.

Scored are pairs of the testbed's corpus, by eight reward models with random adapters on the demo's small Llama.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median

from benchmarks.child import timed
from benchmarks.harness import Answer, Options, Side, interleaved, machine, versions_of
from benchmarks.models import CONFIG, SMALL, Prepared, prepared
from benchmarks.table import Figure, Row, Target
from rlphf.files import read_json, write_json
from rlphf.preferences import PREFERENCES

PAIRS = (5, 10, 30, 100, 300, 1000)
SCORED = 128
REPEATS = 20
ABOUT = "adapter.json"
FAST = Target("most", 1000, "ours")


def rows(options: Options) -> Iterator[Row]:
    """Measure the fit, and the scoring of one and of SCORED pairs."""
    made = prepared(SMALL, options)
    repeats, scored = (2, 2) if options.small else (REPEATS, SCORED)
    fit = Side("fit", "benchmarks.fit_soup:fitting", {"repeats": repeats})
    arguments = {"backbone": str(made.model), "rewards": str(_rewards(made, options.work / "rewards"))}
    sides = [Side("scores", "benchmarks.fit_soup:scoring", arguments | {"pairs": pairs}) for pairs in (scored, 1)]
    found = machine(options)
    fits, many, one = interleaved([fit, *sides], options)
    settings = {"preferences": len(PREFERENCES), "repetitions": repeats, "rounds": options.rounds}
    versions = {"ours": versions_of(fits[0], "torch", "numpy")}
    row = Row("fit-soup", "A person's weights", [], settings, versions, found)
    figures = [
        Figure(f"{what}, {pairs} pairs", "ms", [1000 * median(answer[kind][str(pairs)]) for answer in fits], target=FAST)
        for pairs in PAIRS
        for kind, what in (("alone", "fit"), ("whole", "fit with intervals and what is asked for"))
    ]
    times = [[answer["seconds"][0] for answer in answers] for answers in (many, one)]
    figures.append(Figure(f"scoring {scored} pairs by {len(PREFERENCES)} reward models", "s", times[0], "one pair", times[1]))
    yield replace(row, figures=figures)


def fitting(repeats: int) -> Answer:
    """Side: seconds of fits by number of pairs, `alone`, and `whole` with draws, shares, intervals and what is asked for."""
    import numpy as np

    from rlphf.users.weights import DRAWS, asked, described, fit, recipe_weights

    names = list(PREFERENCES)
    answer: Answer = {"alone": {}, "whole": {}}
    for pairs in PAIRS:
        rng = np.random.default_rng(pairs)
        true = rng.dirichlet(np.ones(len(names)))
        differences = rng.normal(size=(pairs, len(names))) * 4
        differences *= np.where(rng.random(pairs) < 1 / (1 + np.exp(-differences @ true)), 1, -1)[:, None]

        def alone(differences: np.ndarray = differences):
            return fit(differences, names, 0.5)

        def whole(differences: np.ndarray = differences) -> None:
            posterior = fit(differences, names, 0.5)
            draws = posterior.draws(DRAWS, 0)
            described(posterior, draws), asked(posterior, draws), recipe_weights(posterior, draws)

        answer["alone"][pairs] = timed(alone, repeats)["seconds"]
        answer["whole"][pairs] = timed(whole, repeats)["seconds"]
    return answer


def scoring(backbone: str, rewards: str, pairs: int) -> Answer:
    """Side: seconds of scoring pairs by a reward model per preference, their loading included."""
    from rlphf.config import load
    from rlphf.testbed.prompts import corpus
    from rlphf.users.differences import differences

    documents = list(islice(corpus(load(CONFIG).testbed, 1), 2 * pairs))
    rows = [
        {"prompt": prompt, "chosen": one, "rejected": other}
        for (prompt, one), (_, other) in zip(documents[::2], documents[1::2], strict=True)
    ]
    folders = {name: Path(rewards) / name for name in PREFERENCES}
    return timed(lambda: differences(rows, folders, Path(backbone)), 1, warm=0)


def _rewards(made: Prepared, folder: Path) -> Path:
    """Copy the one reward model for every preference: speed does not depend on what it likes."""
    for name in PREFERENCES:
        shutil.copytree(made.reward, folder / name)
        write_json(folder / name / ABOUT, read_json(made.reward / ABOUT) | {"preference": name})
    return folder

"""Which reward models an experiment has, whose pairs each learns from, and of which splits; the others measure it."""

from collections.abc import Sequence
from pathlib import Path

from rlphf.config import Experiment
from rlphf.data.records import PROMPTS, SPLITS, read_pairs
from rlphf.data.splits import group
from rlphf.errors import InputError
from rlphf.files import read_parquet
from rlphf.preferences import GENERAL, GOLD, MT, PMORL, SELECTOR, alone, known

# Reward models of raw pairs are named after whom these speak for, behind this.
RAW = "raw-"


def policy_names(experiment: Experiment) -> list[str]:
    """Return whom the experiment's policies speak for: its preferences, and everybody where a method is everybody's."""
    methods = experiment.evaluation.methods
    return [*experiment.preferences, *(name for name, method in ((GENERAL, "rlhf"), (PMORL, "pmorl")) if method in methods)]


def rewarding(name: str, experiment: Experiment) -> list[str]:
    """Return the reward models that a policy is trained against: its own, or none where a text rule rewards it.

    No rule knows what is better in general, and what P-MORL's policy is asked for needs a model of all preferences.
    """
    by_rule = experiment.ppo.reward == "rule" and name not in (GENERAL, PMORL)
    return [] if by_rule else [name]


def reward_names(experiment: Experiment) -> list[str]:
    """Return the names of the experiment's reward models: its policies', judge and selector, and those of raw pairs."""
    golden = [GOLD] if "gold" in experiment.evaluation.judges else []
    golden += [SELECTOR] if experiment.ppo.keep_by == "gold" else []
    policies = [reward for name in policy_names(experiment) for reward in rewarding(name, experiment)]
    return [*policies, *golden, *(f"{RAW}{name}" for name in experiment.data.reward_models)]


def sources(name: str, experiment: Experiment) -> tuple[list[str], list[str]]:
    """Return (whose pairs of rollouts, whose raw pairs) the reward model `name` learns from and is measured on.

    Most learn from the pairs of one preference, P-MORL's from those of all combined preferences, and so does MT, which is no
    reward model; `reward.raw` says whose are raw. Judge and selector learn from general pairs and from the pairs of every
    preference they score: the selector, and "gold" as the first judge, score single policies and so all preferences; as a later
    judge "gold" scores the combined ones alone. Raw pairs replace those of rollouts where `evaluation.gold_raw` says so.
    """
    combined = experiment.combination_preferences
    if name.startswith(RAW):
        return [], [name.removeprefix(RAW)]
    if name in (GOLD, SELECTOR):
        raw = experiment.evaluation.gold_raw
        every = name == SELECTOR or experiment.evaluation.judges[0] == "gold"
        scored = experiment.preferences if every else combined
        return [p for p in (*scored, GENERAL) if p not in raw], list(raw)
    own, raw = combined if name in (PMORL, MT) else [name], experiment.reward.raw
    return [p for p in own if p not in raw], [p for p in own if p in raw]


def asked_elsewhere(name: str) -> Sequence[str]:
    """Return the splits of the experiment's own prompts that no raw pair may ask of which `name` learns.

    What answers, or teaches what answers, may know the training prompts; who judges or selects shares none with it.
    """
    return SPLITS if name in (GOLD, SELECTOR) or name.startswith(RAW) else ("validation", "test")


def chosen_pairs(experiment: Experiment, name: str, pairs: Sequence[Path], prompts: Path | None) -> list[dict]:
    """Return the rows of the files `pairs` that the reward model `name`, or MT, is about.

    A pair counts if it speaks for one that the model learns from (`sources`); a raw pair in place of rollouts only if it asks
    none of the experiment's own `prompts` of the splits that are kept apart. Raises InputError where none is left.
    """
    whose, raw = sources(name, experiment)
    own: set[str] = set()
    if prompts and raw:
        apart = asked_elsewhere(name)
        own = {group(row["prompt"]) for row in read_parquet(prompts, PROMPTS).to_pylist() if row["split"] in apart}

    def counts(row: dict) -> bool:
        if row["preference"] in raw and row["source"] != experiment.prompts.source:
            return group(row["prompt"]) not in own
        return row["preference"] in whose

    rows = read_pairs(pairs)
    found = [row for row in rows if counts(row)]
    kinds = {row["preference"] for row in found}
    if lost := sorted({row["preference"] for row in rows} & {*whose, *raw} - kinds if found else []):
        raise InputError(
            f"{', '.join(map(str, pairs))}: all pairs of {lost[0]} ask prompts of the experiment itself, so {name} may"
            " learn from none; leave it out of evaluation.gold_raw or reward.raw, or name other prompts"
        )
    if rows and not found:
        there = ", ".join(sorted({row["preference"] for row in rows}))
        raise InputError(
            f"{', '.join(map(str, pairs))}: no pair speaks for {' or '.join([*whose, *raw])}, but for {there}; name one of these"
        )
    return found


def learned_splits(name: str, experiment: Experiment) -> Sequence[str]:
    """Return the splits whose pairs the reward model `name` learns from.

    Judge and selector learn from pairs that no policy's reward model sees, and share none with each other.
    """
    if name == SELECTOR:
        return ("validation",)
    if name == GOLD:
        return ("test",) if experiment.ppo.keep_by == "gold" else ("validation", "test")
    return ("train",)


def unseen_split(name: str) -> str:
    """Return the split whose pairs measure a reward model: test; train for judge and selector, which learn from other splits."""
    return "train" if name.partition("/")[0] in (GOLD, SELECTOR) else "test"


def asked_for(name: str, speaks_for: str) -> list[str]:
    """Return the ids that the reward model `name` is asked for in a pair that speaks for `speaks_for`.

    A model of several preferences knows them by their prompts; kinds of users that are no preference ask for nothing.
    """
    if name in (GOLD, SELECTOR, PMORL) or name.startswith(RAW):
        return [speaks_for] if speaks_for in known() else []
    return alone(name)

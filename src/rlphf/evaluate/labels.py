"""Short names of preferences, methods, mistakes and settings for tables in a terminal and for figures."""

from rlphf.derived import SOUPS
from rlphf.preferences import known, members

PREFERENCE_LABELS = {
    "P1A": "elementary",
    "P1B": "expert",
    "P2A": "concise",
    "P2B": "informative",
    "P3A": "friendly",
    "P3B": "unfriendly",
    "P3C": "sassy",
    "P3D": "sarcastic",
}
METHOD_LABELS = {
    "vb": "VB",
    "rlhf": "RLHF",
    "pp": "PP",
    "mt": "MT",
    "pmorl": "P-MORL",
    "psoups": "P-SOUPS",
    "psoups_unprompted": "P-SOUPS unprompted",
    "mod": "MOD",
    # Those that serve users.
    "sft": "SFT",
    "sft_prompted": "SFT + text",
    "in_context": "in context",
    "pooled": "pooled SFT",
    "dpo": "DPO",
    "dpo_prompted": "DPO + text at test",
    "dpo_text": "DPO + text",
    "per_user": "adapter per user",
    "prm": "P-RM",
    "pdpo_individual": "P-DPO individual",
    "pdpo_cluster": "P-DPO cluster",
    "pdpo_both": "P-DPO individual + text",
    "psoups_declared": "P-SOUPS declared",
    "psoups_inferred": "P-SOUPS inferred",
    # The judge that is a reward model.
    "gold": "gold (judge)",
    # A comparison in table `release_bugs`.
    "psoups - pp": "P-SOUPS minus PP",
}

MISTAKE_LABELS = {
    "random_reward_head": "random reward head",
    "reward_without_response": "reward without the response",
    "duplicated_pairs": "pairs repeated, then split",
    "factor_merge": "factors averaged",
    "other_starts": "factors averaged, other starts",
    "low_precision_baselines": "4 bits against 8",
    "test_selection": "selected on test prompts",
}

# Settings that `ablations` varies.
SETTING_LABELS = {
    "dpo.alpha": "weight of the user's own term",
    "users.tokens": "soft tokens per user",
    "users.clusters": "clusters",
    "users.init": "start of the soft tokens",
    "population.users": "users",
    "population.train_pairs": "training pairs per user",
}


def preference_label(name: str) -> str:
    """Return "P1A elementary" for a preference, a method's name for a model that goes by it, and anything else as it is.

    One of an experiment's own is told in full where the experiment is known, which it is not by its tables alone.
    """
    own = known()[name].name if name in known() else ""
    label = PREFERENCE_LABELS.get(name, own)
    return f"{name} {label}" if label else method_label(name)


def method_label(name: str) -> str:
    """Return a method's name as the paper writes it, or as it is."""
    label = METHOD_LABELS.get(name, name)
    # Soups that are merged otherwise (`soup.compared`).
    return f"{METHOD_LABELS[SOUPS]} {name.removeprefix(f'{SOUPS}_')}" if label.startswith(f"{SOUPS}_") else label


def combination_label(name: str, separator: str = " ") -> str:
    """Return the ids of a combination between separators, or "all" for all of them."""
    return name if name == "all" else separator.join(members(name))


def mistake_label(name: str) -> str:
    """Return a mistake of the release in a few words."""
    return MISTAKE_LABELS.get(name, name)


def setting_label(name: str) -> str:
    """Return a setting of users' models in a few words."""
    return SETTING_LABELS.get(name, name)

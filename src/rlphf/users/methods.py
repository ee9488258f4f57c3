"""The methods that serve users: which model each answers with, and what its prompts say about the user.

P-DPO and its baselines (Li et al. 2024), one adapter per user (Tan et al. 2024, "Democratizing Large Language Models via
Personalized Parameter-Efficient Fine-tuning"), and the soups of Personalized Soups, all on one backbone.
"""

from dataclasses import dataclass
from typing import Literal

from rlphf.errors import InputError
from rlphf.settings_users import UserModels, Users

# Models that users' methods answer with, besides those of MODELS: no training, or one that knows no soft tokens.
BACKBONE, POOLED, PER_USER, SOUPS = "backbone", "pooled", "per_user", "soups"
PRM = "prm"
# What the prompt says about the user: nothing, the user's own text, pairs of the user, or what the user's soup is asked for.
Told = Literal["nothing", "said", "history", "asked"]


@dataclass(frozen=True)
class Method:
    """Which model answers, and what its prompt says about the user."""

    model: str
    told: Told = "nothing"


METHODS: dict[str, Method] = {
    "sft": Method(BACKBONE),
    "sft_prompted": Method(BACKBONE, "said"),
    "in_context": Method(BACKBONE, "history"),
    "pooled": Method(POOLED),
    "dpo": Method("dpo"),
    "dpo_prompted": Method("dpo", "said"),
    "dpo_text": Method("dpo_text", "said"),
    "per_user": Method(PER_USER),
    "prm": Method(PRM),
    "pdpo_individual": Method("individual"),
    "pdpo_cluster": Method("cluster"),
    "pdpo_both": Method("both", "said"),
    "psoups_declared": Method(SOUPS, "asked"),
    "psoups_inferred": Method(SOUPS, "asked"),
}
# {model: (kind of the user model, where the user is described)} of the models trained on users' pairs. P-DPO with text alone is
# `dpo_text`: both of its terms read the text, and without soft tokens they are equal.
MODELS: dict[str, tuple[Literal["uniform", "individual", "cluster"], Literal["implicit", "explicit", "both"]]] = {
    POOLED: ("uniform", "implicit"),
    PER_USER: ("uniform", "implicit"),
    "dpo": ("uniform", "implicit"),
    "dpo_text": ("uniform", "explicit"),
    "individual": ("individual", "implicit"),
    "cluster": ("cluster", "implicit"),
    "both": ("individual", "both"),
    PRM: ("individual", "implicit"),
}


def settings_of(settings: UserModels, model: str) -> Users:
    """Return the settings of the user model of `model`, one of MODELS; raise InputError for an unknown `model`."""
    if model not in MODELS:
        raise InputError(f"model {model!r} is unknown; choose from {', '.join(MODELS)}")
    kind, text = MODELS[model]
    start = settings.cluster_start if kind == "cluster" else settings.start
    return Users(**{**settings.model_dump(), "start": start}, model=kind, text=text)


def as_trained(method: str) -> bool:
    """Return whether the scores written by the step that made the method's model hold for this method too."""
    model, told = METHODS[method].model, METHODS[method].told
    return model == SOUPS or (model in MODELS and (told == "said") == (MODELS[model][1] != "implicit"))

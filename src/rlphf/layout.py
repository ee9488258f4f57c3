"""Where steps find each other's models in a seed's folder, which docs/architecture.md shows as a whole."""

from pathlib import Path

ADAPTER = "adapter"


def policy(seed_folder: Path, name: str) -> Path:
    """Return the folder of the policy of a preference, of "general" or of "pmorl"."""
    return seed_folder / "ppo" / name / ADAPTER


def reward_model(seed_folder: Path, name: str) -> Path:
    """Return the folder of a reward model."""
    return seed_folder / "reward" / name / ADAPTER


def reward_scores(seed_folder: Path, name: str) -> Path:
    """Return the file of the pairs that a reward model was measured on, and its scores of them (PAIR_SCORES)."""
    return seed_folder / "reward" / name / "scores.parquet"

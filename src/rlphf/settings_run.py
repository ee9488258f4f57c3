"""The sections of the configuration about a run as such: the mistakes that it makes on purpose, and where it is tracked."""

from typing import Annotated

from pydantic import AfterValidator, Field

from rlphf.address import checked
from rlphf.settings import Section


class Mistakes(Section):
    """Mistakes of Personalized Soups' release, each off, to be made on purpose (`priced`)."""

    random_reward_head: bool = Field(False, description="PPO's rewards come from a random head on the reward model's features.")
    reward_without_response: bool = Field(False, description="The reward of P-MORL's policy is computed from the prompt alone.")
    duplicated_pairs: bool = Field(
        False,
        description="Reward models are trained for one epoch on pairs that are repeated five times, and the rows held out of"
        " these are measured as if they were unseen.",
    )
    factor_merge: bool = Field(False, description="Soups average A and B separately.")
    other_starts: bool = Field(
        False, description="Soups average A and B separately, and each policy starts from its own initial A."
    )
    low_precision_baselines: bool = Field(
        False, description="Weights are rounded to 4 bits where the backbone answers alone, and to 8 bits where adapters answer."
    )
    test_selection: bool = Field(False, description="`ppo.keep: best` selects on test prompts instead of validation prompts.")


class Tracking(Section):
    """Where runs are sent; each step's record lies beside its outputs in any case."""

    uri: Annotated[str, AfterValidator(checked)] = Field(
        "sqlite:///mlflow.db", description="MLflow tracking URI, used unless the environment variable MLFLOW_TRACKING_URI is set."
    )
    enabled: bool = Field(True, description="false keeps the records on disk only.")

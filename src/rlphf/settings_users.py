"""The sections of the configuration that are about users: where they come from, user models, P-DPO and P-RM."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlphf.settings import Lora, Section
from rlphf.settings_types import Count, Once, Positive, Rate, Several, Share, Weight


class Population(Section):
    """Users of the testbed, and how many pairs each of them chooses between."""

    users: Several = Field(20, description="Number of users in the training data; their ids are 1, 2, ...")
    unseen: Count = Field(5, description="Number of unseen users, with the ids that follow; none of their pairs are trained on.")
    clusters: Several = Field(
        5, description="Number of clusters; users of a cluster share one taste. The minority has clusters of its own."
    )
    minority: Share = Field(
        0.2, description="Share of the users, and of the clusters, that conflict with the others on one axis."
    )
    train_pairs: Positive = Field(60, description="Pairs per user on training prompts.")
    validation_pairs: Count = Field(8, description="Pairs per user, seen or unseen, on validation prompts.")
    test_pairs: Positive = Field(20, description="Pairs per user, seen or unseen, on test prompts.")
    text: Literal["prompts", "paraphrase"] = Field(
        "prompts", description="Users' self-descriptions: the prompts of their preferences, or paraphrases of these."
    )


class UserData(Section):
    """Users of raw data, in place of the testbed's; bad records are treated as `data.on_bad_record` says."""

    source: Literal["testbed", "tldr", "psoups", "prism", "persona", "hh_rlhf", "table"] = Field(
        "testbed", description="Where users come from: the testbed, or raw data in this format."
    )
    path: str | None = Field(None, description="File or folder of the raw data; needed for every source but the testbed.")
    columns: dict[str, str] = Field(
        {}, description="For `table`: {our column: theirs}, e.g. {user: annotator_id}; docs/users.md lists the columns."
    )
    users: Positive | None = Field(
        None,
        description="Maximum number of users, null for all: for `tldr` the most frequent workers; for `hh_rlhf` null means two.",
    )
    unseen: Share = Field(
        0.0,
        description="Share of users held out of training; 0 for `tldr`, where unseen users are the other workers in the"
        " validation files.",
    )
    pairs_per_user: Positive | None = Field(
        None, description="Maximum number of pairs per user and split, drawn with the seed; null for all."
    )
    validation: Share = Field(0.1, description="Share of the prompts in the validation split.")
    test: Share = Field(0.1, description="Share of the prompts in the test split; `tldr` has separate files for it.")
    shorter: Share = Field(0.3, description="For `tldr`: probability that a worker prefers the shorter summary.")

    @model_validator(mode="after")
    def _readable(self) -> "UserData":
        if self.source != "testbed" and not self.path:
            raise ValueError(f"path: needed for source {self.source}")
        if self.columns and self.source != "table":
            raise ValueError(f"columns: are not read for source {self.source}, only for table; leave them out")
        if self.source == "tldr" and self.unseen:
            raise ValueError("unseen: is no share for source tldr, whose unseen users are the workers beyond `users`; set 0")
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on")
        return self


class UserModels(Section):
    """What the user models of P-RLHF have in common; the defaults are those of the release."""

    tokens: Positive = Field(10, description="Number of soft tokens T per user.")
    clusters: Positive = Field(10, description="Number of clusters K in the cluster user model.")
    init: Literal["vocabulary", "uniform"] = Field(
        "vocabulary",
        description="Initialisation of soft tokens: embeddings of distinct vocabulary tokens, or uniform in [-0.5, 0.5].",
    )
    start: Literal["drawn", "generic"] = Field(
        "drawn",
        description="Initialisation of users' offsets: drawn like the soft tokens, or zero, so that every user starts as the"
        " generic user.",
    )
    cluster_start: Literal["drawn", "generic"] = Field(
        "drawn",
        description="Initialisation of users' weights in the cluster user model: drawn from N(0, 1), or those of the generic"
        " user.",
    )
    text_place: Literal["before", "behind"] = Field(
        "before", description="Position of the user's text, in methods that use it: before the question or after it."
    )
    unknown: Literal["generic", "error"] = Field(
        "generic", description="A user who is not in the training data counts as the generic user, or is an error."
    )


class Users(UserModels):
    """A user model: what a policy is told of the user who asks. `users.methods` says which model has which."""

    model: Literal["uniform", "individual", "cluster"] = Field(
        "individual",
        description="User model: `uniform` has no soft tokens; `individual` adds an offset per user to those of the generic"
        " user; `cluster` mixes clusters' soft tokens with weights per user.",
    )
    text: Literal["implicit", "explicit", "both"] = Field(
        "implicit", description="User information: soft tokens, the user's text in the prompt, or both."
    )


UserMethod = Literal[
    "sft",
    "sft_prompted",
    "in_context",
    "pooled",
    "dpo",
    "dpo_prompted",
    "dpo_text",
    "per_user",
    "prm",
    "pdpo_individual",
    "pdpo_cluster",
    "pdpo_both",
    "psoups_declared",
    "psoups_inferred",
]


class UserEvaluation(Section):
    """How methods that serve users are compared; split, decoding and intervals are those of `evaluation`."""

    methods: Annotated[list[UserMethod], Once] = Field([], description="Methods to compare; [] leaves users out.")
    prompts: Count = Field(24, description="Number of prompts answered for each user, evenly spaced among the evaluated ones.")
    history: Positive = Field(2, description="Number of the user's own pairs shown in the prompts of `in_context`.")
    inferred_from: Positive = Field(
        60, description="Number of the user's own training pairs from which `psoups_inferred` infers weights."
    )


class UserTraining(Section):
    """What P-DPO and P-RM are trained with; the defaults are those of the release's P-DPO."""

    alpha: Share = Field(
        0.5, description="Weight of the user-specific loss term; the generic user's term has weight 1 - alpha. 0 ignores users."
    )
    lora: Lora = Field(
        Lora(rank=8, alpha=16, targets=["q_proj", "k_proj", "v_proj"]),
        description="LoRA settings of the adapter; dropout is off here, as in TRL's trainer.",
    )
    epochs: Positive = Field(2, description="Passes over the pairs.")
    batch_size: Positive = Field(32, description="Pairs per optimizer step.")
    micro_batch_size: Positive = Field(8, description="Pairs per forward and backward pass; affects only memory and rounding.")
    learning_rate: Rate = Field(5e-5, description="Peak learning rate of the adapter (AdamW, warm-up, cosine).")
    user_learning_rate: Rate = Field(
        5e-5,
        description="Peak learning rate of the user model (Adam, with moments and step count per user for users' own"
        " parameters).",
    )
    warmup_steps: Count = Field(150, description="Steps of linear warm-up.")
    weight_decay: Weight = Field(0.0, description="AdamW's weight decay of the adapter.")
    max_grad_norm: Rate | None = Field(1.0, description="Clip the gradient norm to this value; null for no clipping.")
    max_prompt: Positive = Field(
        550, description="Maximum length of a prompt in tokens; the user's text is cut first, then the start of the prompt."
    )
    max_length: Positive = Field(
        600, description="Maximum length of a text in tokens, soft tokens included; responses are cut at the end."
    )
    checkpoint_every: Positive = Field(200, description="Optimizer steps between checkpoints.")


class DPO(UserTraining):
    """P-DPO: direct preference optimisation with a user model; with alpha 0 and the user model `uniform`, DPO."""

    beta: Rate = Field(0.5, description="DPO's beta, the scale of the log-ratios to the backbone.")
    loss: Literal["sigmoid", "ipo", "hinge"] = Field("sigmoid", description="Loss function of a pair's margin.")
    sft_weight: Weight = Field(
        0.0,
        description="Weight of an additional loss, the chosen response's cross-entropy per token, which keeps answers likely.",
    )


class PRM(UserTraining):
    """P-RM: a reward model with a user model."""


class ColdStart(Section):
    """A user who is new: what is learned of the user's weights, or of the user's row in a user model, from a few pairs."""

    pairs: Annotated[list[Count], Field(min_length=1)] = Field(
        [0, 5, 10, 30, 100], description="Numbers of pairs that are known of each new user."
    )
    prior: float = Field(
        0.5,
        ge=1e-6,
        le=1e6,
        description="Prior standard deviation of a preference's weight, around the mean 1/P for P preferences; 0.5 is the"
        " largest that shares in [0, 1] can have.",
    )
    steps: Positive = Field(30, description="Adam steps on a new user's embedding in a trained user model.")
    batch_size: Positive = Field(8, description="Pairs per step, drawn anew for each step; all pairs where there are no more.")
    learning_rate: Rate = Field(0.05, description="Constant learning rate of these steps.")

"""The sections of the configuration that are about users: where they come from, user models, P-DPO and P-RM."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rlphf.settings import Count, Lora, Positive, Rate, Section, Share


class Population(Section):
    """Users of the testbed, and how many pairs each of them chooses between."""

    users: Annotated[int, Field(ge=2)] = Field(20, description="Users whose pairs are trained on; their ids are 1, 2, ...")
    unseen: Count = Field(5, description="Users with ids behind those, who choose on validation and test prompts alone.")
    clusters: Annotated[int, Field(ge=2)] = Field(5, description="Tastes that users share; the minority has its own.")
    minority: Share = Field(0.2, description="Share of the users, and of the tastes, that conflict with the rest on an axis.")
    train_pairs: Positive = Field(60, description="Pairs per user on training prompts.")
    validation_pairs: Count = Field(8, description="Pairs per user, seen or not, on validation prompts.")
    test_pairs: Positive = Field(20, description="Pairs per user, seen or not, on test prompts.")
    text: Literal["prompts", "paraphrase"] = Field(
        "prompts", description="What users say of themselves: their preferences' prompts, or the same in other words."
    )


class UserData(Section):
    """Users of raw data, in place of the testbed's; bad records are treated as `data.on_bad_record` says."""

    source: Literal["testbed", "tldr", "psoups", "prism", "persona", "hh_rlhf", "table"] = Field(
        "testbed", description="Who the users are: the testbed's, or those of raw data of this layout."
    )
    path: str | None = Field(None, description="File or folder of the raw data; needed for all but the testbed.")
    columns: dict[str, str] = Field(
        {}, description="For `table`: {our column: theirs}, e.g. {user: annotator_id}; docs/users.md has the columns."
    )
    users: Positive | None = Field(
        None, description="Users at most, null for all: for `tldr` the most frequent workers, for `hh_rlhf` two if null."
    )
    unseen: Share = Field(
        0.0,
        description="Share of the users who are held out of training; for `tldr` they are the validation files' other workers.",
    )
    pairs_per_user: Positive | None = Field(
        None, description="Pairs of a user and split at most, drawn by the seed; null for all."
    )
    validation: Share = Field(0.1, description="Share of the prompts that go to validation.")
    test: Share = Field(0.1, description="Share of the prompts that go to test; `tldr` has files for it.")
    shorter: Share = Field(0.3, description="`tldr`: chance of a worker to prefer the shorter summary.")

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

    tokens: Positive = Field(10, description="Soft tokens T per user.")
    clusters: Positive = Field(10, description="Clusters K of the cluster model.")
    init: Literal["vocabulary", "uniform"] = Field(
        "vocabulary", description="Soft tokens start as embeddings of distinct tokens, or evenly random in [-0.5, 0.5]."
    )
    start: Literal["drawn", "generic"] = Field(
        "drawn", description="Users' own offsets are drawn, too, or every user starts as the generic one."
    )
    cluster_start: Literal["drawn", "generic"] = Field(
        "drawn", description="Start of users' weights in the cluster model: drawn from N(0, 1), or the generic user's."
    )
    text_place: Literal["before", "behind"] = Field(
        "before", description="A user's text, where a method tells it, stands before the question, or behind it."
    )
    unknown: Literal["generic", "error"] = Field(
        "generic", description="A user who was not trained counts as the generic one, or is an error."
    )


class Users(UserModels):
    """A user model: what a policy is told of the user who asks. `users.methods` says which model has which."""

    model: Literal["uniform", "individual", "cluster"] = Field(
        "individual",
        description="Soft tokens of a user: none; those of the generic user and an offset of the user's own; or a mixture of"
        " clusters with weights of the user's own.",
    )
    text: Literal["implicit", "explicit", "both"] = Field(
        "implicit", description="What tells of the user: soft tokens, the user's text in the prompt, or both."
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

    methods: list[UserMethod] = Field([], description="Methods to compare; [] leaves users out.")
    prompts: Count = Field(24, description="Prompts that each user is answered, spread evenly over those evaluated.")
    history: Positive = Field(2, description="Pairs of a user's own that the prompts of `in_context` show.")
    inferred_from: Positive = Field(60, description="Training pairs of a user's own that `psoups_inferred` infers weights from.")

    @field_validator("methods")
    @classmethod
    def _once(cls, names: list[str]) -> list[str]:
        if len(set(names)) != len(names):
            raise ValueError("name each only once")
        return names


class UserTraining(Section):
    """What P-DPO and P-RM are trained with; the defaults are those of the release's P-DPO."""

    alpha: Share = Field(0.5, description="Weight of the user's own term; the generic user's has the rest. 0 knows no users.")
    lora: Lora = Field(
        Lora(rank=8, alpha=16, targets=["q_proj", "k_proj", "v_proj"]),
        description="Shape of the adapter; its dropout is off here, as it is in TRL's trainer.",
    )
    epochs: Positive = Field(2, description="Passes over the pairs.")
    batch_size: Positive = Field(32, description="Pairs per step.")
    micro_batch_size: Positive = Field(8, description="Pairs per pass through the model; changes memory and rounding alone.")
    learning_rate: Rate = Field(5e-5, description="Peak learning rate of the adapter (AdamW, warm-up, cosine).")
    user_learning_rate: Rate = Field(5e-5, description="That of the user model (Adam, row by row for what is a user's own).")
    warmup_steps: Count = Field(150, description="Steps of linear warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay of the adapter.")
    max_grad_norm: Rate | None = Field(1.0, description="Clip the gradient's norm; null leaves it.")
    max_prompt: Positive = Field(550, description="Longest prompt in tokens; the user's text is cut first, then the start.")
    max_length: Positive = Field(600, description="Longest text in tokens, soft tokens included; responses lose their end.")
    checkpoint_every: Positive = Field(200, description="Steps between checkpoints.")


class DPO(UserTraining):
    """P-DPO: direct preference optimisation with a user model; with alpha 0 and the user model `uniform`, DPO."""

    beta: Rate = Field(0.5, description="Scale of the log-ratios to the backbone.")
    loss: Literal["sigmoid", "ipo", "hinge"] = Field("sigmoid", description="Loss of a pair's margin.")
    sft_weight: float = Field(
        0.0, ge=0, description="Weight, beside it, of the chosen response's cross-entropy per token, so that answers stay likely."
    )


class PRM(UserTraining):
    """P-RM: a reward model with a user model."""


class ColdStart(Section):
    """A user who is new: what is learned of the user's weights, or of the user's row in a user model, from a few pairs."""

    pairs: Annotated[list[Count], Field(min_length=1)] = Field(
        [0, 5, 10, 30, 100], description="Numbers of pairs that new users are known by."
    )
    prior: Rate = Field(
        0.5,
        description="Standard deviation of a preference's weight before any pair, around 1/P for P preferences; 0.5 is the"
        " largest that shares, which lie in [0, 1], can have.",
    )
    steps: Positive = Field(30, description="Steps of Adam on a new user's row of a trained user model.")
    batch_size: Positive = Field(8, description="Pairs per step, drawn anew for each; all of them where there are no more.")
    learning_rate: Rate = Field(0.05, description="Their constant learning rate.")

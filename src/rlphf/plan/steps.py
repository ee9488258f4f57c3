"""The steps of an experiment that hold a model, and what each of them needs of memory at its worst: with the longest texts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rlphf.config import Experiment, parse
from rlphf.data.learned import reward_names, sources
from rlphf.derived import combinations_of, shared_preferences, trained_together, users_alone, users_cold_started
from rlphf.errors import InputError
from rlphf.lm.batches import ROWS
from rlphf.lm.logprobs import LOGITS
from rlphf.lm.mixing import mixed_weights
from rlphf.plan import memory
from rlphf.plan.memory import BFLOAT16, FLOAT32, NF4, OVERHEAD, Precision, Shape
from rlphf.preferences import MT as MT_POLICY
from rlphf.preferences import PMORL, members
from rlphf.settings import MT, Decoding, Lora, Reward
from rlphf.settings_users import UserTraining
from rlphf.soup.wanted import combination_weights
from rlphf.users.methods import METHODS, MODELS, PER_USER, POOLED, PRM, SOUPS

# Texts that a reward model scores at a time, and pairs that a reference is computed for: those of `lm.reward_model` and
# `train.users`, which import more than a plan needs.
SCORED, REFERRED = 64, 8
FULL = Precision(FLOAT32, FLOAT32, FLOAT32)
HALF = Precision(BFLOAT16, BFLOAT16, BFLOAT16)
FOUR_BITS = Precision(NF4, BFLOAT16, BFLOAT16)


@dataclass(frozen=True)
class Need:
    """What a step needs, in bytes, and the settings that make it less.

    Weights and what is trained are there all the time; of the cache of sampling and the activations of a pass, one after the
    other, the larger one counts.
    """

    step: str
    weights: float
    trained: float
    cache: float
    activations: float
    settings: tuple[str, ...]
    on_gpu: bool

    @property
    def total(self) -> float:
        """All of it, with what libraries take besides."""
        return self.weights + self.trained + max(self.cache, self.activations) + OVERHEAD


@dataclass(frozen=True)
class Place:
    """Where an experiment runs: on a GPU or not, how many GPUs share a step that can be shared, and the tokens of a prompt."""

    on_gpu: bool
    prompt: int
    gpus: int = 1


def needs(experiment: Experiment, shape: Shape, place: Place) -> list[Need]:
    """Return what each step of an experiment needs; of one about users alone, what those of the target `users` need.

    Raises InputError for 4 bits where there is no GPU, and for an adapter's target that the backbone does not have.
    """
    if experiment.backbone.quantization != "none" and not place.on_gpu:
        raise InputError("backbone.quantization: 4bit needs a CUDA device; name its memory with --gpu-gb, or set none")
    return list(_Plan(experiment, shape, place).steps())


class _Plan:
    def __init__(self, experiment: Experiment, shape: Shape, place: Place):
        self.experiment, self.shape, self.place = experiment, shape, place
        quantized = experiment.backbone.quantization != "none"
        # As the steps load it: float32, but bfloat16 where a policy is trained on a GPU, and all in 4 bits alike. On a CPU a
        # backbone that trains in bfloat16 samples in float32, and the latter needs the more.
        self.loaded = FOUR_BITS if quantized else FULL
        self.training = FOUR_BITS if quantized else HALF if place.on_gpu else FULL
        self.quantized = quantized

    def steps(self) -> Iterator[Need]:
        experiment = self.experiment
        yield self.backbone()
        if not users_alone(experiment):
            yield from self.preferences()
        yield from self.users()

    def preferences(self) -> Iterator[Need]:
        experiment = self.experiment
        methods = experiment.evaluation.methods
        rewards = reward_names(experiment)
        learners = [*rewards, *([MT_POLICY] if MT_POLICY in methods else [])]
        if any(sources(name, experiment)[0] for name in learners):
            yield self.sampling("rollouts", experiment.rollouts.decoding, "rollouts.decoding")
            if experiment.annotator.kind == "reward_model":
                yield self.scoring("annotate", experiment.rollouts.decoding)
        if rewards:
            yield self.reward("reward per preference")
        judged = 1 if experiment.ppo.reward == "model" else 0
        yield self.ppo("ppo per preference", judged, len(trained_together(experiment)[0]))
        if PMORL in methods:
            yield self.ppo("ppo pmorl", len(members(combinations_of(experiment)[0])))
        if "mt" in methods:
            yield self.imitation("mt")
        mixed = [mixed_weights(combination_weights(experiment, name).values()) for name in combinations_of(experiment)]
        copies = max(map(len, mixed)) if "mod" in methods else 1
        yield self.sampling("generate", experiment.evaluation.decoding, "evaluation.decoding", copies, experiment.ppo.lora)
        if "gold" in experiment.evaluation.judges:
            yield self.scoring("judge gold", experiment.evaluation.decoding)

    def need(
        self, step: str, precision: Precision, settings: tuple[str, ...], on_gpu: bool | None = None, **parts: float
    ) -> Need:
        weights = memory.weight_bytes(self.shape, precision) + parts.pop("frozen", 0)
        found = {"trained": 0.0, "cache": 0.0, "activations": 0.0} | parts
        return Need(step, weights, settings=settings, on_gpu=self.place.on_gpu if on_gpu is None else on_gpu, **found)

    def backbone(self) -> Need:
        settings, shape = self.experiment.backbone, self.shape
        if settings.source != "train":
            # It is only read and written, in main memory.
            return self.need("backbone", FULL, (), on_gpu=False)
        tokens = settings.batch_size * shape.context
        everything = Lora(rank=1, targets=sorted({name.rpartition(".")[2] for name, _, _ in shape.linears}))
        kept = memory.activation_bytes(shape, everything, tokens, shape.context, FLOAT32)
        kept += memory.head_bytes(shape, tokens, 0, 3)
        trained = memory.training_bytes(shape.parameters) - FLOAT32 * shape.parameters
        return self.need("backbone", FULL, ("backbone.batch_size",), trained=trained, activations=kept)

    def sampling(self, step: str, decoding: Decoding, name: str, copies: int = 1, lora: Lora | None = None) -> Need:
        rows, narrowed = decoding.batch_size * copies, decoding.top_p < 1
        cache = memory.sampling_bytes(self.shape, rows, self.prompt(decoding), decoding.max_new_tokens, self.loaded, narrowed)
        frozen = FLOAT32 * copies * memory.lora_parameters(self.shape, lora) if lora else 0
        return self.need(step, self.loaded, (f"{name}.batch_size",), frozen=frozen, cache=cache)

    def reward(self, step: str) -> Need:
        settings, shape = self.experiment.reward, self.shape
        length = self.scored_length(self.experiment.rollouts.decoding)
        tokens = 2 * self.pass_size(settings) * length
        kept = memory.activation_bytes(shape, settings.lora, tokens, length, self.loaded.computed, settings.lora.dropout > 0)
        kept *= settings.epochs > 0
        # On a GPU float32 matrices are computed with as bfloat16, and autograd keeps the copies.
        kept += shape.matrices * BFLOAT16 if self.place.on_gpu and not self.quantized else 0
        scored = memory.pass_bytes(shape, SCORED * length, self.loaded.computed)
        trained = memory.training_bytes(memory.lora_parameters(shape, settings.lora) + shape.width)
        return self.need(step, self.loaded, _lowered("reward", settings), trained=trained, activations=max(kept, scored))

    def ppo(self, step: str, judged: int, together: int = 1) -> Need:
        settings, shape, own = self.experiment.ppo, self.shape, self.training
        decoding = Decoding(max_new_tokens=settings.max_new_tokens)
        length = self.prompt(decoding) + settings.max_new_tokens
        rows = settings.batch_size * together
        cache = memory.sampling_bytes(shape, rows, length - settings.max_new_tokens, settings.max_new_tokens, own)
        # All responses are evaluated at once, their logits in parts: with logarithms, and what entropy makes of them.
        part = max(1, LOGITS // shape.vocabulary)
        evaluated = memory.pass_bytes(shape, self.at_once(rows) * length, own.computed)
        if settings.algorithm == "ppo":
            evaluated += memory.head_bytes(shape, min(rows * settings.max_new_tokens, part), own.computed, 4)
        judging = memory.pass_bytes(shape, self.at_once(rows * judged) * length, own.computed)
        mini = settings.mini_batch_size * together
        tokens = min(mini * length, max(length, settings.micro_batch_tokens or mini * length))
        answered = tokens * settings.max_new_tokens // length
        kept = memory.activation_bytes(shape, settings.lora, tokens, length, own.computed)
        kept += memory.head_bytes(shape, min(answered, part) if settings.algorithm == "ppo" else answered, own.computed, 3)
        trained = together * memory.training_bytes(memory.lora_parameters(shape, settings.lora) + shape.width)
        frozen = together * FLOAT32 * memory.lora_parameters(shape, self.experiment.reward.lora) if judged else 0.0
        lowered: tuple[str, ...] = ("ppo.together",) if together > 1 else ()
        lowered += ("ppo.micro_batch_tokens",) if settings.micro_batch_tokens else ("ppo.mini_batch_size",)
        activations = max(evaluated, judging, kept)
        return self.need(
            step, own, (*lowered, "ppo.batch_size"), frozen=frozen, trained=trained, cache=cache, activations=activations
        )

    def imitation(self, step: str, length: int | None = None) -> Need:
        settings, shape, own = self.experiment.mt, self.shape, self.training
        decoding = self.experiment.rollouts.decoding
        length = length or self.prompt(decoding) + decoding.max_new_tokens
        tokens = self.pass_size(settings) * length
        kept = memory.activation_bytes(shape, settings.lora, tokens, length, own.computed, settings.lora.dropout > 0)
        kept += memory.head_bytes(shape, tokens, own.computed, 3)
        trained = memory.training_bytes(memory.lora_parameters(shape, settings.lora))
        return self.need(step, own, _lowered("mt", settings), trained=trained, activations=kept)

    def scoring(self, step: str, decoding: Decoding, adapters: int = 1) -> Need:
        """Reward models at work, one after the other; those from elsewhere are taken to be as large as the experiment's own."""
        scored = memory.pass_bytes(self.shape, SCORED * self.scored_length(decoding), self.loaded.computed)
        frozen = adapters * FLOAT32 * memory.lora_parameters(self.shape, self.experiment.reward.lora)
        return self.need(step, self.loaded, (), frozen=frozen, activations=scored)

    def users(self) -> Iterator[Need]:
        experiment = self.experiment
        methods = experiment.user_evaluation.methods
        models = {METHODS[method].model for method in methods}
        if POOLED in models:
            yield self.imitation("users pooled", self.length(experiment.dpo))
        own = models & MODELS.keys() - {POOLED, PRM}
        if own:
            soft = any(MODELS[name][0] != "uniform" for name in own)
            yield self.pairs("users " + ("dpo" if own - {PER_USER} else PER_USER), "dpo", experiment.dpo, soft)
        if PRM in models:
            yield self.pairs("users prm", "prm", experiment.prm, True)
        if SOUPS in models:
            # Of what they do with the policies, nothing takes as much as the reward models that score the users' pairs.
            yield self.scoring("users soups", experiment.rollouts.decoding, len(shared_preferences(experiment)))
        if methods and experiment.user_evaluation.prompts:
            decoding = experiment.evaluation.decoding
            yield self.sampling("users answer", decoding, "evaluation.decoding", 1, experiment.dpo.lora)
        if users_cold_started(experiment):
            yield self.cold_start("users cold-start")

    def pairs(self, step: str, name: str, settings: UserTraining, soft: bool) -> Need:
        shape, own, length = self.shape, self.training, self.length(settings)
        # A pair has two texts, and where it has a user, both once more for the generic one.
        texts = 2 * (2 if soft and 0 < settings.alpha < 1 else 1)
        logits = 0 if name == "prm" else 1
        tokens = settings.micro_batch_size * texts * length
        kept = memory.activation_bytes(shape, settings.lora, tokens, length, own.computed)
        kept += logits * memory.head_bytes(shape, tokens, own.computed, 3)
        trained = memory.training_bytes(memory.lora_parameters(shape, settings.lora))
        lowered = (f"{name}.micro_batch_size", f"{name}.max_length")
        return self.need(step, own, lowered, trained=trained, activations=max(kept, logits * self.reference(settings, own)))

    def cold_start(self, step: str) -> Need:
        """Users' pairs scored by reward models, rows fitted on them under the trained policy, and answers of both, in turn."""
        experiment, shape, own = self.experiment, self.shape, self.loaded
        settings, decoding = experiment.dpo, experiment.evaluation.decoding
        scored = self.scoring(step, experiment.rollouts.decoding, len(shared_preferences(experiment)))
        answered = self.sampling(step, decoding, "evaluation.decoding")
        tokens = 2 * min(settings.micro_batch_size, experiment.cold_start.batch_size) * self.length(settings)
        kept = memory.activation_bytes(shape, settings.lora, tokens, self.length(settings), own.computed)
        kept += memory.head_bytes(shape, tokens, own.computed, 3)
        activations = max(scored.activations, kept, self.reference(settings, own))
        frozen = scored.weights - answered.weights
        lowered = (*answered.settings, "dpo.micro_batch_size", "dpo.max_length")
        return self.need(step, own, lowered, frozen=frozen, cache=answered.cache, activations=activations)

    def reference(self, settings: UserTraining, precision: Precision) -> float:
        """What the pass takes that tells how likely responses are under the backbone."""
        tokens, computed = 2 * max(settings.micro_batch_size, REFERRED) * self.length(settings), precision.computed
        return memory.pass_bytes(self.shape, tokens, computed) + memory.head_bytes(self.shape, tokens, computed, 2)

    def pass_size(self, settings: Reward | MT) -> int:
        """Examples of a pass of TRL's trainers on one GPU."""
        own = -(-settings.batch_size // self.place.gpus)
        return min(own, settings.micro_batch_size or own)

    def prompt(self, decoding: Decoding) -> int:
        """Tokens of a prompt, as many as fit the model's context before the longest response."""
        return max(1, min(self.place.prompt, self.shape.context - decoding.max_new_tokens))

    def scored_length(self, decoding: Decoding) -> int:
        """Tokens of the longest text that reward models read."""
        length = self.prompt(decoding) + decoding.max_new_tokens
        return min(length, self.experiment.reward.max_length or length)

    def length(self, settings: UserTraining) -> int:
        return min(settings.max_length, self.shape.context)

    def at_once(self, rows: int) -> int:
        """Texts of a pass without gradients: a CPU takes few at a time."""
        return rows if self.place.on_gpu else min(rows, ROWS)


def _lowered(name: str, settings: Reward | MT) -> tuple[str, ...]:
    return (f"{name}.micro_batch_size" if settings.micro_batch_size else f"{name}.batch_size",)


def fitting(experiment: Experiment, shape: Shape, place: Place, need: Need, available: float) -> str:
    """Return what would make a step fit `available` bytes: its settings, the first that helps halved until it does; or 4 bits."""
    smaller, total = experiment, need.total
    while total > available:
        for setting in need.settings:
            tried = _halved(smaller, setting)
            if (reached := _again(tried, shape, place, need.step).total) < total:
                smaller, total = tried, reached
                break
        else:
            break
    quantized = _quantized(experiment, shape, place, need, available)
    if total > available:
        return quantized or "no setting of it is enough; take a larger GPU or a smaller backbone"
    lowered = [(name, _value(experiment, name), _value(smaller, name)) for name in need.settings]
    parts = [f"{name} from {old} to {new}" for name, old, new in lowered if old != new]
    return f"lower {' and '.join(parts)}{', or ' + quantized if quantized else ''}"


def _quantized(experiment: Experiment, shape: Shape, place: Place, need: Need, available: float) -> str:
    if not (place.on_gpu and need.on_gpu) or experiment.backbone.quantization != "none":
        return ""
    if experiment.backbone.source not in ("path", "hub") or experiment.mistakes.low_precision_baselines:
        return ""
    quantized = changed(experiment, "backbone.quantization", "4bit")
    enough = _again(quantized, shape, place, need.step).total <= available
    return "set backbone.quantization to 4bit" if enough else ""


def _halved(experiment: Experiment, setting: str) -> Experiment:
    """Return the experiment with half of a setting; as it is where it allows none, as RLOO's batches do."""
    value = _value(experiment, setting)
    try:
        return changed(experiment, setting, value // 2) if value > 1 else experiment
    except InputError:
        return experiment


def _again(experiment: Experiment, shape: Shape, place: Place, step: str) -> Need:
    (found,) = [need for need in needs(experiment, shape, place) if need.step == step]
    return found


def changed(experiment: Experiment, setting: str, value: Any) -> Experiment:
    """Return the experiment with another value of a setting such as "evaluation.decoding.batch_size"."""
    raw = experiment.model_dump(mode="json") | {"priced": [], "ablations": {}}
    *path, name = setting.split(".")
    section = raw
    for part in path:
        section = section[part]
    section[name] = value
    return parse(raw, setting)


def _value(experiment: Experiment, setting: str) -> Any:
    found: Any = experiment
    for part in setting.split("."):
        found = getattr(found, part)
    return found

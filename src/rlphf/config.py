"""The configuration of an experiment: one set of pydantic models, from which the JSON schema is generated.

`config/config.yaml`, which `config_file.py` writes, holds every key with a comment; files in `config/experiments/` override some.
Threads, memory, partitions and GPUs are no settings of an experiment: they live in `workflow/profiles/`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from rlphf.ablations import ABLATIONS, Value
from rlphf.errors import InputError
from rlphf.files import digest, read_yaml, write_text
from rlphf.mistakes import ARMS, Mistake
from rlphf.preferences import AXES, PREFERENCES, Preference, axis_of, declare
from rlphf.settings import (
    MT,
    PPO,
    Annotator,
    Backbone,
    PMorl,
    Reward,
    Rollouts,
    Section,
    Testbed,
)
from rlphf.settings_data import Data, Prompts
from rlphf.settings_evaluation import Evaluation
from rlphf.settings_own import SHARES, OwnId, OwnPreference
from rlphf.settings_run import Mistakes, Tracking
from rlphf.settings_soup import Soup
from rlphf.settings_types import Once
from rlphf.settings_users import DPO, PRM, ColdStart, Population, UserData, UserEvaluation, UserModels


class Experiment(Section):
    """A whole experiment."""

    experiment: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name of the experiment; results are written to results/<name>/."
    )
    seed: int = Field(1103, ge=0, lt=2**31, description="Random seed; all randomness is derived from it.")
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        [], description="Seeds over which claims are evaluated, each a whole run; [] for `seed` alone."
    )
    own_preferences: dict[OwnId, OwnPreference] = Field(
        {}, description="Preferences besides the paper's eight, by id; `rlphf new-preference` writes them."
    )
    preferences: list[str] = Field(
        list(PREFERENCES),
        description="Preferences for which an adapter is trained, and a reward model unless rules reward (`ppo.reward`).",
    )
    combination_preferences: list[str] = Field(
        ["P1A", "P1B", "P2A", "P2B", "P3A", "P3B"], description="Preferences whose combinations are evaluated."
    )
    data: Data = Field(Data(), description="Raw preference data.")
    prompts: Prompts = Field(Prompts(), description="Prompts for training and evaluation.")
    testbed: Testbed = Field(Testbed(), description="The generated language.")
    backbone: Backbone = Field(Backbone(), description="The frozen base model.")
    rollouts: Rollouts = Field(Rollouts(), description="Sampled responses for annotation.")
    annotator: Annotator = Field(Annotator(), description="How pairs are labelled.")
    reward: Reward = Field(Reward(), description="Reward models.")
    ppo: PPO = Field(PPO(), description="Policy training.")
    pmorl: PMorl = Field(PMorl(), description="The method P-MORL.")
    mt: MT = Field(MT(), description="The method MT.")
    population: Population = Field(Population(), description="The testbed's users.")
    user_data: UserData = Field(UserData(), description="Users read from raw data.")
    users: UserModels = Field(UserModels(), description="The user models of P-RLHF.")
    dpo: DPO = Field(DPO(), description="P-DPO: a user model trained with a policy.")
    prm: PRM = Field(PRM(), description="P-RM: a user model trained with a reward model.")
    user_evaluation: UserEvaluation = Field(UserEvaluation(), description="Evaluation of methods for individual users.")
    ablations: dict[str, Annotated[list[Value], Once]] = Field(
        {}, description="Settings about users to vary, with their values; each value is a separate run."
    )
    cold_start: ColdStart = Field(ColdStart(), description="New users, for whom few pairs are known.")
    soup: Soup = Field(Soup(), description="Merging of adapters.")
    evaluation: Evaluation = Field(Evaluation(), description="Evaluation and judges.")
    mistakes: Mistakes = Field(Mistakes(), description="Mistakes of the release to make in this run.")
    priced: Annotated[list[Mistake], Once] = Field(
        [], description="Mistakes that are each run as a separate arm, for table `release_bugs`."
    )
    tracking: Tracking = Field(Tracking(), description="Tracking with MLflow.")

    @field_validator("preferences", "combination_preferences")
    @classmethod
    def _known(cls, ids: list[str], info: ValidationInfo) -> list[str]:
        known = [*PREFERENCES, *info.data.get("own_preferences", {})]
        for name in ids:
            if name not in known:
                raise ValueError(f"preference {name!r} is unknown; choose from {', '.join(known)}")
        if len(set(ids)) != len(ids) or not ids:
            raise ValueError("name at least one preference, and each only once")
        return ids

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        missing = [p for p in self.combination_preferences if p not in self.preferences]
        if missing:
            raise ValueError(f"combination_preferences: {missing[0]} is not among preferences, so it would have no adapter")
        if self.seeds and (self.seed not in self.seeds or len(set(self.seeds)) != len(self.seeds)):
            raise ValueError("seeds: name each once, the seed of the tables and figures among them, or none")
        front = self.evaluation.front
        if front and (len(front) != 2 or len(set(front)) != 2 or not set(front) <= set(self.preferences)):
            raise ValueError("evaluation.front: name two of the preferences, or none")
        unused = [p for p in self.soup.weights if p not in self.combination_preferences]
        if unused:
            raise ValueError(f"soup.weights: {unused[0]} is not among combination_preferences, so no soup would use its weight")
        if self.data.validation + self.data.test >= 1:
            raise ValueError("data: validation and test together leave nothing to train on")
        if self.backbone.source == "train" and self.backbone.hidden % (2 * self.backbone.heads):
            raise ValueError("backbone.hidden: each head has to have an even width; take a multiple of 2 x backbone.heads")
        if self.backbone.source in ("path", "hub") and not self.backbone.name:
            raise ValueError(f"backbone.name: needed for source {self.backbone.source}")
        if self.backbone.source == "package" and not (self.backbone.name or ".whl").endswith((".whl", ".gguf")):
            raise ValueError("backbone.name: for source package a file that ends in .whl or .gguf, or null")
        if self.backbone.quantization != "none":
            if self.backbone.source not in ("path", "hub"):
                raise ValueError(f"backbone.quantization: a model of source {self.backbone.source} is not quantized; set none")
            if self.backbone.training_dtype != "float32":
                raise ValueError("backbone.training_dtype: weights of 4 bits compute in bfloat16 as they are; leave it out")
            if self.mistakes.low_precision_baselines or "low_precision_baselines" in self.priced:
                raise ValueError("mistakes.low_precision_baselines: rounds weights, and those of 4 bits cannot be; set none")
        if self.ppo.keep == "best" and self.ppo.algorithm != "ppo":
            raise ValueError("ppo.keep: best needs algorithm: ppo")
        if (self.mistakes.test_selection or "test_selection" in self.priced) and self.ppo.keep != "best":
            raise ValueError("mistakes.test_selection: needs ppo.keep: best, or nothing is selected")
        for mistake in ("random_reward_head", "reward_without_response"):
            if (getattr(self.mistakes, mistake) or mistake in self.priced) and self.ppo.algorithm != "ppo":
                raise ValueError(f"mistakes.{mistake}: is made in our PPO alone; it needs ppo.algorithm: ppo")
        if "people" in self.evaluation.judges and len(self.seeds) > 1:
            raise ValueError("evaluation.judges: people rated the responses of one seed; name one seed, or another judge")
        for mistake in self.priced:
            missing = [name for name in ARMS[mistake].methods if name not in self.evaluation.methods]
            if missing:
                raise ValueError(f"priced: {mistake} needs {missing[0]} among evaluation.methods, to compare with")
        for setting, values in self.ablations.items():
            if setting not in ABLATIONS:
                raise ValueError(f"ablations: {setting!r} cannot be varied; choose from {', '.join(ABLATIONS)}")
            for value in values:
                try:
                    self.varied(setting, value)
                except InputError as error:
                    raise ValueError(str(error)) from None
        if self.user_data.source != "testbed":
            own = [f"user_evaluation.methods: {name}" for name in self.user_evaluation.methods if name.startswith("psoups_")]
            own += [f"ablations: {setting}" for setting in self.ablations if setting.startswith("population.")]
            if own:
                raise ValueError(f"{own[0]} is about the testbed's users, and user_data names others")
        if self.annotator.kind == "reward_model" and not self.annotator.model:
            raise ValueError("annotator.model: needed for kind reward_model")
        for fault in (self._own(), self._real_text(), self._gold(), self._rewarded()):
            if fault:
                raise ValueError(fault)
        return self

    def _own(self) -> str:
        """Return what the experiment's own preferences lack; "" for nothing."""
        for name, own in self.own_preferences.items():
            where = f"own_preferences.{name}"
            if own.axis != axis_of(name):
                return (
                    f"{where}.axis: ids of axis {own.axis} begin with P{AXES.index(own.axis) + 1}; {name} is of {axis_of(name)}"
                )
            if own.rule is None and self.annotator.kind != "reward_model" and name in self._annotated([name]):
                return f"{where}.rule: needed, because annotator.kind {self.annotator.kind} cannot choose its pairs"
            if own.rule is None and self.evaluation.judges[0] == "rules" and name in self.preferences:
                return f"{where}.rule: needed, because the first judge, rules, scores by it"
            if "oracle" in self.evaluation.judges and (own.rule is None or own.rule.measure not in SHARES):
                return f"{where}.rule: the oracle's scores lie in [0, 1]; set a measure whose do, too: {' or '.join(SHARES)}"
            told = [judge for judge in ("llm", "people") if judge in self.evaluation.judges]
            if told and own.judge is None and name in self.combination_preferences:
                return f"{where}.judge: needed, because the judge {told[0]} has to be told of it"
        return ""

    def _real_text(self) -> str:
        """Return what does not go together with the source of the prompts; "" for nothing."""
        source = self.prompts.source
        if (source == "file") != (self.prompts.path is not None):
            return "prompts.path: a file is needed for source file, and for no other"
        if source == "testbed":
            if self.prompts.test_path:
                return "prompts.test_path: needs source questions or file"
            if self.backbone.source in ("hub", "package") and self.user_data.source == "testbed":
                made = f"no model of source {self.backbone.source} writes the testbed's language"
                return f"prompts.source: {made}; set questions or file"
            return ""
        if "oracle" in self.evaluation.judges:
            return f"evaluation.judges: the oracle reads the testbed alone; for prompts.source {source} name gold or rules first"
        if self.annotator.kind == "simulated":
            return f"annotator.kind: the simulated annotator reads the testbed alone; for prompts.source {source} choose another"
        if self.user_data.source == "testbed" and self.user_evaluation.methods:
            return "user_evaluation.methods: the testbed's users need its prompts; set them to [], or name user_data"
        return "priced: mistakes are priced by the oracle, which reads the testbed alone; set it to []" if self.priced else ""

    def _gold(self) -> str:
        """Return what gold reward models, or rules, lack; "" for nothing."""
        if self.ppo.keep_by == "gold" and self.ppo.keep != "best":
            return "ppo.keep_by: gold needs keep: best"
        if not self.evaluation.gold_epochs and self.reward.head == "drawn":
            return "evaluation.gold_epochs: 0 would leave a drawn head as it is; set reward.head: probe, or 1 or more"
        if not self.data.sources and (self.evaluation.gold_raw or self.data.reward_models or self.reward.raw):
            return "data.sources: evaluation.gold_raw, data.reward_models and reward.raw need raw pairs; name their sources"
        learning = [*self.preferences, *(["general"] if "rlhf" in self.evaluation.methods else [])]
        if unknown := [name for name in self.reward.raw if name not in learning]:
            return f"reward.raw: no policy is trained for {unknown[0]}; choose from {', '.join(learning)}"
        if self.annotator.kind != "rule":
            return ""
        if unruled := self._annotated(self._unruled()):
            return f"preferences: {unruled[0]} has no text rule, so annotator.kind: rule cannot serve it"
        if "rlhf" in self.evaluation.methods and "general" not in self.reward.raw:
            return "evaluation.methods: rlhf needs general pairs, and annotator.kind: rule has no rule for them"
        if self._golden() and "general" not in self.evaluation.gold_raw:
            return "evaluation.gold_raw: name general, because annotator.kind: rule makes no general pairs"
        return ""

    def _golden(self) -> bool:
        """Whether a gold reward model judges, or selects checkpoints."""
        return "gold" in self.evaluation.judges or self.ppo.keep_by == "gold"

    def _annotated(self, names: Sequence[str]) -> list[str]:
        """Return those of the preferences `names` whose rollouts are labelled: all but those of which only raw pairs are read."""
        raw = {name for name in self.reward.raw if not self._golden() or name in self.evaluation.gold_raw}
        return [name for name in names if name not in raw]

    def _unruled(self) -> list[str]:
        """Return those of the preferences that have no text rule: two of the paper's, and own ones without."""
        own = {name: preference.rule for name, preference in self.own_preferences.items()}
        return [name for name in self.preferences if name in ("P3C", "P3D") or (name in own and own[name] is None)]

    def _rewarded(self) -> str:
        """Return what does not go together with rewards by rule; "" for nothing."""
        if self.ppo.reward == "model":
            return ""
        if self.reward.raw:
            return "reward.raw: the preferences have no reward models under ppo.reward: rule; set it to []"
        if unruled := self._unruled():
            return f"ppo.reward: rule: {unruled[0]} has no text rule that could reward its policy; leave it out of preferences"
        for mistake in ("random_reward_head", "duplicated_pairs"):
            if getattr(self.mistakes, mistake) or mistake in self.priced:
                return f"mistakes.{mistake}: is made in the preferences' reward models, and ppo.reward: rule has none"
        if inferred := [name for name in self.user_evaluation.methods if name.startswith("psoups_")]:
            return f"user_evaluation.methods: {inferred[0]} needs the preferences' reward models, and ppo.reward: rule has none"
        return ""

    def making(self, mistake: Mistake) -> "Experiment":
        """Return the experiment with one mistake made on purpose."""
        return self.model_copy(update={"mistakes": self.mistakes.model_copy(update={mistake: True}), "priced": []})

    def varied(self, setting: str, value: Value) -> "Experiment":
        """Return the experiment with another value of a setting ("dpo.alpha"); it compares what that changes, and no answers."""
        section, name = setting.split(".")
        raw = self.model_dump(mode="json") | {"ablations": {}, "priced": []}
        raw[section] |= {name: value}
        raw["user_evaluation"] |= {"methods": list(ABLATIONS[setting]), "prompts": 0}
        return parse(raw, f"ablations: {setting}: {value}")


def parse(raw: Any, where: str = "config") -> Experiment:
    """Validate a mapping, and declare its own preferences; raise InputError naming the key, what is wrong and the file."""
    if not isinstance(raw, dict):
        raise InputError(f"{where}: expected a mapping of settings, got {type(raw).__name__}")
    try:
        experiment = Experiment.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = "unknown key; remove it or see config/config.yaml" if first["type"] == "extra_forbidden" else first["msg"]
        raise InputError(f"{where}: {key + ': ' if key else ''}{reason.removeprefix('Value error, ')}") from None
    declare(
        {
            name: Preference(name, own.axis, own.prompt, own.name, own.judge or "")
            for name, own in experiment.own_preferences.items()
        }
    )
    return experiment


def load(path: Path | str) -> Experiment:
    """Read and validate a YAML file (safe loader)."""
    return parse(read_yaml(path)[0], str(path))


def load_layers(paths: Sequence[Path]) -> Experiment:
    """Read YAML files, each laid over the one before key by key, as Snakemake does with --configfile, and validate the whole."""
    return layered([read_yaml(path)[0] for path in paths], str(paths[-1]))


def layered(raws: Sequence[Any], where: str) -> Experiment:
    """Return the experiment of settings that are each laid over those before."""
    whole: Any = {}
    for raw in raws:
        whole = _laid_over(whole, raw) if isinstance(raw, dict) else raw
    return parse(whole, where)


def _laid_over(base: Any, change: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    return {**base, **{key: _laid_over(base.get(key), value) for key, value in change.items()}}


def save(experiment: Experiment, path: Path | str) -> None:
    """Write the whole resolved configuration, unless the file says the same already."""
    text = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    if not Path(path).exists() or Path(path).read_text(encoding="utf-8") != text:
        write_text(path, text)


def config_hash(experiment: Experiment) -> str:
    """Return a short digest of the whole configuration, for tags."""
    return digest(experiment.model_dump(mode="json"))[:12]

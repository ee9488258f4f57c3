"""Sections of the configuration about evaluation: what is compared, and who judges."""

from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from rlphf.derived import PAPER_METHODS
from rlphf.settings import Decoding, Section
from rlphf.settings_types import Count, Once, Positive, Rate, Several, Share, Weight

Judge = Literal["oracle", "gold", "rules", "llm", "people"]
Method = Literal["vb", "rlhf", "pp", "mt", "pmorl", "psoups", "psoups_unprompted", "mod"]


class LLMJudge(Section):
    """A language model as judge, behind the OpenAI-compatible protocol: a local server's or a provider's."""

    base_url: str = Field("http://127.0.0.1:8000/v1", description="Base URL of the server; requests go to its /chat/completions.")
    model: str = Field("gpt-4o-mini", min_length=1, description="Name of the model on the server.")
    key_variable: str = Field(
        "OPENAI_API_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable that holds the API key; a server on this machine needs none.",
    )
    prompts: Positive | None = Field(
        50, description="Number of prompts on which methods are compared, evenly spaced among the evaluated ones; null for all."
    )
    temperature: Weight = Field(0.0, description="Sampling temperature of the judge; 0 is greedy.")
    max_tokens: Positive = Field(256, description="Maximum length of a reply in tokens.")
    attempts: Positive = Field(
        3, description="Maximum number of times that a comparison is requested until a reply contains a verdict."
    )
    max_malformed: Share = Field(
        0.05, description="Maximum share of comparisons without a verdict, which count as ties; with more, the step fails."
    )
    parallel: Positive = Field(4, description="Number of concurrent requests.")
    timeout: Annotated[float, Field(gt=0, le=86_400)] = Field(60.0, description="Timeout of a request in seconds.")
    max_retries: Count = Field(
        4, description="Retries, with growing pauses, when the server is busy, fails or cannot be reached."
    )
    max_seconds: Rate | None = Field(None, description="Stop sending requests after this many seconds; null for no limit.")
    price_in: Weight = Field(0.0, description="Price per million input tokens.")
    price_out: Weight = Field(0.0, description="Price per million output tokens.")
    max_cost: Rate | None = Field(
        None, description="Stop sending requests when a run has cost this much, in the unit of the prices; null for no limit."
    )
    cache: str = Field(
        "judge_cache", min_length=1, description="Folder in which replies are cached; what is cached is not requested again."
    )
    replay: bool = Field(False, description="Take every reply from `cache`, without the network.")

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        _ = parts.port  # Raises ValueError where it is no port.
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected an address such as http://127.0.0.1:8000/v1")
        # The address is in records and messages, so it must hold no secret.
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("name host and path alone; a key belongs into the environment variable of key_variable")
        return url

    @model_validator(mode="after")
    def _priced(self) -> "LLMJudge":
        if self.max_cost is not None and not (self.price_in or self.price_out):
            raise ValueError("max_cost: needs price_in or price_out")
        return self


class Evaluation(Section):
    """Responses on held-out prompts and how they are compared."""

    methods: list[Method] = Field(list(get_args(Method)), description="Methods to compare.")
    front: list[str] = Field(
        [],
        description="Two preferences whose policies are merged with varying weights, from one policy to the other (a front);"
        " [] for none.",
    )
    front_points: Several = Field(11, description="Number of weights on the front, both ends included.")
    judges: list[Judge] = Field(
        ["oracle"],
        description="Judges. The first is the oracle or, where there is none, gold or rules; its scores fill the tables. The"
        " others compare the paper's methods.",
    )
    gold_epochs: Count = Field(
        1,
        description="Training passes of the gold reward models, judge and selector, over their pairs; 0 only with `reward.head:"
        " probe`.",
    )
    gold_raw: Annotated[list[str], Once] = Field(
        [],
        description="Preferences or kinds of pairs (P2A, general, ...) that gold reward models learn from raw pairs; they"
        " learn all others from rollouts.",
    )
    ratings: str | None = Field(None, description="For the judge `people`: the file written by `rlphf judge import`.")
    split: Literal["validation", "test"] = Field("test", description="Split to evaluate on; tune on validation, report on test.")
    samples: Positive = Field(1, description="Responses per prompt, averaged before prompts are resampled for intervals.")
    decoding: Decoding = Field(Decoding(temperature=0.7), description="Decoding parameters, the same for all methods.")
    bootstrap: int = Field(
        2000,
        ge=20,
        le=100_000,
        description="Bootstrap resamples per interval: of prompts and, in tables about users, also of users.",
    )
    llm: LLMJudge = Field(LLMJudge(), description="Settings of the judge `llm`, a language model.")

    @field_validator("methods", "judges")
    @classmethod
    def _once(cls, names: list[str]) -> list[str]:
        if len(set(names)) != len(names) or not names:
            raise ValueError("name at least one, and each only once")
        return names

    @model_validator(mode="after")
    def _judged(self) -> "Evaluation":
        first = self.judges[0]
        if first not in ("oracle", "gold", "rules") or "oracle" in self.judges[1:]:
            raise ValueError("judges: name oracle first, gold or rules; its scores fill the tables of methods and adapters")
        if first != "oracle" and "vb" not in self.methods:
            raise ValueError(f"judges: {first} first needs vb among methods, because its scores are relative to vb's answers")
        if first != "oracle" and self.front:
            raise ValueError("front: needs the judge oracle; set it to []")
        if "people" in self.judges and not self.ratings:
            raise ValueError("ratings: needed for the judge people; rlphf judge import writes it")
        if self.ratings and "people" not in self.judges:
            raise ValueError("ratings: are read by the judge people alone; name it among judges, or leave them out")
        comparing = [name for name in self.judges if name in ("llm", "people") or (name == "gold" and name != self.judges[0])]
        if comparing and len(set(PAPER_METHODS) & set(self.methods)) < 2:
            raise ValueError(
                f"judges: {comparing[0]} compares the paper's methods; name two or more of {', '.join(PAPER_METHODS)}"
            )
        return self

"""Sections of the configuration about evaluation: what is compared, and who judges."""

from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from rlphf.derived import PAPER_METHODS
from rlphf.settings import Count, Decoding, Positive, Rate, Section, Share

Judge = Literal["oracle", "gold", "rules", "llm", "people"]
Method = Literal["vb", "rlhf", "pp", "mt", "pmorl", "psoups", "psoups_unprompted", "mod"]


class LLMJudge(Section):
    """A language model as judge, behind the OpenAI-compatible protocol: a local server's or a provider's."""

    base_url: str = Field("http://127.0.0.1:8000/v1", description="Address of the server; asked is its /chat/completions.")
    model: str = Field("gpt-4o-mini", min_length=1, description="Name of the model, as the server knows it.")
    key_variable: str = Field(
        "OPENAI_API_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable that holds the API key; a server on this machine needs none.",
    )
    prompts: Positive | None = Field(
        50, description="Prompts that methods are compared on, evenly spread over those evaluated; null for all."
    )
    temperature: Annotated[float, Field(ge=0)] = Field(0.0, description="Sampling temperature of the judge; 0 is greedy.")
    max_tokens: Positive = Field(256, description="Longest reply in tokens.")
    attempts: Positive = Field(3, description="How often a comparison is asked until the reply has a verdict.")
    max_malformed: Share = Field(
        0.05, description="Share of comparisons that may end without a verdict, and count as ties; more stop the step."
    )
    parallel: Positive = Field(4, description="Requests under way at once.")
    timeout: Rate = Field(60.0, description="Seconds that a request may take.")
    max_retries: Count = Field(4, description="Further tries, with growing pauses, when the server is busy, broken or away.")
    max_seconds: Rate | None = Field(None, description="Stop asking after this long; null for no limit.")
    price_in: float = Field(0.0, ge=0, description="Price of a million tokens asked.")
    price_out: float = Field(0.0, ge=0, description="Price of a million tokens replied.")
    max_cost: Rate | None = Field(
        None, description="Stop asking when a run has cost this much, in the prices' unit; null for no limit."
    )
    cache: str = Field("judge_cache", min_length=1, description="Folder of the replies; what is there is not asked again.")
    replay: bool = Field(False, description="Take every reply from `cache` and use no network.")

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
        [], description="Two preferences whose policies are interpolated along a front of weights; [] for none."
    )
    front_points: Annotated[int, Field(ge=2)] = Field(11, description="Weights on the front, from one end to the other.")
    judges: list[Judge] = Field(
        ["oracle"],
        description="Who judges: first the oracle, or gold or rules where there is none, whose scores fill the tables; others"
        " compare the paper's methods.",
    )
    gold_epochs: Count = Field(
        1, description="Passes of the judge `gold`, a reward model of its own, over its pairs; 0 with `reward.head: probe` alone."
    )
    gold_raw: list[str] = Field(
        [], description="What gold reward models learn from raw pairs (preferences, general, ...); all else is from rollouts."
    )
    ratings: str | None = Field(None, description="For the judge `people`: file that `rlphf judge import` has written.")
    split: Literal["validation", "test"] = Field("test", description="Topics to evaluate on; tune on validation, report on test.")
    samples: Positive = Field(1, description="Responses per prompt, meaned before prompts are resampled for intervals.")
    decoding: Decoding = Field(Decoding(temperature=0.7), description="One decoding for all methods.")
    bootstrap: Positive = Field(2000, description="Resamples for each interval: of prompts, in tables about users also of users.")
    llm: LLMJudge = Field(LLMJudge(), description="The language model that compares methods where it is asked to.")

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

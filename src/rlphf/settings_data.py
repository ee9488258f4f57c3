"""The sections of the configuration that are about raw preference data, and about the questions that are asked."""

from typing import Literal

from pydantic import Field, model_validator

from rlphf.settings import Positive, Section, Share


class Source(Section):
    """One source of raw preference data."""

    kind: Literal["psoups", "alpaca_eval", "hh_rlhf", "koala", "table", "hub"] = Field(description="Layout of the source.")
    path: str = Field(description="File or folder; for `hub` the name of a data set.")
    preference: str | None = Field(
        None, description="Preference (or user) that the pairs speak for, where the source does not say."
    )
    columns: dict[str, str] = Field({}, description="For `table` and `hub`: {our column: theirs}, e.g. {chosen: better}.")
    split: str | None = Field(None, description="For `hub`: the split to read.")

    @model_validator(mode="after")
    def _read(self) -> "Source":
        kinds = {"preference": ("psoups", "hh_rlhf", "table", "hub"), "columns": ("table", "hub"), "split": ("hub",)}
        for name, reading in kinds.items():
            if getattr(self, name) and self.kind not in reading:
                raise ValueError(f"{name}: is not read for kind {self.kind}, only for {', '.join(reading)}; leave it out")
        return self


class Data(Section):
    """Raw preference data besides the generated testbed, and how all data is split."""

    sources: list[Source] = Field([], description="Raw sources, read in place.")
    on_bad_record: Literal["error", "quarantine"] = Field(
        "error", description="Stop at a bad record, or set it aside and count it."
    )
    validation: Share = Field(0.1, description="Share of the prompts of raw sources that go to validation.")
    test: Share = Field(0.1, description="Share of the prompts of raw sources that go to test.")
    reward_models: list[str] = Field(
        [],
        description="Whom raw pairs speak for (P2A, general, helpful, ...) that gets a reward model trained on them (`raw-P2A`),"
        " which rewards no policy.",
    )


class Prompts(Section):
    """The questions that rollouts, policies and methods answer."""

    source: Literal["testbed", "questions", "file"] = Field(
        "testbed", description="The testbed's, the project's own everyday questions, or those of a file."
    )
    path: str | None = Field(
        None,
        description="For `file`: JSON, JSONL, CSV or Parquet (each maybe .gz) with a field `prompt` or `instruction`, or .txt"
        " with a prompt per line.",
    )
    test_path: str | None = Field(
        None,
        description="For `questions` and `file`: such a file of test prompts, which are left out of the others; null draws them.",
    )
    train: Positive | None = Field(None, description="Training prompts at most, drawn by the seed; null: all that are left.")
    validation: Positive = Field(24, description="Validation prompts of `questions` and `file`: checkpoints are chosen on them.")
    test: Positive = Field(48, description="Test prompts of `questions` and `file`; of `test_path` at most.")

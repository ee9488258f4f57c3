"""The sections of the configuration that are about raw preference data, and about the questions that are asked."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlphf.settings import Section
from rlphf.settings_types import Once, Positive, Share


class Source(Section):
    """One source of raw preference data."""

    kind: Literal["psoups", "alpaca_eval", "hh_rlhf", "koala", "table", "hub"] = Field(description="Format of the source.")
    path: str = Field(min_length=1, description="File or folder; for `hub`, the name of the data set.")
    preference: Annotated[str, Field(pattern=r"\S")] | None = Field(
        None, description="Preference (or user) of the pairs, where the source does not say."
    )
    columns: dict[str, str] = Field({}, description="For `table` and `hub`: column names, {ours: theirs}, e.g. {chosen: better}.")
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
        "error", description="Stop at a bad record with an error, or set it aside and count it."
    )
    validation: Share = Field(0.1, description="Share of the prompts of raw sources in the validation split.")
    test: Share = Field(0.1, description="Share of the prompts of raw sources in the test split.")
    reward_models: Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]], Once] = Field(
        [],
        description="Preferences or kinds of raw pairs (P2A, general, helpful, ...) for each of which a reward model is"
        " trained (`raw-P2A`); these reward no policy.",
    )


class Prompts(Section):
    """The questions that rollouts, policies and methods answer."""

    source: Literal["testbed", "questions", "file"] = Field(
        "testbed", description="The testbed's prompts, the project's own everyday questions, or the prompts of a file."
    )
    path: str | None = Field(
        None,
        description="For `file`: JSON, JSONL, CSV, TSV or Parquet (each optionally .gz) with a field `prompt` or `instruction`,"
        " or .txt with one prompt per line.",
    )
    test_path: str | None = Field(
        None,
        description="For `questions` and `file`: a file of test prompts, in the same formats, which are excluded from"
        " training and validation; null draws the test prompts from the source.",
    )
    train: Positive | None = Field(
        None, description="Maximum number of training prompts, drawn with the seed; null for all that remain."
    )
    validation: Positive = Field(
        24, description="Number of validation prompts for `questions` and `file`; checkpoints are chosen on them."
    )
    test: Positive = Field(48, description="Number of test prompts for `questions` and `file`; with `test_path`, the maximum.")

"""Preferences of an experiment's own: what one is asked for by, and what chooses its pairs and judges its answers."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from rlphf.settings import Section

OwnId = Annotated[str, Field(pattern=r"^P[1-3][E-Z]$")]


def _line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("expected one line of text")
    return text.strip()


Line = Annotated[str, AfterValidator(_line)]


# Measures on the scale of the oracle, beside which alone they can judge.
SHARES = ("sentences_with", "polarity")


class TextRule(Section):
    """A fixed rule for texts, which labels the pairs of a preference and judges answers by it."""

    measure: Literal["sentences_with", "words", "readability", "polarity"] = Field(
        "sentences_with",
        description="Measure: `sentences_with` is the share of sentences that contain one of `words`, `polarity` the"
        " friendliness of tone, both in [0, 1]; `words` is the number of words, `readability` the school grade.",
    )
    words: list[Line] = Field(
        [], description="For `sentences_with`: words or phrases, case-insensitive, each matched as a whole."
    )
    direction: Literal["more", "less"] = Field("more", description="Whether more or less of the measure is better.")

    @model_validator(mode="after")
    def _worded(self) -> "TextRule":
        if (self.measure == "sentences_with") != bool(self.words):
            raise ValueError("words: needed for measure sentences_with, and for no other")
        if any(not any(char.isalnum() for char in word) for word in self.words):
            raise ValueError("words: each needs a letter or a digit")
        return self


class OwnPreference(Section):
    """A preference beside those of the paper, on one of their axes."""

    axis: Literal["expertise", "informativeness", "style"] = Field(
        description="Axis of the preference; the number in its id has to match."
    )
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$", description="One word that names the preference.")
    prompt: Line = Field(description="Preference prompt: the sentence that asks for the preference.")
    rule: TextRule | None = Field(
        None,
        description="Text rule that labels the preference's pairs and judges responses by it; null where annotator.kind is"
        " reward_model, or reward.raw names it.",
    )
    judge: Line | None = Field(
        None, description="Description of the preference for the judges `llm` and `people`, which need it."
    )

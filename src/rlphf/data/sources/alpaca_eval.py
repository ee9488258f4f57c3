"""Pairs out of AlpacaEval: general ones from an annotator's preferences, P2A and P2B ones from concise and verbose answers.

A folder holds outputs/*.json[l][.gz] of {instruction, output, generator} and, maybe, *annotations*.json[l][.gz] of
{instruction, generator_1, generator_2, preference}, where preference - 1 is the probability that the second answer is better.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlphf.data.sources.raw import BadField, Dropped, Pair, Place, Prompt, Raw, convert, number, text
from rlphf.data.sources.rows import files, readable, rows
from rlphf.preferences import GENERAL

_CONCISE, _VERBOSE = "_concise", "_verbose"
_Answers = dict[str, dict[str, tuple[str, Place]]]  # generator -> instruction -> answer and where it stands


def read(path: Path) -> Iterator[Raw]:
    """Yield general pairs, then P2A and P2B pairs. All outputs are in memory meanwhile (805 answers per generator).

    Raises InputError if there is no folder `outputs` in `path`.
    """
    answers: _Answers = {}
    for file in files(path / "outputs"):
        yield from _outputs(file, answers)
    for file in sorted(file for file in path.glob("*annotations*") if readable(file)):
        yield from convert(rows(file), lambda place, record: _general(place, record, answers))
    yield from _lengths(answers)


def _outputs(file: Path, answers: _Answers) -> Iterator[Raw]:
    """Fill `answers`; yield what cannot be used."""

    def make(place: Place, record: dict[str, Any]) -> Prompt | Dropped:
        instruction = text(record, "instruction", blank=False)
        known = answers.setdefault(text(record, "generator", blank=False), {})
        if instruction in known:
            return Dropped(place, None, "second answer of a generator to an instruction")
        known[instruction] = (text(record, "output"), place)
        return Prompt(place, instruction)

    return (raw for raw in convert(rows(file), make) if not isinstance(raw, Prompt))


def _general(place: Place, record: dict[str, Any], answers: _Answers) -> Pair | Dropped:
    instruction = text(record, "instruction", blank=False)
    first, second = (answers.get(text(record, f"generator_{i}", blank=False), {}).get(instruction) for i in (1, 2))
    if record.get("preference", 0) is None:
        return Dropped(place, GENERAL, "annotator gave no preference")
    preference = number(record, "preference")
    if not 1 <= preference <= 2:
        raise BadField("preference", f"is {preference}, expected 1.0 (first answer) to 2.0 (second answer)")
    if first is None or second is None:
        return Dropped(place, GENERAL, "an answer is missing")
    if preference == 1.5:
        return Dropped(place, GENERAL, "tie")
    if preference > 1.5:
        return Pair(place, instruction, second[0], first[0], GENERAL, probability=preference - 1)
    return Pair(place, instruction, first[0], second[0], GENERAL, probability=2 - preference)


def _lengths(answers: _Answers) -> Iterator[Pair | Dropped]:
    """Yield P2A pairs (a concise answer chosen over the others of its generator) and P2B pairs (a verbose one).

    A pair counts only if its texts do what they were asked for: the chosen one has to be the shorter, or the longer, in
    characters (ours).
    """
    for generator in sorted(answers):
        family = generator.removesuffix(_CONCISE).removesuffix(_VERBOSE)
        if generator == family:
            continue
        concise = generator.endswith(_CONCISE)
        preference, other = ("P2A", family + _VERBOSE) if concise else ("P2B", family + _CONCISE)
        for instruction, (chosen, place) in answers[generator].items():
            for name in (family, other):
                if name not in answers:
                    continue
                rejected = answers[name].get(instruction)
                if rejected is None:
                    yield Dropped(place, preference, "an answer is missing")
                elif not chosen or not rejected[0]:
                    yield Dropped(place, preference, "empty answer")
                elif concise and len(chosen) >= len(rejected[0]):
                    yield Dropped(place, preference, "concise answer is not shorter")
                elif not concise and len(chosen) <= len(rejected[0]):
                    yield Dropped(place, preference, "verbose answer is not longer")
                else:
                    yield Pair(place, instruction, chosen, rejected[0], preference)

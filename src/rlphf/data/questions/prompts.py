"""The prompts of an experiment, split: the testbed's, the project's own everyday questions, or those of files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from rlphf.config import Experiment, load
from rlphf.data.dedup import normalise
from rlphf.data.records import PROMPTS, SPLITS, check_prompts, prompt_id
from rlphf.data.sources.raw import Bad, BadField, Place, convert, text
from rlphf.data.sources.rows import SUFFIXES, rows
from rlphf.data.splits import check_leaks, group
from rlphf.errors import InputError
from rlphf.files import check_file, write_parquet
from rlphf.seeds import derive
from rlphf.settings_data import Prompts
from rlphf.testbed import prompts as testbed
from rlphf.tracking.record import step

QUESTIONS = Path(__file__).parent / "questions.yaml"
# What files call a prompt: Koala's, and AlpacaEval's.
FIELDS = ("prompt", "instruction")


def everyday_questions() -> list[str]:
    """Return the project's own questions, theme by theme."""
    themes: dict[str, list[str]] = yaml.safe_load(QUESTIONS.read_text(encoding="utf-8"))
    return [question for questions in themes.values() for question in questions]


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a file: a .txt with one per line, or records with a field "prompt" or "instruction".

    Raises InputError, naming the file, and line and field of a bad record, also when there is no prompt at all.
    """
    found = _lines(path) if path.suffix == ".txt" else _records(path)
    if not found:
        raise InputError(f"{path}: holds no prompts; name a file with at least one")
    return found


def _lines(path: Path) -> list[str]:
    check_file(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None
    return [line.strip() for line in lines if normalise(line)]


def _records(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; name one of {', '.join(SUFFIXES)} (each maybe .gz), or .txt")

    def make(place: Place, record: dict[str, Any]) -> str:
        named = [field for field in FIELDS if field in record]
        if not named:
            raise BadField(FIELDS[0], f"is missing, and so is {FIELDS[1]}; the record has {', '.join(map(str, record))}")
        return text(record, named[0], blank=False)

    found = []
    for prompt in convert(rows(path), make):
        if isinstance(prompt, Bad):
            raise prompt.error("correct it")
        found.append(prompt)
    return found


def divide(prompts: Sequence[str], held_out: Sequence[str] | None, settings: Prompts, seed: int, where: str) -> pa.Table:
    """Return a PROMPTS table of `prompts`, split by `settings`; test prompts come from `held_out` where it is given.

    Prompts that agree after `group` are one, and those of `held_out` are left out of the others. What goes where is drawn by
    `seed` and the prompt's own text: the order of the prompts changes only the order of the rows. Raises InputError, beginning
    with `where`, when there are too few.
    """
    known = _drawn(prompts, seed)
    if held_out is None:
        tested, rest = _cut(known, settings.test)
    else:
        tested = _drawn(held_out, seed)
        rest = {key: prompt for key, prompt in known.items() if key not in tested}
        if not rest:
            raise InputError(f"{where}: every prompt is a test prompt of {settings.test_path}, too; add others to train on")
    validation, train = _cut(rest, settings.validation)
    if not train:
        raise InputError(
            f"{where}: {len(known)} different prompts, and none is left to train on; lower prompts.validation or prompts.test"
        )
    parts = {"train": _cut(train, settings.train)[0], "validation": validation, "test": _cut(tested, settings.test)[0]}
    split_of = {prompt: split for split in SPLITS for prompt in parts[split].values()}
    order = dict.fromkeys([*prompts, *(held_out or [])])
    table = [
        {"id": prompt_id(prompt), "prompt": prompt, "topic": None, "source": settings.source, "split": split_of[prompt]}
        for prompt in order
        if prompt in split_of
    ]
    return pa.Table.from_pylist(table, PROMPTS)


def _drawn(prompts: Sequence[str], seed: int) -> dict[str, str]:
    """Return {group: first prompt of it} in an order that is drawn by the seed and the group alone."""
    first: dict[str, str] = {}
    for prompt in prompts:
        first.setdefault(group(prompt), prompt)
    return {key: first[key] for key in sorted(first, key=lambda key: (derive(seed, "prompts", key), key))}


def _cut(prompts: dict[str, str], count: int | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return the first `count` prompts, or all for None, and the rest."""
    items = list(prompts.items())
    count = len(items) if count is None else count
    return dict(items[:count]), dict(items[count:])


def experiment_prompts(experiment: Experiment) -> pa.Table:
    """Return the PROMPTS table of an experiment, checked."""
    settings = experiment.prompts
    if settings.source == "testbed":
        return testbed.prompts(experiment.testbed, experiment.seed)
    where = settings.path or "prompts.source"
    found = read_prompts(Path(where)) if settings.source == "file" else everyday_questions()
    held_out = read_prompts(Path(settings.test_path)) if settings.test_path else None
    table = divide(found, held_out, settings, experiment.seed, where)
    check_prompts(table, where)
    check_leaks(table)
    return table


def prompts_step(config: Path, out: Path) -> None:
    """Write the experiment's prompts with their splits to `out`."""
    experiment = load(config)
    settings = experiment.prompts
    # A file that is missing is named below, by what reads it.
    inputs = {path: Path(path) for path in (settings.path, settings.test_path) if path and Path(path).is_file()}
    used = experiment.testbed if settings.source == "testbed" else settings
    with step("prompts", out.parent, experiment, used, inputs) as run:
        table = experiment_prompts(experiment)
        write_parquet(out, table)
        run.log({split: table["split"].to_pylist().count(split) for split in SPLITS})
        run.output(out)

"""Judge "people": questions as a sheet for raters that does not say who answered, and their verdicts read back."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from rlphf.config import load
from rlphf.errors import InputError
from rlphf.evaluate.judges.comparisons import ASKED, ORDERS, RATED, SORTED, Question, check_comparisons, questions, row
from rlphf.evaluate.judges.inputs import named, read_inputs
from rlphf.evaluate.judges.templates.texts import criterion
from rlphf.evaluate.table_files import as_text, from_text
from rlphf.files import digest, write_parquet, write_text
from rlphf.seeds import derive
from rlphf.tracking.record import step

RATINGS = ("item", "question", "criterion", "response_1", "response_2", "verdict")
# `shown` ties an item to the responses that it shows, so that no other run's are taken for rated.
KEY = ("item", *ASKED, "shown")
# Hexadecimal digits of a sheet's name in those of its items.
SHEET = 8
# About response_1 against response_2.
VERDICTS = {"1": 1, "2": -1, "tie": 0}

Line = tuple[int, dict[str, str]]


def sheets(found: Sequence[Question], seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of ratings.csv and key.csv: each comparison in one of its two orders, shuffled; both drawn from the seed.

    Items are numbered after the shuffle, so that their names tell nothing of methods. Each has its sheet's digest in its name, so
    that another export's ratings do not fit the key, whatever raters make of the texts.
    """
    rng = Random(derive(seed, "judge", "people"))
    pairs: dict[tuple, dict[str, Question]] = {}
    for question in found:
        about = tuple(value for name, value in question.columns.items() if name != "first")
        pairs.setdefault(about, {})[question.first] = question
    drawn = [orders[rng.choice(ORDERS)] for orders in pairs.values()]
    rng.shuffle(drawn)
    sheet = digest([[*question.columns.values(), question.texts] for question in drawn])[:SHEET]
    ratings, key = [], []
    for number, question in enumerate(drawn, start=1):
        item, (first, second) = f"item-{sheet}-{number:0{len(str(len(drawn)))}d}", question.shown
        texts = map(as_text, (question.prompt, criterion(question.criterion), first, second))
        ratings.append(dict(zip(RATINGS, (item, *texts, ""), strict=True)))
        cells = question.columns | {"shown": question.texts}
        key.append({"item": item} | {name: as_text(str(value)) for name, value in cells.items()})
    return ratings, key


def comparisons(key: Path, ratings: Path) -> pa.Table:
    """Return the RATED table of a filled sheet.

    Raises InputError, naming file, line and field, unless every item of the key has one known verdict.
    """
    items: dict[str, dict[str, Any]] = {}
    for line, cells in _lines(key, KEY):
        item, sample = cells.pop("item"), cells["sample"]
        if item in items:
            raise InputError(f"{key}: line {line}, item: {item!r} occurs twice; export the sheet again")
        if not re.fullmatch("[0-9]{1,9}", sample):
            raise InputError(f"{key}: line {line}, sample: {sample!r} is no number; export the sheet again")
        items[item] = {name: from_text(cell) for name, cell in cells.items()} | {"sample": int(sample)}
    rated: dict[str, int] = {}
    for line, cells in _lines(ratings, RATINGS):
        item, verdict = cells["item"], cells["verdict"].strip().lower()
        if item not in items:
            raise InputError(f"{ratings}: line {line}, item: {item!r} is not in {key}; take the key that was exported with it")
        if item in rated:
            raise InputError(f"{ratings}: line {line}, item: {item!r} occurs twice; keep one")
        if verdict not in VERDICTS:
            fault = f"{cells['verdict']!r} is unknown" if verdict else "is empty"
            raise InputError(f"{ratings}: line {line}, verdict: {fault}; write 1, 2 or tie")
        rated[item] = VERDICTS[verdict]
    missing = [item for item in items if item not in rated]
    if missing:
        raise InputError(f"{ratings}: item: {missing[0]!r} is missing ({len(missing)} of {len(items)} are); rate all items")
    rows = [row(columns, rated[item]) for item, columns in items.items()]
    table = pa.Table.from_pylist(rows, RATED)
    check_comparisons(table.drop_columns("shown"), str(key))
    return table.sort_by([(name, "ascending") for name in SORTED])


def export_step(config: Path, prompts: Path, responses: Sequence[Path], out: Path, prompt_count: int | None = None) -> None:
    """Write ratings.csv, the sheet for raters, and key.csv, which is not for them, to the folder `out`.

    `prompt_count` is on how many prompts all methods are compared; left out, on as many as the judge `llm`.
    """
    experiment = load(config)
    sheet, key = out / "ratings.csv", out / "key.csv"
    for path in (sheet, key):
        if path.exists():
            raise InputError(f"{path}: exists, and may be filled in; choose another folder, or remove it")
    with step("judge export", out, experiment, experiment.evaluation, named(prompts, responses), {"judge": "people"}) as run:
        found = questions(experiment, *read_inputs(prompts, responses), prompt_count)
        rows, keys = sheets(found, experiment.seed)
        write_text(key, _csv(KEY, keys))
        write_text(sheet, _csv(RATINGS, rows))
        run.log({"items": len(rows)})
        run.output(sheet, key)


def import_step(key: Path, ratings: Path, out: Path) -> None:
    """Write the verdicts of a filled ratings.csv to `out`, in a folder of its own."""
    with step("judge import", out.parent, inputs={"key": key, "ratings": ratings}, tags={"judge": "people"}) as run:
        table = comparisons(key, ratings)
        write_parquet(out, table)
        run.log({"comparisons": table.num_rows, "malformed": 0})
        run.output(out)


def _csv(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _lines(path: Path, names: Sequence[str]) -> Iterator[Line]:
    """Yield (line on which it begins, row) of a CSV file with exactly these columns; blank lines are left out."""
    try:
        # Spreadsheets put a mark in front of UTF-8, and texts have lines of their own.
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    reader, start = csv.reader(io.StringIO(text, newline=""), strict=True), 1
    try:
        for number, cells in enumerate(reader):
            if number == 0 and tuple(cells) != tuple(names):
                raise InputError(f"{path}: line 1: columns are {', '.join(cells)}; expected {', '.join(names)}")
            if number and cells:
                if len(cells) != len(names):
                    raise InputError(f"{path}: line {start}: has {len(cells)} fields; expected {len(names)}")
                yield start, dict(zip(names, cells, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: line {start}: cannot be read as CSV ({error})") from None
    if start == 1:
        raise InputError(f"{path}: is empty; expected the columns {', '.join(names)}")

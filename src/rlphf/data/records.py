"""The three tables that steps exchange: prompts, pairs and responses, as Arrow schemas with their rules and ids."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from rlphf.errors import InputError
from rlphf.files import digest, read_parquet

SPLITS = ("train", "validation", "test")

PROMPTS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),  # The question, without any preference's prompt.
        pa.field("topic", pa.string()),  # Topic of a testbed prompt, else null.
        pa.field("source", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)

PAIRS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),  # The question, without any preference's prompt.
        pa.field("chosen", pa.string(), nullable=False),
        pa.field("rejected", pa.string(), nullable=False),
        pa.field("preference", pa.string(), nullable=False),  # Preference id, "general", or the name of a kind of user.
        pa.field("user", pa.int64()),  # Id of the user who chose, else null.
        pa.field("probability", pa.float64()),  # Annotator's probability of this choice, where it is known.
        pa.field("source", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)

# A reward model's scores of pairs; the pairs' order and texts are in their own files.
PAIR_SCORES = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("chosen", pa.float64()),
        ("rejected", pa.float64()),
        ("probability", pa.float64()),  # As in PAIRS.
    ]
)

RESPONSES = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("combination", pa.string(), nullable=False),  # "P1A-P2B-P3A", one preference, or "" for none.
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("finished", pa.bool_(), nullable=False),  # Whether the response ended by itself within the limit.
    ]
)


def prompt_id(prompt: str) -> str:
    """Return the id of a prompt: 20 hexadecimal digits of the SHA-256 of its text."""
    return digest(["prompt", prompt])[:20]


def correctness(margin: float) -> float:
    """Return 1 for a pair whose chosen response scores above the rejected one, by `margin`; 1/2 for a tie, 0 otherwise."""
    return 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0


def pair_id(prompt: str, chosen: str, rejected: str, preference: str, user: int | None = None) -> str:
    """Return the id of a pair: 20 hexadecimal digits of the SHA-256 of what it says (not of its source or split)."""
    return digest(["pair", prompt, chosen, rejected, preference, user])[:20]


def check_prompts(table: pa.Table, where: str) -> None:
    """Raise InputError, beginning with `where` and naming row and column, if `table` breaks a rule of PROMPTS."""
    conform(table, PROMPTS, where)
    filled(table, ("id", "prompt", "source"), where)
    _known_split(table, where)
    unique(table, ("id",), where)


def check_pairs(table: pa.Table, where: str) -> None:
    """Raise InputError, beginning with `where` and naming row and column, if `table` breaks a rule of PAIRS.

    Texts are not blank, chosen and rejected differ, probabilities lie in (0, 1] or are null, ids are unique.
    """
    conform(table, PAIRS, where)
    filled(table, ("id", "prompt", "chosen", "rejected", "preference", "source"), where)
    _known_split(table, where)
    unique(table, ("id",), where)
    refuse(pc.equal(table["chosen"], table["rejected"]), where, "rejected", "equals chosen; drop the pair")
    probability = table["probability"]
    # NaN compares false with everything, so it is refused too.
    outside = pc.invert(pc.and_(pc.greater(probability, 0.0), pc.less_equal(probability, 1.0)))
    refuse(outside, where, "probability", "is not in (0, 1]; use null where it is not known")


def read_pairs(paths: Sequence[Path]) -> list[dict]:
    """Return the rows of all files of PAIRS; raise InputError as `check_pairs` does."""
    rows = []
    for path in paths:
        table = read_parquet(path, PAIRS)
        check_pairs(table, str(path))
        rows += table.to_pylist()
    return rows


def check_responses(table: pa.Table, where: str) -> None:
    """Raise InputError, beginning with `where` and naming row and column, if `table` breaks a rule of RESPONSES.

    A response may be empty: a policy is free to say nothing.
    """
    conform(table, RESPONSES, where)
    filled(table, ("prompt_id", "method"), where)
    for name in ("sample", "tokens"):
        refuse(pc.less(table[name], 0), where, name, "is negative")
    unique(table, ("prompt_id", "method", "combination", "sample"), where)


def conform(table: pa.Table, schema: pa.Schema, where: str) -> None:
    """Raise InputError if a column of `schema` is missing, has another type, or is null where it must not be."""
    for field in schema:
        if field.name not in table.column_names:
            raise InputError(f"{where}: column {field.name} is missing; expected {', '.join(schema.names)}")
        if table[field.name].type != field.type:
            raise InputError(f"{where}: column {field.name}: is {table[field.name].type}, expected {field.type}")
        if not field.nullable:
            refuse(pc.is_null(table[field.name]), where, field.name, "is null; give it a value")


def filled(table: pa.Table, names: Iterable[str], where: str) -> None:
    """Raise InputError if a text of the columns `names` is blank."""
    for name in names:
        refuse(pc.equal(pc.utf8_trim_whitespace(table[name]), ""), where, name, "is empty; fill it or drop the row")


def _known_split(table: pa.Table, where: str) -> None:
    unknown = pc.invert(pc.is_in(table["split"], value_set=pa.array(SPLITS)))
    refuse(unknown, where, "split", f"is unknown; choose from {', '.join(SPLITS)}")


def unique(table: pa.Table, names: tuple[str, ...], where: str) -> None:
    """Raise InputError if two rows agree in all columns `names`."""
    counts = table.group_by(list(names)).aggregate([([], "count_all")])
    repeated = counts.filter(pc.greater(counts["count_all"], 1))
    if repeated.num_rows:
        value = ", ".join(str(repeated[name][0]) for name in names)
        raise InputError(f"{where}: {', '.join(names)}: {value!r} occurs {repeated['count_all'][0]} times; keep one")


def refuse(bad: pa.ChunkedArray, where: str, name: str, reason: str) -> None:
    """Raise InputError for the first row in which `bad` is true; `name` is the column and `reason` what is wrong with it."""
    row = pc.index(bad, True).as_py()
    if row >= 0:
        raise InputError(f"{where}: row {row + 1}, column {name}: {reason}")

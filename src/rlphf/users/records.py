"""The tables that steps about users exchange, besides users and pairs; no model is needed to read or write them."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from rlphf.data.records import correctness, refuse, unique
from rlphf.errors import InputError
from rlphf.files import read_parquet, write_parquet
from rlphf.tracking.record import Run

# The files of a saved user model.
TENSORS, ABOUT = "user_model.safetensors", "user_model.json"
TEXTS = pa.schema([("id", pa.int64()), ("text", pa.string())])
# Beside the soups of users: what each is asked for, in columns id and text.
ASKED = "asked.parquet"

# The margins of a held-out pair: its user's own and the generic user's. Above 0 the pair is ordered correctly.
SCORED = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("user", pa.int64()),
        ("own", pa.float64()),
        ("generic", pa.float64()),
        ("probability", pa.float64()),
    ]
)

_KEYS = [
    pa.field("prompt_id", pa.string(), nullable=False),
    pa.field("method", pa.string(), nullable=False),
    pa.field("user", pa.int64(), nullable=False),
    pa.field("sample", pa.int32(), nullable=False),
]
ANSWERS = pa.schema(
    [
        *_KEYS,
        pa.field("response", pa.string(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("finished", pa.bool_(), nullable=False),
    ]
)
_JUDGED = [
    pa.field("score", pa.float64(), nullable=False),  # In [0, 1], the user's weighted mean over the preferences.
    pa.field("helpfulness", pa.float64(), nullable=False),
]
USER_SCORES = pa.schema([*_KEYS, *_JUDGED])
# `pairs` is the number of the user's own pairs that the method has seen.
COLD_SCORES = pa.schema([*_KEYS, pa.field("pairs", pa.int64(), nullable=False), *_JUDGED])


def texts_by_user(path: Path, told: bool = False) -> dict[int, str | None]:
    """Return users' texts by id from a Parquet file with the columns id and text.

    Raises InputError for an id that is missing, negative, or there twice, and where a model is to be `told` of users and none of
    them has a text: its prompts would be those of a model that is not.
    """
    table = read_parquet(path, TEXTS)
    refuse(pc.fill_null(pc.less(table["id"], 0), True), str(path), "id", "is no user id; ids are whole numbers from 1 on")
    unique(table, ("id",), str(path))
    texts = dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    if told and not any(text and text.strip() for text in texts.values()):
        raise InputError(f"{path}: no user has a text; give users texts, or leave out the methods and models that read them")
    return texts


def write_margins(
    path: Path, rows: Sequence[dict], own: Sequence[float], generic: Sequence[float], run: Run, name: str = ""
) -> Path:
    """Write the margins of the pairs `rows` (of PAIRS), for their own users and for the generic one, to `path`; return it.

    Logs the share of each split that is ordered correctly, a tie counting half, under names that begin with `name`.
    """
    columns = {column: [row[column] for row in rows] for column in ("id", "split", "probability")}
    owners = [row["user"] or 0 for row in rows]
    table = pa.table({**columns, "user": owners, "own": list(own), "generic": list(generic)}).select(SCORED.names).cast(SCORED)
    write_parquet(path, table)
    for split in sorted(set(columns["split"])):
        index = [i for i, found in enumerate(columns["split"]) if found == split]
        for kind, values in (("own", own), ("generic", generic)):
            run.log({f"{name}{split}_{kind}_accuracy": sum(correctness(values[i]) for i in index) / len(index)})
    return path

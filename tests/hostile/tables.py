"""The corpus of hostile tables: Parquet files of every kind, and replies of a judge that were kept beside them."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tests.hostile.cases import PLACES, Case, Plant, at, broken_json_config, content, named, texts

from rlphf.data.records import PAIRS, PROMPTS, RESPONSES

PROMPT = {"id": "q", "prompt": "Why?", "topic": None, "source": "s", "split": "test"}
RESPONSE = {"prompt_id": "q", "method": "vb", "combination": "", "sample": 0, "response": "So.", "tokens": 1, "finished": True}
PAIR = {"id": "p", "prompt": "Why?", "chosen": "So.", "rejected": "No.", "preference": "P1A", "user": 1, "probability": 0.5}
PAIR |= {"source": "s", "split": "train"}
CONFIG = json.dumps({"experiment": "mine", "evaluation": {"methods": ["vb", "pp"]}})
JUDGE = ("--config", "config.yaml", "--prompts", "prompts.parquet", "--responses", "responses.parquet", "--out", "out/s.parquet")
TEXTS = pa.schema([(name, pa.string()) for name in ("prompt", "chosen", "rejected")])


def parquet(rows: list[dict[str, Any]], schema: pa.Schema | None = None, **options: Any) -> bytes:
    """Return rows as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink, **options)
    return sink.getvalue().to_pybytes()


def broken_parquet(row: dict[str, Any], schema: pa.Schema, field: str) -> dict[str, bytes]:
    """Return {fault: bytes} of files that are no table of `schema`; `field` is one of its texts."""
    good = parquet([row], schema)
    table = pa.Table.from_pylist([row], schema)
    (footer,) = struct.unpack("<I", good[-8:-4])
    bad_text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(struct.pack("<ii", 0, 2)), pa.py_buffer(b"\xff\xfe")])
    place = schema.names.index(field)
    sink = pa.BufferOutputStream()
    pq.write_table(table.set_column(place, schema.field(field), pa.chunked_array([bad_text])), sink)
    twice = pa.BufferOutputStream()
    pq.write_table(table.append_column(field, table[field]), twice)
    return {
        "empty": b"",
        "JSON": json.dumps(row).encode(),
        "a magic number alone": b"PAR1",
        "cut off": good[: len(good) // 2],
        "without its end": good[:-8],
        "a footer of 2 GB": good[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1",
        "a footer of nothing": good[:-8] + struct.pack("<I", 0) + b"PAR1",
        "a footer of zeros": good[: -8 - footer] + bytes(footer) + good[-8:],
        "a footer of 255s": good[: -8 - footer] + b"\xff" * footer + good[-8:],
        "pages of zeros": good[:4] + bytes(len(good) - footer - 12) + good[-8 - footer :],
        "pages of 255s": good[:4] + b"\xff" * (len(good) - footer - 12) + good[-8 - footer :],
        "another table": parquet([{"a": 1}]),
        "no columns": parquet([{}]),
        "a column twice": twice.getvalue().to_pybytes(),
        "bad UTF-8": sink.getvalue().to_pybytes(),
        "a number for a text": parquet([{**row, field: 1.5}]),
        "a list for a text": parquet([{**row, field: ["a"]}]),
        "an object for a text": parquet([{**row, field: {"a": "b"}}]),
        "null for a text": parquet([{**row, field: None}]),
    }


def tables() -> Iterator[Case]:
    """Yield the cases of Parquet files: raw ones, and those that steps exchange."""
    source = {"data": {"sources": [{"kind": "table", "path": "t.parquet"}], "validation": 0, "test": 0}}
    raw = broken_parquet(
        {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
        pa.schema([(n, pa.string()) for n in ("prompt", "chosen", "rejected")]),
        "chosen",
    )
    beside: dict[str, str | bytes] = {"config.yaml": json.dumps({"experiment": "mine", **source})}
    prepare = ("data", "prepare", "--config", "config.yaml", "--out", "out")
    yield from named("raw Parquet", prepare, "t.parquet", texts(raw), beside=beside)

    beside = {"config.yaml": CONFIG, "prompts.parquet": parquet([PROMPT], PROMPTS)}
    faults = PLACES | texts(broken_parquet(RESPONSE, RESPONSES, "response"))
    wrong = {
        "a negative sample": {"sample": -1},
        "negative tokens": {"tokens": -1},
        "an unknown prompt": {"prompt_id": "../../x"},
        "an empty method": {"method": " "},
    }
    faults |= {what: content(parquet([{**RESPONSE, **more}], RESPONSES)) for what, more in wrong.items()}
    faults["a response twice"] = content(parquet([RESPONSE] * 2, RESPONSES))
    yield from named("responses", ("judge", "rules", *JUDGE), "responses.parquet", faults, beside=beside)
    beside = {"config.yaml": CONFIG, "responses.parquet": parquet([RESPONSE], RESPONSES)}
    faults = PLACES | texts(broken_parquet(PROMPT, PROMPTS, "prompt"))
    wrong = {"an unknown split": {"split": "../x"}, "an empty prompt": {"prompt": ""}, "an empty id": {"id": "\t"}}
    faults |= {what: content(parquet([{**PROMPT, **more}], PROMPTS)) for what, more in wrong.items()}
    faults["a prompt twice"] = content(parquet([PROMPT] * 2, PROMPTS))
    yield from named("prompts", ("judge", "rules", *JUDGE), "prompts.parquet", faults, beside=beside)
    faults = texts(broken_parquet({**PROMPT, "topic": "x"}, PROMPTS, "id")) | {
        "no topic": content(parquet([PROMPT], PROMPTS)),
    }
    yield from named("prompts of the testbed", ("judge", "oracle", *JUDGE), "prompts.parquet", faults, beside=beside)
    draw = ("users", "pairs", *JUDGE[:-1], "out")
    yield from named("prompts for users", draw, "prompts.parquet", faults, beside=beside)
    beside = {"config.yaml": CONFIG, "b/config.json": "{}"}
    train = (
        "users",
        "train",
        "--config",
        "config.yaml",
        "--model",
        "dpo",
        "--pairs",
        "pairs.parquet",
        "--backbone",
        "b",
        "--out",
        "out",
    )
    faults = PLACES | texts(broken_parquet(PAIR, PAIRS, "chosen"))
    wrong = {
        "no training pair": {"split": "test"},
        "an unknown split": {"split": "../x"},
        "a NaN probability": {"probability": float("nan")},
        "an infinite probability": {"probability": float("inf")},
        "a negative user": {"user": -5},
        "an empty prompt": {"prompt": ""},
        "equal answers": {"rejected": "So."},
    }
    faults |= {what: content(parquet([{**PAIR, **more}], PAIRS)) for what, more in wrong.items()}
    yield from named("pairs", train, "pairs.parquet", faults, beside=beside)
    yield Case("responses", "110 million rows in a few kilobytes", ("judge", "rules", *JUDGE), _many_rows, limited=True)


def _many_rows(folder: Path) -> None:
    """Write a table that declares more rows than any memory holds tables of."""
    for name, data in {"config.yaml": CONFIG.encode(), "prompts.parquet": parquet([PROMPT], PROMPTS)}.items():
        content(data)(folder / name)
    part = pa.table({"prompt_id": pa.nulls(10**7)})
    with pq.ParquetWriter(folder / "responses.parquet", part.schema) as writer:
        for _ in range(11):
            writer.write_table(part, row_group_size=10**7)


def replies() -> Iterator[Case]:
    """Yield the cases of replies of a judge that were kept, in place of which `{}` stands."""
    kept: dict[str, Any] = {"text": "A", "prompt_tokens": 1, "completion_tokens": 1}
    wrong: dict[str, Any] = {
        "a list": [kept],
        "no text": {name: value for name, value in kept.items() if name != "text"},
        "a number for its text": {**kept, "text": 1},
        "true for its tokens": {**kept, "prompt_tokens": True},
        "NaN for its tokens": {**kept, "prompt_tokens": float("nan")},
        "an unknown field": {**kept, "__class__": "x"},
    }
    faults = {"a folder": PLACES["a folder"], "a pipe": PLACES["a pipe"], "unreadable": PLACES["unreadable"]}
    faults |= texts(broken_json_config()) | {what: content(json.dumps(data)) for what, data in wrong.items()}
    for fault, plant in faults.items():
        yield Case("reply of a judge", fault, ("judge", "llm", *JUDGE), _asked(plant))


def _asked(plant: Plant) -> Callable[[Path], None]:
    """Return what writes the inputs of a judge, and a fault in place of the reply to the first question."""
    from rlphf.config import parse
    from rlphf.evaluate.judges.comparisons import questions
    from rlphf.evaluate.judges.replies import kept_as, messages
    from rlphf.evaluate.judges.templates.texts import comparison

    llm = {"replay": True, "cache": "kept", "attempts": 1}
    settings = {"experiment": "mine", "preferences": ["P1A"], "combination_preferences": ["P1A"]}
    settings |= {"evaluation": {"methods": ["vb", "pp"], "llm": llm}}
    rows = [{**RESPONSE, "method": method, "combination": "P1A"} for method in ("vb", "pp")]
    tables = {"r": pa.Table.from_pylist(rows, RESPONSES)}
    experiment = parse(settings)
    first = questions(experiment, pa.Table.from_pylist([PROMPT], PROMPTS), tables)[0]
    sent = messages(comparison(first.prompt, first.criterion, *first.shown))
    files: dict[str, str | bytes] = {"config.yaml": json.dumps(settings), "prompts.parquet": parquet([PROMPT], PROMPTS)}
    files["responses.parquet"] = parquet(rows, RESPONSES)
    return at(str(kept_as(experiment.evaluation.llm, sent, 0)), plant, files)


def table_cases() -> list[Case]:
    """Return all cases of tables and of replies."""
    return [*tables(), *replies()]

"""The corpus of hostile records: raw sources, users' sources, pairs of a person; and what is read though it looks hostile."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.hostile.cases import HUGE, LONG, PLACES, Case, Plant, bomb, broken_json, config, content, field_faults, named, texts

DIALOGUE = {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."}
DIALOGUE = {name: text.strip() for name, text in DIALOGUE.items()}
PSOUPS = {"user_input": "Why is it so?", "completion_a": "So.", "completion_b": "No."}
PAIR = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
OUTPUT = {"instruction": "Why?", "output": "So.", "generator": "a"}
ANNOTATION = {"instruction": "Why?", "generator_1": "a", "generator_2": "b", "preference": 1}
SUMMARY = {"text": "Short.", "policy": "sup"}
COMPARISON = {
    "info": {"id": "1", "post": "Post.", "title": "Title", "subreddit": "all"},
    "summaries": [SUMMARY, {**SUMMARY, "text": "A longer one."}],
    "worker": "w",
    "choice": 0,
}
STATEMENT = {"question": "Would you?", "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"}
PERSON = {
    "user_id": "u",
    "num_completed_conversations": 2,
    "self_description": "I paint.",
    "order_stated_prefs": {"values": 1},
    **{name: "said" for name in ("age", "gender", "education", "employment_status", "marital_status", "english_proficiency")},
}
CONVERSATION = {
    "user_id": "u",
    "conversation_history": [
        {"turn": 0, "role": "user", "content": "Why?"},
        {"turn": 0, "role": "model", "content": "So.", "if_chosen": True},
        {"turn": 0, "role": "model", "content": "No.", "if_chosen": False},
    ],
}
PREPARE = ("data", "prepare", "--config", "config.yaml", "--out", "out")
IMPORT = ("users", "import", "--config", "config.yaml", "--out", "out")
FIT = (
    "users",
    "fit-soup",
    "--pairs",
    "pairs.jsonl",
    "--config",
    "config.yaml",
    "--backbone",
    "b",
    "--models",
    "m",
    "--out",
    "out",
)


def raw(kind: str, path: str, faults: dict[str, Plant], file: str | None = None, **more: Any) -> Iterator[Case]:
    """Yield cases of `data prepare`: faults of the file `file` of a source of raw data at `path`."""
    source = {"kind": kind, "path": path, **more.pop("source", {})}
    beside = {"config.yaml": config(data={"sources": [source], "validation": 0, "test": 0}), **more.pop("beside", {})}
    yield from named(f"raw {kind}", PREPARE, file or path, faults, beside=beside, **more)


def users(source: str, file: str, faults: dict[str, Plant], **more: Any) -> Iterator[Case]:
    """Yield cases of `users import`: faults of a file in the folder of a source of users."""
    settings = {"source": source, "path": "raw", "validation": 0, "test": 0}
    beside = {"config.yaml": config(user_data=settings), **more.pop("beside", {})}
    yield from named(f"users {source}, {Path(file).stem}", IMPORT, f"raw/{file}", faults, beside=beside, **more)


def values(record: dict[str, Any], field: str, wrong: dict[str, Any]) -> dict[str, Plant]:
    """Return faults of one field of a record, by what is wrong with it."""
    return {f"{field} is {what}": content(json.dumps({**record, field: value})) for what, value in wrong.items()}


NUMBERS = {"NaN": float("nan"), "infinite": float("inf"), "a huge number": HUGE, "true": True, "a text": "many", "a list": [1]}


def sources() -> Iterator[Case]:
    """Yield the cases of raw sources."""
    yield from raw("psoups", "P1A.jsonl", PLACES | texts(broken_json(json.dumps(PSOUPS))))
    for field in PSOUPS:
        yield from raw("psoups", "P1A.jsonl", texts(field_faults(PSOUPS, field)))
    asks = "Why? Generate a response that is concise and to the point without being verbose."
    wrong = {"asks for another preference": asks, "nothing but a preference's prompt": asks[5:].replace("concise", "concise")}
    yield from raw("psoups", "P1A.jsonl", values(PSOUPS, "user_input", wrong))
    yield from raw("psoups", "../../x.jsonl", {"a path that leaves the folder": lambda path: None})
    yield from raw("psoups", "$(touch owned).jsonl", {"shell characters in the path": lambda path: None})
    yield from raw("psoups", "a\nb.jsonl", {"a line break in the name": content(json.dumps(PSOUPS))})
    yield from raw("psoups", "\x1b[31mred\x1b[0m.jsonl", {"a terminal's commands in the name": content(json.dumps(PSOUPS))})
    yield from raw("psoups", "x" * 5000 + ".jsonl", {"a name that is too long": lambda path: None})
    yield from raw("psoups", "a\0b.jsonl", {"a NUL in the name": lambda path: None})
    yield from raw("psoups", "P1A.txt", {"an unknown format": content(json.dumps(PSOUPS))})

    for field in OUTPUT:
        yield from raw("alpaca_eval", "ae", texts(field_faults(OUTPUT, field)), file="ae/outputs/a.json")
    yield from raw("alpaca_eval", "ae", texts(broken_json(json.dumps(OUTPUT))), file="ae/outputs/a.jsonl")
    beside = {"ae/outputs/a.json": json.dumps([OUTPUT, {**OUTPUT, "generator": "b"}])}
    wrong = NUMBERS | {"below 1": 0.5, "above 2": 3, "a text beyond all numbers": "1e999"}
    faults = values(ANNOTATION, "preference", wrong)
    yield from raw("alpaca_eval", "ae", faults, file="ae/annotations.json", beside=beside)

    yield from raw("hh_rlhf", "hh.jsonl", texts(broken_json(json.dumps(DIALOGUE))))
    for field in DIALOGUE:
        yield from raw("hh_rlhf", "hh.jsonl", texts(field_faults(DIALOGUE, field)))
        yield from raw("hh_rlhf", "hh.jsonl", values(DIALOGUE, field, {"no dialogue": "Hello"}))
    yield from raw(
        "hh_rlhf", "hh.jsonl", values(DIALOGUE, "objective", {"empty": "", "a number": 4, "half a surrogate": "\udfff"})
    )
    yield from raw("koala", "k.json", texts(broken_json(json.dumps({"prompt": "Why?", "id": "1"}))))
    yield from raw("koala", "k.jsonl", texts(field_faults({"id": "1", "prompt": "Why?"}, "prompt")))
    yield from tables()


def tables() -> Iterator[Case]:
    """Yield the cases of tables as CSV, JSON and compressed files; those as Parquet are in `binaries`."""
    csv = "prompt,chosen,rejected\nWhy?,So.,No.\n"
    ids = NUMBERS | {"negative": -1, "a fraction": 1.5, "beyond all integers": 2.0**70, "a path": "../../x"}
    yield from raw("table", "t.jsonl", values(PAIR, "user", ids))
    shares = NUMBERS | {"zero": 0, "above 1": 1.5, "negative": -0.1}
    yield from raw("table", "t.jsonl", values(PAIR, "probability", shares))
    faults = {
        "empty": "",
        "without a row": "prompt,chosen,rejected\n",
        "a column twice": "prompt,chosen,chosen\nWhy?,So.,No.\n",
        "a column is missing": "prompt,chosen\nWhy?,So.\n",
        "a field too many": csv + "Who?,A.,B.,C.\n",
        "a field too few": csv + "Who?,A.\n",
        "an open quote": csv + '"Who?,A.,B.\n',
        "a text behind a quote": csv + '"Who"?,A.,B.\n',
        "UTF-16": csv.encode("utf-16"),
        "bad UTF-8": csv.encode() + b"Who?,\xff,B.\n",
        "a lone carriage return": 'prompt,chosen,rejected\n"a"\rb,c,d\n',
        "Parquet by another name": b"PAR1" + bytes(100) + b"PAR1",
    }
    yield from raw("table", "t.csv", {fault: content(data) for fault, data in faults.items()})
    yield from raw("table", "t.jsonl", {"an unknown column of ours": content(json.dumps(PAIR))}, source={"columns": {"x": "y"}})
    theirs = {"columns": {"prompt": "ask", "chosen": "a", "rejected": "b"}}
    yield from raw("table", "t.jsonl", {"columns of other names": content(json.dumps(PAIR))}, source=theirs)
    line = json.dumps(PAIR).encode()
    packed = gzip.compress(line * 5000)
    yield from raw(
        "table",
        "t.jsonl.gz",
        {
            "no gzip": content(line),
            "a cut-off gzip": content(packed[: len(packed) // 2]),
            "a damaged gzip": content(packed[:30] + b"\0\0\0" + packed[33:]),
            "a gzip's head alone": content(packed[:10]),
        },
    )
    yield from raw("table", "t.csv.gz", {"a gzip with a false checksum": content(packed[:-8] + bytes(8))})
    text = b"x" * 64
    bombs = {
        "t.jsonl.gz": {"a line of 8 GB": bomb(text, 2**33), "a text of 8 GB": bomb(text, 2**33, b'"}')},
        "t.json.gz": {
            "a bomb of brackets": bomb(b"[{}," + b"{}," * 20, 2**33),
            "8 GB of spaces": bomb(b" " * 64, 2**33),
        },
        "t.csv.gz": {"a field of 8 GB": bomb(text, 2**33), "a record of 8 GB in quotes": bomb(b'"\n",' * 16, 2**33)},
    }
    for path, planted in bombs.items():
        slow = {fault: plant for fault, plant in planted.items() if "spaces" in fault}
        yield from raw("table", path, {f: p for f, p in planted.items() if f not in slow}, limited=True)
        yield from raw("table", path, slow, limited=True, slow=True)
    yield from raw("table", "t.jsonl", {"a line of 50 MB": content(b'{"prompt": "' + b"x" * LONG + b'"}')}, limited=True)
    yield from raw("table", "t.json", {"a record of 50 MB": content(b'[{"prompt": "' + b"x" * LONG + b'"}]')}, limited=True)
    yield from raw("table", "t.csv", {"a field of 50 MB": content(csv.encode() + b"x" * LONG + b",a,b\n")}, limited=True)
    many = "".join(f'"{number}": 0, ' for number in range(10**6))
    faults = {"a key twice behind a million others": content(f'{{{many}"a": 1, "a": 2}}')}
    yield from raw("table", "t.jsonl", faults, limited=True)
    said = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    wrong = {
        "no messages": [],
        "messages that are texts": ["Why?", "So."],
        "messages with an unknown role": [{**said[0], "role": "\x1b[31mroot" + "x" * 5000}, said[1]],
        "messages without a content": [said[0], {"role": "assistant"}],
        "a message of half a surrogate": [said[0], {**said[1], "content": "\ud800"}],
        "messages that end with the user's": [*said, said[0]],
        "messages that begin otherwise than the other answer's": [{**said[0], "content": "How?"}, said[1]],
        "the assistant's messages alone": said[1:],
    }
    yield from raw("table", "t.jsonl", values({"chosen": said, "rejected": said}, "chosen", wrong))
    deep = "[" * 950 + "]" * 950
    yield from raw("table", "t.jsonl", {"950 brackets in a field": content(json.dumps(PAIR)[:-1] + f', "user": {deep}}}')})


def user_sources() -> Iterator[Case]:
    """Yield the cases of users' sources, and of the pairs of a person."""
    yield from users("tldr", "train.jsonl", PLACES | texts(broken_json(json.dumps({"worker": "w", **COMPARISON}))))
    yield from users("tldr", "train.jsonl", texts(field_faults(COMPARISON, "worker")))
    yield from users("tldr", "other.jsonl", {"neither train nor valid in its name": content(json.dumps(COMPARISON))})
    wrong = {"no list": {}, "one": [SUMMARY], "of texts": ["a", "b"], "without a policy": [{"text": "a"}] * 2}
    yield from users("tldr", "train.jsonl", values(COMPARISON, "summaries", wrong))
    yield from users("tldr", "train.jsonl", values(COMPARISON, "info", {"a text": "post", "empty": {}, "a list": [1]}))
    yield from users("psoups", "P9X.json", {"no preference's name": content(json.dumps([PSOUPS]))})
    yield from users("psoups", "P1A.json", texts(field_faults(PSOUPS, "completion_b")))

    good = {"raw/conversations.jsonl": json.dumps(CONVERSATION)}
    yield from users("prism", "survey.jsonl", texts(broken_json(json.dumps(PERSON))), beside=good)
    for field in ("user_id", "self_description"):
        yield from users("prism", "survey.jsonl", texts(field_faults(PERSON, field)), beside=good)
    yield from users("prism", "survey.jsonl", values(PERSON, "num_completed_conversations", NUMBERS), beside=good)
    wrong = {"a list": [1], "null": None, "a text": "values"}
    yield from users("prism", "survey.jsonl", values(PERSON, "order_stated_prefs", wrong), beside=good)
    two = json.dumps(PERSON) + "\n" + json.dumps(PERSON)
    yield from users("prism", "survey.jsonl", {"a user twice": content(two)}, beside=good)
    good = {"raw/survey.jsonl": json.dumps(PERSON)}
    yield from users("prism", "conversations.jsonl", texts(broken_json(json.dumps(CONVERSATION))), beside=good)
    yield from users("prism", "dialogues.jsonl", {"no file of conversations": content("{}")}, beside=good)
    first, *rest = CONVERSATION["conversation_history"]
    turns = {f"with turn {what}": [{**first, "turn": value}, *rest] for what, value in NUMBERS.items()}
    turns |= {"with an unknown role": [{**first, "role": "root"}], "a text": "Why?", "of texts": ["Why?"], "null": None}
    yield from users("prism", "conversations.jsonl", values(CONVERSATION, "conversation_history", turns), beside=good)

    yield from users("persona", "risk-averse.jsonl", texts(broken_json(json.dumps(STATEMENT))))
    yield from users("persona", "risk-averse.jsonl", texts(field_faults(STATEMENT, "answer_matching_behavior")))
    yield from users("persona", "risk-averse.jsonl", values(STATEMENT, "question", {"blank": " \t"}))
    yield from users("hh_rlhf", "helpful.jsonl", texts(field_faults(DIALOGUE, "chosen")))

    beside = {"config.yaml": config()}
    faults = PLACES | texts(broken_json(json.dumps(PAIR))) | values(PAIR, "chosen", {"the rejected text": "No."})
    yield from named("pairs of a person", FIT, "pairs.jsonl", faults, beside=beside)
    for field in PAIR:
        faults = texts(field_faults(PAIR, field)) | values(PAIR, field, {"blank": " \n"})
        yield from named("pairs of a person", FIT, "pairs.jsonl", faults, beside=beside)


def record_cases() -> list[Case]:
    """Return all cases of records."""
    return [*sources(), *user_sources()]


def accepted(
    name: str, reason: str, data: str | bytes, file: str = "t.jsonl"
) -> tuple[str, str, tuple[str, ...], dict[str, Any]]:
    """Return an input that is read, and why: a table of raw data."""
    source = {"kind": "table", "path": file}
    files = {"config.yaml": config(data={"sources": [source], "validation": 0, "test": 0}), file: data}
    return name, reason, PREPARE, files


ACCEPTED = [
    accepted("a BOM", "spreadsheets put it in front of UTF-8", b"\xef\xbb\xbf" + json.dumps(PAIR).encode()),
    accepted(
        "an escaped NUL", "it is a character of a text, and nothing reads texts as names", json.dumps({**PAIR, "chosen": "a\0b"})
    ),
    accepted("a formula", "it is a text; sheets for people quote it", json.dumps({**PAIR, "chosen": "=cmd()"})),
    accepted("an unknown field", "sources have more fields than are read", json.dumps({**PAIR, "more": [1, {"a": None}]})),
    accepted("a path for a text", "no text names a file", json.dumps({**PAIR, "prompt": "../../x", "chosen": "/etc/passwd"})),
    accepted("shell characters in a text", "no text reaches a shell", json.dumps({**PAIR, "prompt": "$(touch owned); `id`"})),
    accepted("Windows' ends of lines", "they are white space", json.dumps(PAIR).encode() + b"\r\n\r\n"),
    accepted("a NUL in CSV", "it is a character of a text", b"prompt,chosen,rejected\nWhy?,a\0b,No.\n", "t.csv"),
    accepted("two gzip files in one", "gzip allows it", gzip.compress(json.dumps(PAIR).encode() + b"\n") * 2, "t.jsonl.gz"),
]

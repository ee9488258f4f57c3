"""The corpus of hostile texts: raw sources, users' sources, pairs of a person, configurations, recipes, ledgers, ratings."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.hostile.cases import LONG, PLACES, Case, Plant, bomb, broken_json, content, field_faults, named

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
CONFIG = ("config", "write", "--config", "in.yaml", "--out", "out/config.yaml")
RECIPE = ("soup", "merge", "--recipe", "recipe.yaml", "--out", "out")
CLAIMS = ("claims", "--ledger", "claims.yaml", "--configs", "config.yaml", "--out", "out")
RATINGS = ("judge", "import", "--key", "key.csv", "--ratings", "ratings.csv", "--out", "out/comparisons.parquet")

HUGE = 10**400


def texts(faults: dict[str, str] | dict[str, bytes]) -> dict[str, Plant]:
    """Return what plants each of the texts."""
    return {fault: content(data) for fault, data in faults.items()}


def config(**settings: Any) -> str:
    """Return a configuration; JSON is YAML."""
    return json.dumps({"experiment": "mine", **settings})


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


def broken_yaml(good: str, deep: str) -> dict[str, bytes | str]:
    """Return {fault: text} of what is no YAML of ours, made of a good mapping; `deep` names a key that holds a mapping."""
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    return {
        "empty": "",
        "cut off": good[: len(good) // 2].rstrip("}") + ": [",
        "bad UTF-8": good.encode() + b"\n# \xff\xfe",
        "UTF-16": good.encode("utf-16"),
        "a NUL": good + "\n# \0",
        "a text": "text",
        "a list": "[1, 2]",
        "null": "~",
        "two documents": f"{good}\n---\n{good}",
        "a tab for indentation": "a:\n\tb: 1",
        "100 000 brackets": "a: " + "[" * 100_000,
        "100 000 braces": "a: " + "{b: " * 100_000,
        "2 000 nested lists": "a: " + "[" * 2000 + "]" * 2000,
        "a Python object": "a: !!python/object/apply:os.system ['touch owned']",
        "a Python name": "a: !!python/name:os.system",
        "a Python module": "a: !!python/module:antigravity",
        "an unknown tag": "a: !run 'touch owned'",
        "a false timestamp": "a: 2001-99-99",
        "a tagged timestamp that is none": "a: !!timestamp soon",
        "a tagged number that is none": "a: !!int ''",
        "a tagged truth that is none": "a: !!bool perhaps",
        "a number of 5 000 digits": "a: " + "9" * 5000,
        "a list for a key": "? [1, 2]\n: 3",
        "a billion laughs": laughs,
        "an alias of itself": "a: &a [*a]",
        "a merge of itself": "a: &a\n  <<: *a",
        "an alias of nothing": "a: *b",
        "a key twice": f"{deep}: {{}}\n{deep}: {{}}",
        "a key twice further down": f"{deep}: {{x: 1, x: 2}}",
        "an unknown key": f"{good.rstrip('}')}, sudo: yes}}" if good.startswith("{") else good + "\nsudo: yes",
    }


def settings() -> Iterator[Case]:
    """Yield the cases of configurations."""
    faults = PLACES | {fault: content(data) for fault, data in broken_yaml(config(), "reward").items()}
    yield from named("configuration", CONFIG, "in.yaml", faults)
    wrong: dict[str, dict[str, Any]] = {
        "a NaN learning rate": {"reward": {"learning_rate": float("nan")}},
        "an infinite learning rate": {"reward": {"learning_rate": float("inf")}},
        "a negative learning rate": {"reward": {"learning_rate": -1e-5}},
        "a NaN weight decay": {"reward": {"weight_decay": float("nan")}},
        "an infinite weight": {"soup": {"weights": {"P1A": float("inf")}}},
        "a NaN weight": {"soup": {"weights": {"P1A": float("nan")}}},
        "a negative count": {"ppo": {"updates": -1}},
        "a count of 10^30": {"ppo": {"updates": 10**30}},
        "a huge seed": {"seed": 2**63},
        "a negative seed": {"seed": -1},
        "a fraction for a count": {"ppo": {"updates": 1.5}},
        "true for a count": {"ppo": {"updates": True}},
        "true for a rate": {"ppo": {"clip": True}},
        "a word for a count": {"ppo": {"updates": "many"}},
        "a list for a section": {"ppo": [1]},
        "a text for a list": {"preferences": "P1A"},
        "an unknown preference": {"preferences": ["../../x"]},
        "a preference twice": {"preferences": ["P1A", "P1A"]},
        "an unknown key further down": {"ppo": {"lora": {"ranks": 4}}},
        "an unknown kind of source": {"data": {"sources": [{"kind": "pickle", "path": "x"}]}},
        "an unknown setting that is varied": {"ablations": {"../x": [1]}},
        "a list that is varied": {"ablations": {"dpo.alpha": [[[1]]]}},
        "a package with an option": {"backbone": {"package": "--target=/ y"}},
        "a package with an address": {"backbone": {"package": "x @ http://127.0.0.1/x.whl"}},
        "a digest that is none": {"backbone": {"package_sha256": "0" * 63 + "g"}},
        "a file for a package that is no wheel": {"backbone": {"source": "package", "name": "model.bin"}},
        "a key in the judge's address": {"evaluation": {"llm": {"base_url": "http://key@127.0.0.1/v1"}}},
        "a file for the judge's address": {"evaluation": {"llm": {"base_url": "file:///etc/passwd"}}},
        "a port that is none": {"evaluation": {"llm": {"base_url": "http://127.0.0.1:99999/v1"}}},
        "shell characters for the key's variable": {"evaluation": {"llm": {"key_variable": "A;B"}}},
    }
    wrong |= {
        f"the name {name!r}": {"experiment": name} for name in ("../../x", "/x", "", "a b", "a\nb", "$(id)", "a;b", "A", ".a")
    }
    wrong |= {"a name of 50 MB": {"experiment": "X" * LONG}}
    yield from named("configuration", CONFIG, "in.yaml", {what: content(config(**more)) for what, more in wrong.items()})
    yield from recipes()


def recipes() -> Iterator[Case]:
    """Yield the cases of recipes and of ledgers of claims."""
    good = "{weights: {a: 1}, paths: {a: a}}"
    faults = PLACES | {fault: content(data) for fault, data in broken_yaml(good, "weights").items()}
    yield from named("recipe", RECIPE, "recipe.yaml", faults)
    wrong = {
        "a path that leaves the folder": {"paths": {"a": "../../x"}},
        "a path that leaves it in the middle": {"paths": {"a": "b/../../x"}},
        "an absolute path": {"paths": {"a": "/etc"}},
        "a Windows path": {"paths": {"a": "C:\\x"}},
        "an empty path": {"paths": {"a": " "}},
        "a path with a NUL": {"paths": {"a": "a\0b"}},
        "a path that is too long": {"paths": {"a": "x" * 5000}},
        "a path for another adapter": {"paths": {"b": "a"}},
        "no weights": {"weights": {}},
        "a NaN weight": {"weights": {"a": float("nan")}},
        "an infinite weight": {"weights": {"a": float("inf")}},
        "a weight of 400 digits": {"weights": {"a": HUGE}},
        "a text for a weight": {"weights": {"a": "all"}},
        "an adapter without a name": {"weights": {"": 1}, "paths": {"": "a"}},
        "a rule that is none": {"rule": "ties"},
        "a negative rank": {"svd_rank": -1},
        "a rank of 10^30": {"svd_rank": 10**30},
        "a fraction for a rank": {"svd_rank": 1.5},
    }
    made = {what: content(json.dumps({"weights": {"a": 1}, "paths": {"a": "a"}, **more})) for what, more in wrong.items()}
    yield from named("recipe", RECIPE, "recipe.yaml", made)
    claim = {"claim": "one", "statement": "So.", "table": "methods", "where": {"method": "vb"}, "effect": "mean"}
    faults = PLACES | {
        fault: content(data) for fault, data in broken_yaml(json.dumps(claim), "where").items() if fault != "a list"
    }
    wrong = {
        "a NaN threshold": {"threshold": float("nan")},
        "an infinite threshold": {"threshold": float("inf")},
        "an unknown table": {"table": "../../x"},
        "an unknown column": {"where": {"__class__": "x"}},
        "an effect that is no column": {"effect": "x"},
        "an effect that is no number": {"effect": "method"},
        "a name with a line break": {"claim": "a\nb"},
        "an unknown key": {"evidence": "none"},
    }
    faults |= {what: content(json.dumps([{**claim, **more}])) for what, more in wrong.items()}
    faults["a name twice"] = content(json.dumps([claim, claim]))
    yield from named("claims", CLAIMS, "claims.yaml", faults, beside={"config.yaml": config()})


def ratings() -> Iterator[Case]:
    """Yield the cases of people's verdicts."""
    key = "item,prompt_id,combination,sample,method_a,method_b,criterion,first\nitem-1,q,P1A-P2A,0,vb,pp,P1A,a\n"
    head = "item,question,criterion,response_1,response_2,verdict\n"
    faults = {
        "empty": b"",
        "bad UTF-8": (head + "item-1,q,c,a,b,1\n").encode() + b"\xff",
        "UTF-16": (head + "item-1,q,c,a,b,1\n").encode("utf-16"),
        "without a row": head,
        "other columns": "a,b\n1,2\n",
        "a column twice": head.replace("question", "item") + "item-1,q,c,a,b,1\n",
        "an unknown verdict": head + "item-1,q,c,a,b,=cmd()\n",
        "no verdict": head + "item-1,q,c,a,b,\n",
        "an unknown item": head + "../../x,q,c,a,b,1\n",
        "an item twice": head + "item-1,q,c,a,b,1\n" * 2,
        "a field too many": head + "item-1,q,c,a,b,1,2\n",
        "an open quote": head + 'item-1,"q,c,a,b,1\n',
        "a NUL": head + "item-1\0,q,c,a,b,1\n",
        "a line of 50 MB": (head + "item-1,").encode() + b"x" * LONG,
    }
    made = PLACES | {what: content(data) for what, data in faults.items()}
    yield from named("ratings", RATINGS, "ratings.csv", made, beside={"key.csv": key})
    good = {"ratings.csv": head + "item-1,q,c,a,b,1\n"}
    changed = {
        "a negative sample": key.replace(",0,", ",-1,"),
        "a sample of 400 digits": key.replace(",0,", f",{HUGE},"),
        "a sample in other digits": key.replace(",0,", ",\u0661,"),
        "a combination that is none": key.replace("P1A-P2A", "../../x"),
        "a combination of one axis": key.replace("P1A-P2A", "P1A-P1B"),
        "a method against itself": key.replace("vb", "pp"),
        "an order that is none": key.replace(",a\n", ",c\n"),
        "an empty field": key.replace("item-1,q,", "item-1,,"),
        "a criterion that is none": key.replace(",P1A,", ",P3A,"),
    }
    yield from named("key of ratings", RATINGS, "key.csv", {what: content(data) for what, data in changed.items()}, beside=good)


def text_cases() -> list[Case]:
    """Return all cases of texts."""
    return [*sources(), *user_sources(), *settings(), *ratings()]


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
    ("text for a number", "YAML 1.1 takes 1e-5 for text", CONFIG, {"in.yaml": config(reward={"learning_rate": "1e-5"})}),
    ("a BOM in YAML", "YAML allows it", CONFIG, {"in.yaml": b"\xef\xbb\xbf" + config().encode()}),
]

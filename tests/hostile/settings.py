"""The corpus of hostile settings: configurations, recipes, ledgers of claims, people's ratings."""

import json
from collections.abc import Iterator
from typing import Any

from tests.hostile.cases import HUGE, LONG, PLACES, Case, config, content, named

CONFIG = ("config", "write", "--config", "in.yaml", "--out", "out/config.yaml")
RECIPE = ("soup", "merge", "--recipe", "recipe.yaml", "--out", "out")
CLAIMS = ("claims", "--ledger", "claims.yaml", "--configs", "config.yaml", "--out", "out")
RATINGS = ("judge", "import", "--key", "key.csv", "--ratings", "ratings.csv", "--out", "out/comparisons.parquet")


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
        "half of a surrogate pair": 'a: "\\ud800"',
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
    key = "item,prompt_id,combination,sample,method_a,method_b,criterion,first,shown\nitem-1,q,P1A-P2A,0,vb,pp,P1A,a,0f\n"
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
        "an order that is none": key.replace(",a,0f", ",c,0f"),
        "an empty field": key.replace("item-1,q,", "item-1,,"),
        "a criterion that is none": key.replace(",P1A,", ",P3A,"),
    }
    yield from named("key of ratings", RATINGS, "key.csv", {what: content(data) for what, data in changed.items()}, beside=good)


def setting_cases() -> list[Case]:
    """Return all cases of settings and ratings."""
    return [*settings(), *ratings()]


ACCEPTED = [
    ("text for a number", "YAML 1.1 takes 1e-5 for text", CONFIG, {"in.yaml": config(reward={"learning_rate": "1e-5"})}),
    ("a BOM in YAML", "YAML allows it", CONFIG, {"in.yaml": b"\xef\xbb\xbf" + config().encode()}),
]

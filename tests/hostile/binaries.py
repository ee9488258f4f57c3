"""The corpus of hostile binary files: Parquet tables, adapters, backbones, kept replies of a judge."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tests.hostile.cases import PLACES, Case, Plant, at, content, named

from rlphf.data.records import PAIRS, PROMPTS, RESPONSES

PROMPT = {"id": "q", "prompt": "Why?", "topic": None, "source": "s", "split": "test"}
RESPONSE = {"prompt_id": "q", "method": "vb", "combination": "", "sample": 0, "response": "So.", "tokens": 1, "finished": True}
PAIR = {"id": "p", "prompt": "Why?", "chosen": "So.", "rejected": "No.", "preference": "P1A", "user": 1, "probability": 0.5}
PAIR |= {"source": "s", "split": "train"}
CONFIG = json.dumps({"experiment": "mine", "evaluation": {"methods": ["vb", "pp"]}})
JUDGE = ("--config", "config.yaml", "--prompts", "prompts.parquet", "--responses", "responses.parquet", "--out", "out/s.parquet")
MERGE = ("soup", "merge", "--recipe", "recipe.yaml", "--out", "out")
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
MODULE = "base_model.model.model.layers.0.q_proj"
# What `touch owned` would run, were it unpickled.
DANGEROUS = b"cposix\nsystem\n(S'touch owned'\ntR."


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
    yield from named("raw Parquet", prepare, "t.parquet", _planted(raw), beside=beside)

    beside = {"config.yaml": CONFIG, "prompts.parquet": parquet([PROMPT], PROMPTS)}
    faults = PLACES | _planted(broken_parquet(RESPONSE, RESPONSES, "response"))
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
    faults = PLACES | _planted(broken_parquet(PROMPT, PROMPTS, "prompt"))
    wrong = {"an unknown split": {"split": "../x"}, "an empty prompt": {"prompt": ""}, "an empty id": {"id": "\t"}}
    faults |= {what: content(parquet([{**PROMPT, **more}], PROMPTS)) for what, more in wrong.items()}
    faults["a prompt twice"] = content(parquet([PROMPT] * 2, PROMPTS))
    yield from named("prompts", ("judge", "rules", *JUDGE), "prompts.parquet", faults, beside=beside)
    faults = _planted(broken_parquet({**PROMPT, "topic": "x"}, PROMPTS, "id")) | {
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
    faults = PLACES | _planted(broken_parquet(PAIR, PAIRS, "chosen"))
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


def _planted(faults: dict[str, bytes]) -> dict[str, Plant]:
    return {fault: content(data) for fault, data in faults.items()}


def _many_rows(folder: Path) -> None:
    """Write a table that declares more rows than any memory holds tables of."""
    for name, data in {"config.yaml": CONFIG.encode(), "prompts.parquet": parquet([PROMPT], PROMPTS)}.items():
        content(data)(folder / name)
    part = pa.table({"prompt_id": pa.nulls(10**7)})
    with pq.ParquetWriter(folder / "responses.parquet", part.schema) as writer:
        for _ in range(11):
            writer.write_table(part, row_group_size=10**7)


def tensors(header: dict[str, Any] | bytes, data: bytes = b"", size: int | None = None) -> bytes:
    """Return a safetensors file: the length of its header (or `size`), the header, the data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def factors(kind: str = "F32", width: int = 4, **changes: Any) -> dict[str, Any]:
    """Return the header of a good adapter of one module, 3 to 3 of rank 2, with `changes` of its A."""
    first = {"dtype": kind, "shape": [2, 3], "data_offsets": [0, 6 * width], **changes}
    second = {"dtype": kind, "shape": [3, 2], "data_offsets": [6 * width, 12 * width]}
    return {f"{MODULE}.lora_A.weight": first, f"{MODULE}.lora_B.weight": second}


def lying_tensors() -> dict[str, bytes]:
    """Return {fault: bytes} of files that are no safetensors of a sound adapter."""
    data = struct.pack("<12f", *range(12))
    good = tensors(factors(), data)
    nan = struct.pack("<12f", float("nan"), *range(11))
    return {
        "empty": b"",
        "a pickle": DANGEROUS,
        "cut off": good[:-10],
        "more behind its end": good + b"more",
        "a header of 2^60 bytes": tensors(factors(), data, 2**60),
        "a header of 2^63 bytes": tensors(factors(), data, 2**63),
        "a header of no bytes": tensors(b"", data, 0),
        "a header that is no JSON": tensors(b"{broken", data),
        "a header that is a list": tensors(b"[]", data),
        "a header of bad UTF-8": tensors(b'{"\xff": 1}', data),
        "100 000 brackets": tensors(b"[" * 100_000, data),
        "offsets beyond the file": tensors(factors(data_offsets=[0, 2**40]), data),
        "offsets of 2^64": tensors(factors(data_offsets=[0, 2**64]), data),
        "offsets from behind": tensors(factors(data_offsets=[24, 0]), data),
        "negative offsets": tensors(factors(data_offsets=[-24, 0]), data),
        "overlapping tensors": tensors(factors() | {f"{MODULE}.lora_B.weight": factors()[f"{MODULE}.lora_A.weight"]}, data),
        "a shape of 2^62": tensors(factors(shape=[2**31, 2**31]), data),
        "a shape that overflows": tensors(factors(shape=[2**40, 2**40]), data),
        "a negative shape": tensors(factors(shape=[-2, -3]), data),
        "a shape of texts": tensors(factors(shape=["2", "3"]), data),
        "an unknown type": tensors(factors(dtype="PICKLE"), data),
        "integers": tensors(factors("I32"), data),
        "numbers of 8 bits": tensors(factors("F8_E4M3", 1), data[:12]),
        "numbers of 8 bits without a sign": tensors(factors("F8_E8M0", 1), data[:12]),
        "complex numbers": tensors(factors("C64", 8), data * 2),
        "truths": tensors(factors("BOOL", 1), data[:12]),
        "NaN weights": tensors(factors(), nan),
        "infinite weights": tensors(factors(), struct.pack("<12f", float("inf"), *range(11))),
        "no tensors": tensors({}),
        "one factor alone": tensors({f"{MODULE}.lora_A.weight": factors()[f"{MODULE}.lora_A.weight"]}, data[:24]),
        "another rank": tensors({name: {**about, "shape": about["shape"][::-1]} for name, about in factors().items()}, data),
        "a tensor that is no factor": tensors({"../../x": factors()[f"{MODULE}.lora_A.weight"]}, data[:24]),
        "a vector": tensors(factors(shape=[6]), data),
        "metadata of numbers": tensors({"__metadata__": {"a": 1}, **factors()}, data),
    }


def adapters() -> Iterator[Case]:
    """Yield the cases of adapters that are merged."""
    good = tensors(factors(), struct.pack("<12f", *range(12)))
    recipe = "{weights: {a: 1, b: 1}, paths: {a: a, b: b}}"
    files = {"adapter_config.json": json.dumps(LORA), "adapter_model.safetensors": good}
    beside: dict[str, str | bytes] = {"recipe.yaml": recipe, **{f"b/{name}": data for name, data in files.items()}}
    a = {f"a/{name}": data for name, data in files.items()}

    def without(name: str) -> dict[str, str | bytes]:
        return beside | {path: data for path, data in a.items() if path != f"a/{name}"}

    faults = PLACES | _planted(lying_tensors())
    yield from named("adapter", MERGE, "a/adapter_model.safetensors", faults, beside=without("adapter_model.safetensors"))
    for name in ("adapter_model.bin", "adapter_model.pt", "pytorch_model.bin"):
        yield from named(
            "adapter", MERGE, f"a/{name}", {f"a pickle {name}": content(DANGEROUS)}, beside=without("adapter_model.safetensors")
        )
    wrong = {
        "no LoRA": {"peft_type": "PREFIX_TUNING"},
        "r is 0": {"r": 0},
        "r is a text": {"r": "2"},
        "r is true": {"r": True},
        "r is huge": {"r": 10**400, "use_rslora": True},
        "alpha is NaN": {"lora_alpha": float("nan")},
        "alpha is infinite": {"lora_alpha": float("inf")},
        "alpha is huge": {"lora_alpha": 10**400},
        "alpha is null": {"lora_alpha": None},
        "modules of two kinds": {"target_modules": [1, "q_proj"]},
        "modules that are numbers": {"target_modules": 7},
        "modules of objects": {"target_modules": [{}]},
        "weights are to be drawn": {"init_lora_weights": "pissa"},
        "modules are saved": {"modules_to_save": ["lm_head"]},
        "a base that is a list": {"base_model_name_or_path": [1]},
        "code is to be run": {"auto_mapping": {"base_model_class": "x", "parent_library": "antigravity"}},
        "DoRA": {"use_dora": True},
    }
    faults = PLACES | _planted(broken_json_config()) | {what: content(json.dumps(LORA | more)) for what, more in wrong.items()}
    yield from named("configuration of an adapter", MERGE, "a/adapter_config.json", faults, beside=without("adapter_config.json"))
    wrong = {"a list": [], "a text": "policy", "a reward model": {"kind": "reward"}, "a kind that is a list": {"kind": []}}
    wrong |= {"a digest that is a list": {"backbone_sha256": ["x"]}, "a digest that is an object": {"lora_a_sha256": {}}}
    faults = {what: content(json.dumps(about)) for what, about in wrong.items()} | _planted(broken_json_config())
    yield from named("description of an adapter", MERGE, "a/adapter.json", faults, beside=beside | a)
    other = tensors({name.replace("q_proj", "k_proj"): about for name, about in factors().items()}, bytes(48))
    yield from named(
        "adapter",
        MERGE,
        "a/adapter_model.safetensors",
        {"of other modules": content(other)},
        beside=without("adapter_model.safetensors"),
    )
    yield from named(
        "adapter",
        MERGE,
        "a",
        {"a file for its folder": content("x"), "a link to nothing": PLACES["a dangling link"]},
        beside=beside,
    )


def broken_json_config() -> dict[str, bytes]:
    """Return {fault: bytes} of files that are no JSON object."""
    return {
        "empty": b"",
        "cut off": b'{"peft_type": "LORA"',
        "bad UTF-8": b'{"peft_type": "\xff"}',
        "a BOM": b'\xef\xbb\xbf{"peft_type": "LORA"}',
        "a NUL": b'{"peft_type": "LORA\0"}',
        "100 000 brackets": b"[" * 100_000,
        "a key twice": b'{"peft_type": "LORA", "r": 1, "r": 2}',
        "a number of 5 000 digits": b'{"r": ' + b"9" * 5000 + b"}",
    }


def gguf(kinds: int = 0, count: int = 0, body: bytes = b"", version: int = 3) -> bytes:
    """Return the beginning of a GGUF file: it says so many tensors and entries."""
    return b"GGUF" + struct.pack("<IQQ", version, count, kinds) + body


def _entry(name: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


def backbones() -> Iterator[Case]:
    """Yield the cases of backbones that are taken from a folder or from a GGUF file."""
    take = ("backbone", "--config", "config.yaml", "--out", "out/model")
    beside: dict[str, str | bytes] = {
        "config.yaml": json.dumps({"experiment": "mine", "backbone": {"source": "path", "name": "b"}})
    }
    llama = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1}
    llama |= {"num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 16}
    remote = {**llama, "model_type": "own", "auto_map": {"AutoConfig": "code.Own", "AutoModelForCausalLM": "code.Own"}}
    code = "from pathlib import Path\nPath('owned').touch()\nclass Own: pass\n"
    faults = PLACES | {
        "empty": content(b""),
        "no JSON": content("{broken"),
        "a list": content("[]"),
        "an unknown model": content('{"model_type": "../../x"}'),
        "a width of text": content(json.dumps({**llama, "hidden_size": "wide"})),
        "a negative width": content(json.dumps({**llama, "hidden_size": -8})),
        "no heads": content(json.dumps({**llama, "num_attention_heads": 0})),
        "no weights": content(json.dumps(llama)),
    }
    yield from named("backbone", take, "b/config.json", faults, beside=beside)
    own = beside | {"b/config.json": json.dumps(remote)}
    yield from named("backbone", take, "b/code.py", {"code of its own": content(code)}, beside=own)
    made = beside | {"b/config.json": json.dumps(llama)}
    yield from named(
        "weights of a backbone", take, "b/pytorch_model.bin", {"a pickle for safetensors": content(DANGEROUS)}, beside=made
    )
    lies = {
        what: content(data)
        for what, data in lying_tensors().items()
        if what in ("empty", "a pickle", "cut off", "a header of 2^60 bytes", "offsets beyond the file", "no tensors")
    }
    yield from named("weights of a backbone", take, "b/model.safetensors", lies, beside=made)

    beside = {"config.yaml": json.dumps({"experiment": "mine", "backbone": {"source": "package", "name": "m.gguf"}})}
    text = _entry(b"general.architecture", 8, struct.pack("<Q", 5) + b"llama")
    wrong = {
        "empty": b"",
        "another format": b"PK\x03\x04" + bytes(100),
        "a head alone": b"GGUF",
        "an old version": gguf(version=1),
        "a version of 2^31": gguf(version=2**31),
        "nothing in it": gguf(),
        "a model without tensors": gguf(1, 0, text),
        "2^60 entries": gguf(2**60, 0, text),
        "2^60 tensors": gguf(1, 2**60, text),
        "an array of 2^60": gguf(1, 0, _entry(b"a", 9, struct.pack("<IQ", 4, 2**60))),
        "an array of 2^33 texts": gguf(1, 0, _entry(b"a", 9, struct.pack("<IQ", 8, 2**33))),
        "arrays in arrays": gguf(1, 0, _entry(b"a", 9, struct.pack("<IQ", 9, 1) * 100_000)),
        "a text of 2^60": gguf(1, 0, _entry(b"a", 8, struct.pack("<Q", 2**60))),
        "a name of 2^60": gguf(1, 0, struct.pack("<Q", 2**60)),
        "an unknown type": gguf(1, 0, _entry(b"a", 99, bytes(8))),
        "cut off": gguf(2, 1, text + text[:10]),
    }
    yield from named("GGUF", take, "m.gguf", PLACES | _planted(wrong), beside=beside)
    beside = {"config.yaml": json.dumps({"experiment": "mine", "backbone": {"source": "package", "name": "m.whl"}})}
    wrong = {"another file": b"hello", "a zip's end alone": b"PK\x05\x06" + bytes(18)}
    yield from named("wheel", take, "m.whl", PLACES | _planted(wrong), beside=beside)


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
    faults |= _planted(broken_json_config()) | {what: content(json.dumps(data)) for what, data in wrong.items()}
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


def binary_cases() -> list[Case]:
    """Return all cases of binary files, and of replies, which lie beside them."""
    return [*tables(), *adapters(), *backbones(), *replies()]

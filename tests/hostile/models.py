"""The corpus of hostile models: adapters, and backbones in folders, GGUF files and wheels."""

import json
import struct
from collections.abc import Iterator
from typing import Any

from tests.hostile.cases import PLACES, Case, broken_json_config, content, named, texts

MERGE = ("soup", "merge", "--recipe", "recipe.yaml", "--out", "out")
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
MODULE = "base_model.model.model.layers.0.q_proj"
# What `touch owned` would run, were it unpickled.
DANGEROUS = b"cposix\nsystem\n(S'touch owned'\ntR."


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

    faults = PLACES | texts(lying_tensors())
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
    faults = PLACES | texts(broken_json_config()) | {what: content(json.dumps(LORA | more)) for what, more in wrong.items()}
    yield from named("configuration of an adapter", MERGE, "a/adapter_config.json", faults, beside=without("adapter_config.json"))
    wrong = {"a list": [], "a text": "policy", "a reward model": {"kind": "reward"}, "a kind that is a list": {"kind": []}}
    wrong |= {"a digest that is a list": {"backbone_sha256": ["x"]}, "a digest that is an object": {"lora_a_sha256": {}}}
    faults = {what: content(json.dumps(about)) for what, about in wrong.items()} | texts(broken_json_config())
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
    yield from named("GGUF", take, "m.gguf", PLACES | texts(wrong), beside=beside)
    beside = {"config.yaml": json.dumps({"experiment": "mine", "backbone": {"source": "package", "name": "m.whl"}})}
    wrong = {"another file": b"hello", "a zip's end alone": b"PK\x05\x06" + bytes(18)}
    yield from named("wheel", take, "m.whl", PLACES | texts(wrong), beside=beside)


def model_cases() -> list[Case]:
    """Return all cases of adapters and backbones."""
    return [*adapters(), *backbones()]

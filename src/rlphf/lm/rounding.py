"""Weights of few bits, for the price of comparing methods in different precisions."""

import torch
from transformers import PreTrainedModel

# Values that share a scale.
BLOCK = 64


@torch.no_grad()
def round_weights(model: PreTrainedModel, bits: int) -> None:
    """Round the weights of the model's linear layers, the output head excepted, to `bits` bits in place.

    Each block of 64 values of a row becomes multiples of its largest magnitude / (2^(bits - 1) - 1): absolute-maximum
    quantisation, computed in the model's own precision, where the release has kernels of 4 and 8 bits.
    Source: Dettmers et al. 2022, LLM.int8(), equation 1, by blocks.
    """
    steps = 2 ** (bits - 1) - 1
    head = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            for block in module.weight.split(BLOCK, dim=1):
                scale = block.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(block.dtype).tiny) / steps
                block.copy_((block / scale).round() * scale)

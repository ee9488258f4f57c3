"""Sampling with the cache that has room against Hugging Face's that concatenates: seconds of one thread, and equal texts.

Run it on an idle machine, on a backbone and prompts that a run has left:

    OMP_NUM_THREADS=1 python benchmarks/sampling.py results/demo/seed-1103
"""

import argparse
import time
from pathlib import Path

import torch
from transformers import DynamicCache

from rlphf.data.records import PROMPTS
from rlphf.files import read_parquet
from rlphf.lm.backbone import load_backbone
from rlphf.lm.cache import RoomyCache
from rlphf.lm.chat import encode_prompts
from rlphf.lm.sampling import sample
from rlphf.preferences import instruction
from rlphf.settings import Decoding

REPEATS = 5
SAMPLES = 4
COMBINATION = ("P1A", "P2B", "P3A")


def main() -> None:
    """Print the best of some repetitions for each cache, tokens per second, and the floor of the matrix products."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seed_folder", type=Path)
    folder = parser.parse_args().seed_folder
    torch.set_num_threads(1)
    model, tokenizer = load_backbone(folder / "backbone" / "model")
    rows = [row for row in read_parquet(folder / "prompts" / "prompts.parquet", PROMPTS).to_pylist() if row["split"] == "test"]
    prompts = encode_prompts(tokenizer, [instruction(row["prompt"], COMBINATION) for row in rows for _ in range(SAMPLES)])
    decoding = Decoding(temperature=0.7, max_new_tokens=96, batch_size=256)

    texts, seconds = {}, {}
    for _ in range(REPEATS):
        for kind in (DynamicCache, RoomyCache):
            model.new_cache = kind
            start = time.process_time()
            texts[kind] = sample(model, prompts, decoding, tokenizer.eos_token_id, tokenizer.pad_token_id, seed=1)
            seconds[kind] = min(seconds.get(kind, float("inf")), time.process_time() - start)
    tokens = sum(map(len, texts[RoomyCache]))
    for kind, best in seconds.items():
        print(f"{kind.__name__:13} {best:5.2f} s  {tokens / best:6.0f} tokens/s")
    print(f"same texts: {texts[DynamicCache] == texts[RoomyCache]}")
    least = floor(model, tokens + sum(map(len, prompts)))
    print(f"floor         {least:5.2f} s  (matrix products of as many tokens, 256 at a time)")


def floor(model, tokens: int) -> float:
    """Return the seconds that the linear layers alone take for `tokens` tokens, in batches as large as sampling's."""
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    inputs = {layer.in_features: torch.randn(256, layer.in_features) for layer in layers}
    best = float("inf")
    with torch.no_grad():
        for _ in range(20):
            start = time.process_time()
            for layer in layers:
                layer(inputs[layer.in_features])
            best = min(best, time.process_time() - start)
    return best * tokens / 256


if __name__ == "__main__":
    main()

"""From a person's pairs to weights: seconds of the fit for 5 to 1000 pairs and eight preferences, and of scoring these pairs.

Scored are 128 pairs of the testbed's corpus, by eight reward models with new adapters on the configuration's small Llama. Run it
on an idle machine; it needs no files but the configuration:

    OMP_NUM_THREADS=1 python benchmarks/fit_soup.py config/config.yaml
"""

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import transformers
from peft import get_peft_model
from peft.utils import get_peft_model_state_dict

from rlphf.config import Experiment, load
from rlphf.lm.adapters import lora_config, write_adapter
from rlphf.lm.backbone import backbone_sha256
from rlphf.preferences import PREFERENCES
from rlphf.testbed.prompts import corpus
from rlphf.train.backbone import small_llama, train_tokenizer
from rlphf.train.reward import classifier
from rlphf.users.differences import differences
from rlphf.users.weights import DRAWS, asked, described, fit, recipe_weights

PAIRS = (5, 10, 30, 100, 300, 1000)
SCORED = 128
REPEATS = 20


def fitting(count: int) -> tuple[float, float]:
    """Return the median seconds of a fit on `count` pairs, and of that with draws, shares, intervals and what is asked for."""
    names = list(PREFERENCES)
    rng = np.random.default_rng(count)
    true = rng.dirichlet(np.ones(len(names)))
    alone, whole = [], []
    for seed in range(REPEATS):
        found = rng.normal(size=(count, len(names))) * 4
        found *= np.where(rng.random(count) < 1 / (1 + np.exp(-found @ true)), 1, -1)[:, None]
        start = time.perf_counter()
        posterior = fit(found, names, 0.5)
        alone.append(time.perf_counter() - start)
        draws = posterior.draws(DRAWS, seed)
        described(posterior, draws), asked(posterior, draws), recipe_weights(posterior, draws)
        whole.append(time.perf_counter() - start)
    return float(np.median(alone)), float(np.median(whole))


def scoring(experiment: Experiment, folder: Path) -> tuple[float, float]:
    """Return the seconds of scoring few pairs and SCORED ones by all reward models, loading included."""
    documents = list(islice(corpus(experiment.testbed, 1), 2 * SCORED))
    tokenizer = train_tokenizer([f"{a}\n{b}" for a, b in documents], 1000)
    backbone = folder / "backbone"
    small_llama(experiment.backbone, tokenizer, 0).save_pretrained(backbone)
    tokenizer.save_pretrained(backbone)
    rewards = {}
    for name in PREFERENCES:
        model = get_peft_model(classifier(backbone)[0], lora_config(experiment.reward.lora, task_type="SEQ_CLS"))
        about = {"kind": "reward", "preference": name, "backbone_sha256": backbone_sha256(backbone)}
        rewards[name] = folder / name
        config = model.peft_config["default"].to_dict()
        write_adapter(rewards[name], get_peft_model_state_dict(model), config, str(backbone), about)
    rows = [
        {"prompt": prompt, "chosen": one, "rejected": other}
        for (prompt, one), (_, other) in zip(documents[::2], documents[1::2], strict=True)
    ]
    seconds = []
    for count in (1, SCORED):
        start = time.perf_counter()
        differences(rows[:count], rewards, backbone)
        seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1]


def main() -> None:
    """Print the seconds of the fit by number of pairs, and those of scoring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(f"pairs  fit (s)  with shares, intervals and what is asked for (s); {len(PREFERENCES)} preferences")
    for count in PAIRS:
        alone, whole = fitting(count)
        print(f"{count:5}  {alone:7.4f}  {whole:7.4f}")
    with tempfile.TemporaryDirectory() as folder:
        first, last = scoring(load(options.config), Path(folder))
    print(f"scoring by {len(PREFERENCES)} reward models: 1 pair {first:.2f} s, {SCORED} pairs {last:.2f} s,", end=" ")
    print(f"{(last - first) / (SCORED - 1) * 1000:.0f} ms for each further pair")


if __name__ == "__main__":
    main()

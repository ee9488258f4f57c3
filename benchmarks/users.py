"""A step of P-DPO with 10 and with 1 000 000 users, each in a process of its own: seconds of one thread, and peak memory.

Run it on an idle machine; it needs no files but the configuration:

    OMP_NUM_THREADS=1 python benchmarks/users.py config/config.yaml
"""

import argparse
import resource
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import torch

from rlphf.config import load
from rlphf.lm.adapters import add_policy
from rlphf.settings_users import Users
from rlphf.testbed.prompts import corpus
from rlphf.train.backbone import small_llama, train_tokenizer
from rlphf.train.dpo import DPOTrainer
from rlphf.train.users import Pair
from rlphf.users.model import new_user_model

USERS = (10, 1_000_000)
STEPS = 20


def steps(config: Path, kind: str, count: int) -> tuple[float, float]:
    """Return the least seconds of a step with `count` users, whose pairs are drawn from all of them, and the peak in MB."""
    torch.set_num_threads(1)
    experiment = load(config)
    settings = experiment.dpo.model_copy(update={"epochs": 1})
    documents = islice(corpus(experiment.testbed, 1), 500)
    tokenizer = train_tokenizer([f"{a}\n{b}" for a, b in documents], 1000)
    model = small_llama(experiment.backbone, tokenizer, 0).requires_grad_(False)
    users = Users(**{**experiment.users.model_dump(), "start": "generic"}, model=kind)
    vocabulary = model.get_input_embeddings().weight
    user_model = new_user_model(users, torch.arange(1, count + 1), vocabulary, seed=1)
    drawn = torch.randint(1, count + 1, (STEPS * settings.batch_size,), generator=torch.Generator().manual_seed(0))
    pairs = [Pair([5] * 20, [5] * 20, [6] * 30, [7] * 25, user) for user in drawn.tolist()]
    trainer = DPOTrainer(add_policy(model, settings.lora, 0), tokenizer, user_model, pairs, settings, seed=0)
    trainer.reference = torch.zeros(len(pairs), 2)
    seconds = []
    for number in range(STEPS):
        start = time.process_time()
        trainer.update(number)
        seconds.append(time.process_time() - start)
    return min(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print time and memory of each user model with few and many users, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "USERS"), help="measure one in this process")
    options = parser.parse_args()
    if options.one:
        print(*steps(options.config, options.one[0], int(options.one[1])))
        return
    for kind in ("individual", "cluster"):
        found = []
        for count in USERS:
            command = [sys.executable, __file__, str(options.config), "--one", kind, str(count)]
            last = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
            found.append([float(value) for value in last.split()])
            print(f"{kind:10} {count:9} users  {found[-1][0]:.3f} s a step  {found[-1][1]:6.0f} MB")
        print(f"{kind:10}     ratio        {found[1][0] / found[0][0]:.2f}            {found[1][1] / found[0][1]:.2f}")


if __name__ == "__main__":
    main()

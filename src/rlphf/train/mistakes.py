"""How PPO makes the mistakes of Personalized Soups' release, where a switch under `mistakes` asks for one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlphf.train.ppo import PPOTrainer


def random_head(head: nn.Linear, seed: int) -> None:
    """Give the reward model's head new random weights, as a linear layer starts with.

    The release loads the trained head into a copy that the forward pass does not use.
    """
    bound = head.in_features**-0.5
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        nn.init.uniform_(head.weight, -bound, bound)


class WithoutResponse(PPOTrainer):
    """PPO that rewards the prompts alone, as the release's P-MORL does: the sampled response never reaches the reward model."""

    def score(self, judged: Sequence[Sequence[list[int]]], responses: Sequence[list[int]]) -> Tensor:
        """Return the reward model's mean score (B,) of the prompts in `judged`, at the last token of each."""
        ends = [forms[0][-1:] for forms in judged]
        return super().score([[form[:-1] for form in forms] for forms in judged], ends)

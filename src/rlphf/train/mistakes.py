"""PPO with mistakes of Personalized Soups' release, for the switches under `mistakes`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlphf.train.ppo import PPOTrainer


def random_head(width: int, seed: int) -> Tensor:
    """Return new random weights (`width`,) of a reward model's head, as a linear layer starts with.

    The release loads the trained head into a copy that the forward pass does not use.
    """
    bound = width**-0.5
    return torch.empty(width).uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed))


class WithoutResponse(PPOTrainer):
    """PPO that rewards the prompts alone, as the release's P-MORL does: the sampled response never reaches the reward model."""

    def score(self, judged: Sequence[Sequence[list[int]]], responses: Sequence[list[int]], which: Sequence[int]) -> Tensor:
        """Return the reward models' mean score (B,) of the prompts in `judged`, at the last token of each."""
        ends = [forms[0][-1:] for forms in judged]
        return super().score([[form[:-1] for form in forms] for forms in judged], ends, which)

"""Reward models beside policies on one backbone: scores as plain PEFT gives them, without a second copy of the weights."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlphf.errors import InputError
from rlphf.lm.batches import hidden_states, join
from rlphf.lm.stack import PREFIX, Stack, one_each
from rlphf.soup.adapter import ABOUT, Adapter, check_backbone, read_about, read_reward_model


def check_rewards(rewards: Iterable[tuple[str, Path]], backbone_sha256: str) -> None:
    """Raise InputError unless `rewards`, (preference, adapter folder), are these preferences' reward models on the backbone."""
    for name, folder in rewards:
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such adapter folder; train the reward model of {name}, or correct the path")
        about = read_about(folder)
        if about.get("kind") != "reward" or about.get("preference") != name:
            found = f"kind {about.get('kind')!r} of {about.get('preference')!r}"
            raise InputError(f"{folder / ABOUT}: expected the reward model of {name}, got {found}; correct the path")
        check_backbone(folder, backbone_sha256)


class Rewards(Protocol):
    """What rewards policies: one source of scores for each."""

    def score(
        self, judged: Sequence[Sequence[list[int]]], responses: Sequence[list[int]], which: Sequence[int], pad_id: int
    ) -> Tensor:
        """Return the score (B,) of each response by source `which[i]`, as an answer to each of its prompts in `judged[i]`."""


class RewardModels:
    """N reward models: their LoRAs, off until they score, and their scalar heads (N, H).

    The score of a text is head . (last hidden state of its last token) with the LoRA on: exactly what `PeftModel.from_pretrained`
    on a sequence classifier computes.
    """

    def __init__(self, model: PreTrainedModel, folders: Sequence[Path], backbone_sha256: str):
        """Read the reward models in `folders` and hang them on the backbone `model`.

        Raises InputError for an adapter of another backbone, without a head, or with other layers than the model has.
        """
        self.model = model
        found = [read_reward_model(folder) for folder in folders]
        for folder, (adapter, head) in zip(folders, found, strict=True):
            check_backbone(folder, backbone_sha256)
            _check_whole(model, adapter)
            if head.shape != (1, model.config.hidden_size):
                wanted = f"[1, {model.config.hidden_size}]"
                raise InputError(
                    f"{folder}: its score head is {list(head.shape)}, the backbone's states need {wanted}; train it again"
                )
        self.stack = Stack(model, [adapter.modules for adapter, _ in found], [adapter.scaling for adapter, _ in found])
        self.heads = torch.cat([head for _, head in found]).float().to(model.device)

    @torch.no_grad()
    def score(
        self, judged: Sequence[Sequence[list[int]]], responses: Sequence[list[int]], which: Sequence[int], pad_id: int
    ) -> Tensor:
        """Return the score (B,) that model `which[i]` gives response i: the mean over its encoded prompts in `judged[i]`.

        Policies on the same backbone have to be off.
        """
        owner = [i for i, prompts in enumerate(judged) for _ in prompts]
        prompts = [prompt for group in judged for prompt in group]
        device = self.heads.device
        batch = join(prompts, [responses[i] for i in owner], pad_id, device)
        models = [which[i] for i in owner]
        with self.stack.mixing(one_each(models, len(self.stack), device)) as select_rows:
            _, last = hidden_states(self.model, batch, select_rows=select_rows)
        scores = (last.float() * self.heads[models]).sum(-1)
        sums = scores.new_zeros(len(judged)).index_add(0, torch.tensor(owner, device=device), scores)
        return sums / torch.tensor([len(prompts) for prompts in judged], device=device)


def _check_whole(model: PreTrainedModel, adapter: Adapter) -> None:
    """Raise InputError unless the adapter has factors for all layers of its targets' names."""
    targets = adapter.config.get("target_modules")
    # PEFT, where it has wrapped a layer already, has put it one name deeper.
    layers = [name.removesuffix(".base_layer") for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    wanted = {PREFIX + name for name in layers if isinstance(targets, list) and name.rpartition(".")[2] in targets}
    if missing := sorted(wanted - adapter.modules.keys()):
        raise InputError(f"{adapter.folder}: module {missing[0]} has no factors; train it again")

"""P-DPO: one LoRA policy and a user model, trained together on pairs that users chose, on one frozen backbone in memory.

L = -[alpha log s(h(u)) + (1 - alpha) log s(h(u_0))], with h(u) = beta [log pi(y1|x,u) / pi_ref(y1|x) - log pi(y2|x,u) /
pi_ref(y2|x)]. The policy reads the soft tokens of the pair's user, or of the generic one. The reference is the same backbone
without adapter, soft tokens and user's text. Source: Li et al. 2024, section 4; `dpo_terms` has the formulas, `users` the loop.

h asks only which of two responses is likelier; both may become unlikely. With `dpo.sft_weight` the log-likelihood of the chosen
one per token is part of either term, as in Pang et al. 2024, "Iterative Reasoning Preference Optimization". The release has none.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlphf.cards import adapter_card
from rlphf.config import load
from rlphf.lm.adapters import active, add_policy, initial_a_digest, write_policy
from rlphf.lm.backbone import backbone_sha256
from rlphf.seeds import derive
from rlphf.settings_users import DPO
from rlphf.tracking.record import step
from rlphf.train import dpo_terms as terms
from rlphf.train.checkpoint import own_checkpoints
from rlphf.train.user_files import read_material, training_inputs, write_results
from rlphf.train.users import Pair, PairTrainer, Term
from rlphf.users.embed import response_logprobs
from rlphf.users.methods import settings_of


class DPOTrainer(PairTrainer):
    """Trains a policy: a text is worth beta log pi / pi_ref, its implicit reward."""

    settings: DPO

    @property
    def scale(self) -> float:  # type: ignore[override]
        """beta."""
        return self.settings.beta

    def worth(self, prompts: Sequence[list[int]], responses: Sequence[Sequence[list[int]]], soft: Tensor | None) -> Tensor:
        """Return the responses' log-probabilities (B, 2) under the policy."""
        return response_logprobs(self.model, prompts, responses, self.tokenizer, soft)

    @torch.no_grad()
    def reference_worth(self, pairs: Sequence[Pair]) -> Tensor:
        """Return the backbone's log-probabilities (B, 2) of the chosen and the rejected response, told of no user."""
        found = torch.zeros(len(pairs), 2)
        for part in self.alike(pairs):
            responses = [(pairs[i].chosen, pairs[i].rejected) for i in part]
            with active(self.model, None):
                found[part] = self.worth([pairs[i].bare for i in part], responses, None).cpu()
        return found

    def term_losses(self, term: Term) -> Tensor:
        """Return the loss that `dpo.loss` names, and `dpo.sft_weight` of the chosen response's cross-entropy per token."""
        losses = terms.pair_loss(term.margins, self.settings.loss, self.settings.beta)
        return losses - self.settings.sft_weight * term.chosen if self.settings.sft_weight else losses


def dpo_step(config: Path, model: str, pairs: Sequence[Path], backbone: Path, users_path: Path | None, out: Path) -> None:
    """Train policy and user model on the training pairs in the files `pairs`; write `out`/adapter and the user model beside it.

    `model` says which user model it is (`users.methods`). `users_path` is a file of users' texts (columns id and text), which a
    model that reads them needs. The margins of the pairs of other splits go to `out`/scores.parquet. Goes on from the newest
    checkpoint in `out`/checkpoints.
    """
    experiment = load(config)
    settings, user_settings, seed = experiment.dpo, settings_of(experiment.users, model), derive(experiment.seed, "dpo")
    inputs = training_inputs(backbone, pairs, users_path, user_settings)
    params = {"dpo": settings.model_dump(mode="json"), "users": user_settings.model_dump(mode="json")}
    with (
        step("dpo", out, experiment, params, inputs, {"model": model}) as run,
        own_checkpoints(out / "checkpoints", run) as folder,
    ):
        material = read_material(user_settings, settings, pairs, backbone, users_path, seed)
        policy = add_policy(material.base, settings.lora, derive(experiment.seed, "lora"))
        initial = initial_a_digest(policy)
        trainer = DPOTrainer(policy, material.tokenizer, material.user_model, material.train, settings, seed)
        trainer.train(run, folder)
        digest = backbone_sha256(backbone)
        about = {"preference": "users", "backbone_sha256": digest, "lora_a_sha256": initial}
        write_policy(policy, out / "adapter", str(backbone), about, adapter_card(run, experiment, about, backbone))
        run.output(out / "adapter", *write_results(trainer, material, user_settings, digest, out, run))

"""P-RM: a reward model that knows its users, P-DPO's twin: a LoRA with a scalar head, and a user model.

L = -[alpha log s(r(x,y1,u) - r(x,y2,u)) + (1 - alpha) log s(r(x,y1,u_0) - r(x,y2,u_0))]. The reward r(x, y, u) is the head on
the hidden state of the text's last token, which reads the user's soft tokens before the text. Source: Li et al. 2024, section 4,
whose release has no code of it.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rlphf.cards import adapter_card
from rlphf.config import load
from rlphf.lm.adapters import POLICY, add_policy, lora_config, write_adapter
from rlphf.lm.backbone import backbone_sha256
from rlphf.seeds import derive
from rlphf.settings_users import PRM
from rlphf.tracking.record import step
from rlphf.train import dpo_terms as terms
from rlphf.train.checkpoint import own_checkpoints
from rlphf.train.user_files import read_material, training_inputs, write_results
from rlphf.train.users import Pair, PairTrainer, Term
from rlphf.users.embed import last_states
from rlphf.users.methods import settings_of
from rlphf.users.model import UserModel


class UserRewardTrainer(PairTrainer):
    """Trains a reward model: a text is worth its reward."""

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        user_model: UserModel,
        pairs: Sequence[Pair],
        settings: PRM,
        seed: int,
    ):
        # The head starts as TRL's reward models do here: N(0, 0.02).
        start = torch.randn(1, user_model.width, generator=torch.Generator().manual_seed(derive(seed, "head"))) * 0.02
        self.head = nn.Parameter(start.to(model.device))
        super().__init__(model, tokenizer, user_model, pairs, settings, seed, {"score.weight": self.head})

    def worth(self, prompts: Sequence[list[int]], responses: Sequence[Sequence[list[int]]], soft: Tensor | None) -> Tensor:
        """Return the rewards (B, 2) of whole texts."""
        states = last_states(self.model, prompts, responses, self.tokenizer, soft)
        return (states.float() @ self.head.T).squeeze(-1)

    def reference_worth(self, pairs: Sequence[Pair]) -> Tensor:
        """Return zeros (B, 2): a reward has no reference."""
        return torch.zeros(len(pairs), 2)

    def term_losses(self, term: Term) -> Tensor:
        """Return the Bradley-Terry loss."""
        return terms.pair_loss(term.margins, "sigmoid", 1.0)


def prm_step(config: Path, model: str, pairs: Sequence[Path], backbone: Path, users_path: Path | None, out: Path) -> None:
    """Train a reward model that knows its users on the training pairs in the files `pairs`; write `out`/adapter.

    The adapter is one of a sequence classifier, as other reward models' are; the user model lies beside it. `model` and
    `users_path` are as for P-DPO. The margins of the pairs of other splits go to `out`/scores.parquet.
    """
    experiment = load(config)
    settings, user_settings, seed = experiment.prm, settings_of(experiment.users, model), derive(experiment.seed, "prm")
    inputs = training_inputs(backbone, pairs, users_path, user_settings)
    params = {"prm": settings.model_dump(mode="json"), "users": user_settings.model_dump(mode="json")}
    with (
        step("prm", out, experiment, params, inputs, {"model": model}) as run,
        own_checkpoints(out / "checkpoints", run) as folder,
    ):
        material = read_material(user_settings, settings, pairs, backbone, users_path, seed)
        adapted = add_policy(material.base, settings.lora, derive(seed, "lora"))
        trainer = UserRewardTrainer(adapted, material.tokenizer, material.user_model, material.train, settings, seed)
        trainer.train(run, folder)
        digest = backbone_sha256(backbone)
        state = get_peft_model_state_dict(adapted, adapter_name=POLICY) | {"base_model.model.score.weight": trainer.head}
        described = lora_config(settings.lora, task_type="SEQ_CLS").to_dict() | {"modules_to_save": ["classifier", "score"]}
        about = {"kind": "reward", "preference": "users", "backbone_sha256": digest}
        write_adapter(out / "adapter", state, described, str(backbone), about, adapter_card(run, experiment, about, backbone))
        run.output(out / "adapter", *write_results(trainer, material, user_settings, digest, out, run))

"""P-RM: rewards that know their users, saved as a plain classifier's adapter, against plain passes; and that it learns."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from tests.train.choosing import CONFIG, OWNERS, ROWS, accuracy, opposite
from torch import Tensor

from rlphf.cli import main
from rlphf.data.records import PAIRS
from rlphf.files import read_json, read_parquet, sha256, write_parquet
from rlphf.lm.adapters import add_policy
from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.lm.reward_model import load_reward_model
from rlphf.settings import Lora
from rlphf.settings_users import PRM, Users
from rlphf.tracking.record import step
from rlphf.train.user_reward import UserRewardTrainer, prm_step
from rlphf.train.users import encode_pairs
from rlphf.users.model import load_user_model, new_user_model
from rlphf.users.records import SCORED

SETTINGS = {
    "lora": Lora(rank=4, dropout=0.5),
    "batch_size": 4,
    "learning_rate": 0.01,
    "user_learning_rate": 0.05,
    "warmup_steps": 2,
}


def make(backbone: Path, kind: str = "individual", **settings) -> UserRewardTrainer:
    chosen, told = PRM(**(SETTINGS | settings)), Users(model=kind, tokens=2, clusters=3)
    base, tokenizer = load_backbone(backbone)
    users = new_user_model(told, [1, 2, 3], base.get_input_embeddings().weight, seed=4)
    pairs = encode_pairs(tokenizer, ROWS, told, chosen, 512)
    trainer = UserRewardTrainer(add_policy(base, chosen.lora, seed=3), tokenizer, users, pairs, chosen, seed=5)
    trainer.reference = trainer.reference_worth(pairs)
    return trainer


def reward(trainer: UserRewardTrainer, text: list[int], user: int) -> Tensor:
    """The reward of a text by one forward pass on it alone."""
    table = trainer.model.get_input_embeddings().weight
    soft = trainer.user_model([user])[0]
    states = trainer.model(inputs_embeds=torch.cat([soft, table[text]])[None], output_hidden_states=True).hidden_states
    return (states[-1][0, -1] * trainer.head[0]).sum()


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_the_loss_is_the_mixture_of_bradley_terry_losses_of_plain_rewards(tiny_backbone: Path, alpha: float) -> None:
    trainer = make(tiny_backbone, alpha=alpha)
    own, generic = trainer.both_terms(trainer.pairs, trainer.reference)
    total = 0.0
    for pair, user in zip(trainer.pairs, OWNERS, strict=True):
        for weight, reader in ((alpha, user), (1 - alpha, 0)):
            chosen, rejected = (reward(trainer, pair.prompt + r, reader) for r in (pair.chosen, pair.rejected))
            total -= weight * float(torch.nn.functional.logsigmoid(chosen - rejected).detach())
    assert float(trainer.losses(own, generic).detach().mean()) == pytest.approx(total / 6, abs=1e-5)


def test_with_uniform_users_it_is_a_reward_model_that_knows_none(tiny_backbone: Path) -> None:
    trainer = make(tiny_backbone, kind="uniform", alpha=0.7)
    own, generic = trainer.margins(trainer.pairs, trainer.reference)
    assert own is None and generic is not None
    plain = [reward(trainer, p.prompt + p.chosen, 0) - reward(trainer, p.prompt + p.rejected, 0) for p in trainer.pairs]
    assert torch.allclose(generic, torch.stack(plain), atol=1e-5)


def test_a_resumed_training_ends_as_an_undisturbed_one_to_the_bit(tiny_backbone: Path, tmp_path: Path) -> None:
    def state(trainer: UserRewardTrainer) -> dict[str, Tensor]:
        return {k: v.detach().clone() for k, v in trainer.trained.items()} | {"rows": trainer.user_model.rows.clone()}

    whole, stopped, resumed = (make(tiny_backbone, epochs=3) for _ in range(3))
    with step("prm", tmp_path / "whole") as run:
        whole.train(run, tmp_path / "whole" / "checkpoints")
    for number in range(3):
        stopped.update(number)
    stopped.checkpoint(tmp_path / "halves" / "checkpoints", 3)
    with step("prm", tmp_path / "halves") as run:
        resumed.train(run, tmp_path / "halves" / "checkpoints")
    found, wanted = state(resumed), state(whole)
    assert "score.weight" in wanted and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_two_opposite_users_are_both_served_and_the_files_are_plain_pefts(tiny_backbone: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((CONFIG % (0.5, 8)).replace("beta: 0.5, ", "").replace("dpo:", "prm:"))
    write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist(opposite(), PAIRS))
    out = tmp_path / "out"
    command = ["users", "train", "--config", str(tmp_path / "config.yaml"), "--pairs", str(tmp_path / "pairs.parquet")]
    assert main([*command, "--model", "prm", "--backbone", str(tiny_backbone), "--out", str(out)]) == 0
    assert min(accuracy(out, user) for user in (1, 2)) > 0.85
    assert accuracy(out, 1, "generic") > 0.85 and accuracy(out, 2, "generic") < 0.5
    assert read_json(out / "adapter" / "adapter.json")["kind"] == "reward"
    assert "# users (reward, prm)" in (out / "adapter" / "README.md").read_text()
    # Margins again, by plain PEFT's classifier, reading soft tokens of the loaded user model.
    model, tokenizer = load_reward_model(tiny_backbone, out / "adapter")
    users = load_user_model(out, backbone_sha256(tiny_backbone))
    rows = [r for r in opposite() if r["split"] == "test"]
    pairs = encode_pairs(tokenizer, rows, Users(tokens=2), PRM(), 512)
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        for pair, scored in zip(pairs[:6], read_parquet(out / "scores.parquet", SCORED).to_pylist()[:6], strict=True):
            for name, user in (("own", pair.user), ("generic", 0)):
                soft = users([user])[0]
                each = [
                    float(model(inputs_embeds=torch.cat([soft, table[pair.prompt + r]])[None]).logits[0, 0])
                    for r in (pair.chosen, pair.rejected)
                ]
                assert scored[name] == pytest.approx(each[0] - each[1], abs=1e-4)


def test_training_pairs_alone_leave_an_empty_table_of_scores(tiny_backbone: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{experiment: test, users: {tokens: 2}, prm: {epochs: 1}}")
    write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist([r for r in opposite() if r["split"] == "train"], PAIRS))
    for name in ("one", "two"):
        prm_step(tmp_path / "config.yaml", "prm", [tmp_path / "pairs.parquet"], tiny_backbone, None, tmp_path / name)
    assert len(read_parquet(tmp_path / "one" / "scores.parquet", SCORED)) == 0
    for part in ("adapter", "user_model.safetensors"):
        assert sha256(tmp_path / "one" / part) == sha256(tmp_path / "two" / part)

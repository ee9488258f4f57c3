"""P-DPO on a tiny backbone: its loss against plain ones, who gets gradients, resuming, bad input, and that it learns."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from tests.train.choosing import CONFIG, OWNERS, ROWS, accuracy, opposite, row
from torch import Tensor

from rlphf.cli import main
from rlphf.data.records import PAIRS
from rlphf.errors import InputError
from rlphf.files import read_json, read_parquet, sha256, write_parquet
from rlphf.lm.adapters import active, add_policy
from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.settings import Lora
from rlphf.settings_users import DPO, Users
from rlphf.tracking.record import read_metrics, step
from rlphf.train.checkpoint import newest_checkpoint
from rlphf.train.dpo import DPOTrainer, dpo_step
from rlphf.train.users import Pair, encode_pairs
from rlphf.users.embed import response_logprobs
from rlphf.users.model import load_user_model, new_user_model
from rlphf.users.records import SCORED

SETTINGS: dict[str, Any] = {
    "lora": Lora(rank=4, alpha=8, dropout=0.5, targets=["q_proj", "v_proj", "up_proj", "down_proj"]),
    "batch_size": 4,
    "micro_batch_size": 4,
    "learning_rate": 0.01,
    "user_learning_rate": 0.05,
    "warmup_steps": 2,
}


@pytest.fixture
def make(tiny_backbone: Path) -> Callable[..., DPOTrainer]:
    """Make a trainer on ROWS: of a fresh policy, or with random B if `moved`; users 1, 2 and 3 have rows."""

    def made(users: dict | None = None, moved: bool = True, rows: list[dict] = ROWS, **settings) -> DPOTrainer:
        chosen = DPO(**(SETTINGS | settings))
        told = Users(**({"tokens": 2, "clusters": 3} | (users or {})))
        base, tokenizer = load_backbone(tiny_backbone)
        user_model = new_user_model(told, [1, 2, 3], base.get_input_embeddings().weight, seed=4)
        model = add_policy(base, chosen.lora, seed=3)
        if moved:
            torch.manual_seed(11)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_B" in name:
                        parameter.normal_(std=0.3)
        pairs = encode_pairs(tokenizer, rows, told, chosen, 512)
        trainer = DPOTrainer(model, tokenizer, user_model, pairs, chosen, seed=5)
        trainer.reference = trainer.reference_worth(pairs)
        return trainer

    return made


def plain_logprob(model, prompt: list[int], response: list[int], soft: Tensor | None = None) -> Tensor:
    """Log-probability of a response by one forward pass of the whole model on one text, soft tokens first."""
    table = model.get_input_embeddings().weight
    count = 0 if soft is None else len(soft)
    parts = [table[prompt + response]] if soft is None else [soft, table[prompt + response]]
    logits = model(inputs_embeds=torch.cat(parts)[None]).logits[0].log_softmax(-1)
    start = count + len(prompt) - 1
    return torch.stack([logits[start + t, token] for t, token in enumerate(response)]).sum()


def plain_margin(trainer: DPOTrainer, pair: Pair, user: int) -> Tensor:
    """h(u) of a pair by the formula, four passes on one text each."""
    ratios = []
    soft = trainer.user_model([user])[0] if trainer.user_model.tokens_per_user else None
    for response in (pair.chosen, pair.rejected):
        policy = plain_logprob(trainer.model, pair.prompt, response, soft)
        with torch.no_grad(), active(trainer.model, None):
            reference = plain_logprob(trainer.model, pair.bare, response)
        ratios.append(policy - reference)
    return trainer.settings.beta * (ratios[0] - ratios[1])


def batch_loss(trainer: DPOTrainer, index: list[int], gathered: Any = None) -> Tensor:
    """The mean loss of pairs in one pass."""
    return trainer.losses(*trainer.both_terms([trainer.pairs[i] for i in index], trainer.reference[index], gathered)).mean()


def weights(trainer: DPOTrainer) -> dict[str, Tensor]:
    """All that training changes."""
    state = {k: v.detach().clone() for k, v in trainer.trained.items()}
    return state | {"rows": trainer.user_model.rows.clone()}


def trained(trainer: DPOTrainer, folder: Path) -> dict[str, Tensor]:
    with step("dpo", folder) as run:
        trainer.train(run, folder / "checkpoints")
    return weights(trainer)


# The loss.


@pytest.mark.parametrize("kind", ["individual", "cluster", "uniform"])
def test_margins_and_loss_are_those_of_plain_passes_on_one_text(make, kind: str) -> None:
    trainer = make({"model": kind}, alpha=0.3)
    own, generic = trainer.margins(trainer.pairs, trainer.reference, both=True)
    total = 0.0
    for i, pair in enumerate(trainer.pairs):
        plain = [float(plain_margin(trainer, pair, user).detach()) for user in (OWNERS[i], 0)]
        assert [float(own[i].detach()), float(generic[i].detach())] == pytest.approx(plain, abs=1e-4)
        each = [-float(torch.nn.functional.logsigmoid(torch.tensor(h))) for h in plain]
        total += 0.3 * each[0] + 0.7 * each[1]
    found = float(batch_loss(trainer, list(range(6))).detach())
    assert found == pytest.approx(total / 6, abs=1e-5)
    # Users 1, 2 and 3 differ from the generic user; user 0 and user 99, whom nobody trained, are the generic user.
    differs = ((own - generic).detach().abs() > 1e-4).tolist()
    assert differs == [kind != "uniform" and user in (1, 2, 3) for user in OWNERS]


def test_the_chosen_responses_cross_entropy_per_token_is_part_of_both_terms(make) -> None:
    without, trainer = (make({"model": "individual"}, alpha=0.3, sft_weight=weight) for weight in (0.0, 0.7))
    total = 0.0
    for user, pair in zip(OWNERS, trainer.pairs, strict=True):
        for share, reader in ((0.3, user), (0.7, 0)):
            found = plain_logprob(trainer.model, pair.prompt, pair.chosen, trainer.user_model([reader])[0])
            total -= share * float(found.detach()) / len(pair.chosen)
    losses = [float(batch_loss(each, list(range(6))).detach()) for each in (without, trainer)]
    assert losses[1] - losses[0] == pytest.approx(0.7 * total / 6, abs=1e-5)


def test_an_unknown_users_margin_is_the_generic_ones_to_the_bit(make) -> None:
    trainer = make()
    own, generic = trainer.margins(trainer.pairs, trainer.reference, both=True)
    assert torch.equal(own[[2, 4]], generic[[2, 4]])


def test_the_reference_moves_with_nothing_that_is_trained(make, tiny_backbone: Path) -> None:
    trainer = make()
    before = trainer.reference.clone()
    with torch.no_grad():
        trainer.user_model.generic.add_(3.0)
        trainer.user_model.rows.add_(3.0)
        for parameter in trainer.trained.values():
            parameter.add_(0.1)
    assert torch.equal(trainer.reference_worth(trainer.pairs), before)
    base, tokenizer = load_backbone(tiny_backbone)
    for i, pair in enumerate(trainer.pairs):
        for k, response in enumerate((pair.chosen, pair.rejected)):
            wanted = float(response_logprobs(base, [pair.bare], [[response]], tokenizer))
            assert float(before[i, k]) == pytest.approx(wanted, abs=1e-4)


def test_an_untrained_policy_with_uniform_users_has_margins_of_0(make) -> None:
    own, generic = make({"model": "uniform"}, moved=False).margins(*_all(make({"model": "uniform"}, moved=False)), both=True)
    assert own.detach().abs().max() < 1e-5 and torch.equal(own, generic)


def _all(trainer: DPOTrainer) -> tuple[list[Pair], Tensor]:
    return list(trainer.pairs), trainer.reference


# Vanilla DPO.


def vanilla(trainer: DPOTrainer, pairs: list[Pair]) -> Tensor:
    """Plain DPO (Rafailov et al. 2023, equation 7), knowing no users, text by text."""
    losses = []
    for pair in pairs:
        policy = [plain_logprob(trainer.model, pair.prompt, r) for r in (pair.chosen, pair.rejected)]
        with torch.no_grad(), active(trainer.model, None):
            base = [plain_logprob(trainer.model, pair.prompt, r) for r in (pair.chosen, pair.rejected)]
        losses.append(-torch.nn.functional.logsigmoid(trainer.settings.beta * (policy[0] - policy[1] - base[0] + base[1])))
    return torch.stack(losses).mean()


def test_alpha_0_with_uniform_users_is_vanilla_dpo(make) -> None:
    trainer = make({"model": "uniform"}, alpha=0.0)
    wanted = vanilla(trainer, trainer.pairs)
    wanted.backward()
    gradients = {name: p.grad.clone() for name, p in trainer.trained.items()}
    trainer.optimizer.zero_grad(set_to_none=True)
    found = batch_loss(trainer, list(range(6)))
    found.backward()
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), abs=1e-6)
    for name, p in trainer.trained.items():
        assert torch.allclose(p.grad, gradients[name], atol=1e-5), name


def test_with_uniform_users_every_alpha_trains_the_same_policy_to_the_bit(make, tmp_path: Path) -> None:
    found = [trained(make({"model": "uniform"}, alpha=a, epochs=1), tmp_path / str(a)) for a in (0.0, 0.3, 1.0)]
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]) and torch.equal(value, found[2][name]), name


@pytest.mark.parametrize(("loss", "sft"), [("sigmoid", 0.0), ("hinge", 0.0), ("sigmoid", 0.7)])
def test_with_uniform_users_the_loss_is_that_of_trls_trainer(
    make, tiny_backbone: Path, tmp_path: Path, loss: str, sft: float
) -> None:
    from datasets import Dataset
    from trl import DPOConfig
    from trl import DPOTrainer as Theirs

    ours = make({"model": "uniform"}, loss=loss, beta=0.3, sft_weight=sft)
    base, tokenizer = load_backbone(tiny_backbone)
    model = add_policy(base, ours.settings.lora, seed=3)
    arguments = DPOConfig(
        output_dir=str(tmp_path),
        beta=0.3,
        loss_type=[loss, "sft"],
        loss_weights=[1.0, sft],
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
    )
    data = Dataset.from_dict({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]})
    theirs = Theirs(model, args=arguments, train_dataset=data, processing_class=tokenizer)
    # TRL's reference is the policy as it was given; only then is it moved to where ours is.
    given = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in ours.trained.items():
            given[name].copy_(value)
    # Pair by pair: TRL means the cross-entropy over the tokens of a batch, not those of each response.
    for i, pair in enumerate(ours.pairs):
        row = {"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected}
        wanted = theirs.compute_loss(model.eval(), theirs.data_collator([row]))
        assert float(batch_loss(ours, [i]).detach()) == pytest.approx(float(wanted.detach()), abs=1e-6)


# Gradients.


def test_alpha_1_computes_and_moves_individual_terms_alone(make) -> None:
    trainer = make({"model": "cluster"}, alpha=1.0)
    own, generic = trainer.margins(trainer.pairs, trainer.reference)
    assert generic is None
    index = [0, 1, 3, 5]
    gathered = trainer.user_model.gather([OWNERS[i] for i in index])
    loss = batch_loss(trainer, index, gathered)
    loss.backward()
    plain = [torch.nn.functional.logsigmoid(plain_margin(trainer, trainer.pairs[i], OWNERS[i]).detach()) for i in index]
    assert float(loss.detach()) == pytest.approx(-float(torch.stack(plain).mean()), abs=1e-5)
    # The generic user's weights are in no term of known users.
    assert trainer.user_model.generic.grad is None or not trainer.user_model.generic.grad.any()
    assert gathered.values.grad.abs().sum(1).min() > 0


def test_alpha_0_moves_no_user(make, tmp_path: Path) -> None:
    trainer = make(alpha=0.0, epochs=1)
    before = trainer.user_model.rows.clone()
    after = trained(trainer, tmp_path / "run")
    assert torch.equal(after["rows"], before) and not trainer.rows.steps.any()
    assert trainer.margins(trainer.pairs, trainer.reference)[0] is None


def test_a_step_moves_the_users_of_its_pairs_and_no_other(make) -> None:
    trainer = make(rows=[ROWS[0], ROWS[3], ROWS[2], ROWS[4]], epochs=1)
    before = weights(trainer)
    trainer.update(0)
    after = weights(trainer)
    moved = [bool((after["rows"][k] != before["rows"][k]).any()) for k in range(3)]
    # Pairs of user 1, the generic user and user 99, who has no row.
    assert moved == [True, False, False]
    assert trainer.rows.steps.tolist() == [1, 0, 0] and not trainer.rows.mean[1:].any()
    # e_1 = e_0 + o_1: the generic user moves with user 1, and by its own term.
    assert not torch.equal(after["users.generic"], before["users.generic"])


@pytest.mark.parametrize("kind", ["individual", "cluster"])
def test_the_gradient_of_a_step_is_that_of_its_loss_whatever_the_micro_batch(make, kind: str) -> None:
    found: dict[int, dict[str, Tensor]] = {}
    losses = []
    for size in (1, 2, 4):
        trainer = make({"model": kind}, micro_batch_size=size, max_grad_norm=None, epochs=1)
        trainer.order = [[0, 1, 4, 5]]
        kept: dict[str, Tensor] = {}

        def keep(slots: Tensor, gradient: Tensor, rate: float, kept: dict[str, Tensor] = kept) -> None:
            kept["rows"] = gradient.clone()

        trainer.rows.step = keep  # type: ignore[method-assign]
        losses.append(trainer.update(0)["loss"])
        found[size] = kept | {name: p.grad.clone() for name, p in trainer.trained.items()}
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-6)
    for name, value in found[1].items():
        assert value.abs().max() > 0, name
        for size in (2, 4):
            assert torch.allclose(value, found[size][name], atol=1e-6, rtol=1e-4), name


def test_a_step_logs_the_loss_and_both_accuracies(make) -> None:
    trainer = make(alpha=0.5, epochs=1)
    index = trainer.order[0]
    own, generic = trainer.margins([trainer.pairs[i] for i in index], trainer.reference[index])
    found = trainer.update(0)
    assert found["own_margin"] == pytest.approx(float(own.detach().mean()), abs=1e-5)
    assert found["generic_accuracy"] == pytest.approx(float((generic > 0).float().mean()))
    assert found["learning_rate"] == pytest.approx(0.005) and found["grad_norm"] > 0


def test_equal_responses_count_half_in_a_logged_accuracy(make) -> None:
    trainer = make(alpha=0.5, epochs=1)
    trainer.pairs = [replace(pair, rejected=pair.chosen) for pair in trainer.pairs]
    trainer.reference = trainer.reference[:, :1].repeat(1, 2)
    found = trainer.update(0)
    assert found["own_accuracy"] == found["generic_accuracy"] == 0.5


# Resuming.


@pytest.mark.parametrize("kind", ["individual", "cluster"])
def test_a_resumed_training_ends_as_an_undisturbed_one_to_the_bit(make, tmp_path: Path, kind: str) -> None:
    settings = {"epochs": 4, "checkpoint_every": 3}
    whole = trained(make({"model": kind}, **settings), tmp_path / "whole")
    stopped = make({"model": kind}, **settings)
    with step("dpo", tmp_path / "halves") as run:
        run.resume(0)
        for number in range(5):
            run.log(stopped.update(number), step=number)
            if number == 2:
                stopped.checkpoint(tmp_path / "halves" / "checkpoints", 3)
    found = newest_checkpoint(tmp_path / "halves" / "checkpoints")
    assert found is not None and found[1]["step"] == 3
    resumed = make({"model": kind}, **settings)
    resumed.reference = torch.zeros(0, 2)
    halves = trained(resumed, tmp_path / "halves")
    for name, value in whole.items():
        assert torch.equal(value, halves[name]), name
    assert torch.equal(resumed.reference, stopped.reference)
    steps = [line["step"] for line in read_metrics(tmp_path / "halves" / "metrics.jsonl")]
    assert steps == list(range(len(resumed.order)))


def test_the_reference_is_computed_once_per_pair(make, tmp_path: Path, monkeypatch) -> None:
    trainer = make(epochs=3)
    asked: list[int] = []
    plain = trainer.reference_worth
    monkeypatch.setattr(trainer, "reference_worth", lambda pairs: (asked.append(len(pairs)), plain(pairs))[1])
    trainer.reference = torch.zeros(0, 2)
    trained(trainer, tmp_path / "run")
    assert asked == [6]


# Text and length.


def test_the_users_text_is_in_the_policys_prompt_and_not_in_the_references(make, tiny_backbone: Path) -> None:
    _, tokenizer = load_backbone(tiny_backbone)
    told = Users(text="both", tokens=2, text_place="behind")
    first, other = encode_pairs(tokenizer, ROWS[:2], told, DPO(**SETTINGS), 512, {1: "I like bees.", 3: "  "})
    assert "Bees? I like bees." in tokenizer.decode(first.prompt) and "like" not in tokenizer.decode(first.bare)
    # A blank text says nothing.
    assert other.prompt == other.bare
    silent = encode_pairs(tokenizer, ROWS[:1], Users(text="implicit"), DPO(**SETTINGS), 512, {1: "I like bees."})
    assert silent[0].prompt == first.bare


def test_what_is_longer_than_the_context_keeps_the_end_of_the_prompt(tiny_backbone: Path) -> None:
    _, tokenizer = load_backbone(tiny_backbone)
    told = Users(text="both", tokens=4)
    texts = {1: "I like rivers and cats. " * 300}
    rows = [row(0, "Tell me about honey.", "Yes.", "No, no. " * 300, 1), row(1, "honey " * 500, "Yes.", "No.", 1)]
    (end,) = tokenizer(["<|assistant|>\n"], add_special_tokens=False)["input_ids"]
    for context in (512, 64, 40):
        for pair in encode_pairs(tokenizer, rows, told, DPO(**SETTINGS), context, texts):
            assert 4 + pair.length <= context and pair.chosen and pair.rejected
            assert pair.prompt[-len(end) :] == end and pair.bare[-len(end) :] == end
    question, _ = encode_pairs(tokenizer, rows, told, DPO(**SETTINGS), 512, texts)
    assert "Tell me about honey." in tokenizer.decode(question.prompt)
    with pytest.raises(InputError, match="4 soft tokens leave no room in 5 tokens"):
        encode_pairs(tokenizer, rows, told, DPO(**SETTINGS), 5, texts)
    with pytest.raises(InputError, match="^max_length: 1 token has no room for a prompt and a response; raise it"):
        encode_pairs(tokenizer, rows, Users(model="uniform"), DPO(**(SETTINGS | {"max_length": 1})), 512, texts)


# The step.


def setup(folder: Path, alpha: float = 0.5, epochs: int = 1) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG % (alpha, epochs))
    write_parquet(folder / "pairs.parquet", pa.Table.from_pylist(opposite(), PAIRS))
    return ["users", "train", "--config", str(folder / "config.yaml"), "--pairs", str(folder / "pairs.parquet")]


def test_two_opposite_users_are_both_served_by_p_dpo_and_not_by_vanilla_dpo(tiny_backbone: Path, tmp_path: Path) -> None:
    found = {}
    setup(tmp_path, epochs=12)
    for name, model in (("pdpo", "individual"), ("cluster", "cluster"), ("vanilla", "dpo")):
        pairs = [tmp_path / "pairs.parquet"]
        dpo_step(tmp_path / "config.yaml", model, pairs, tiny_backbone, None, tmp_path / name / "out")
        found[name] = [accuracy(tmp_path / name / "out", user) for user in (1, 2)]
    assert min(found["pdpo"]) > 0.85, found
    assert min(found["cluster"]) > 0.85, found
    assert found["vanilla"][0] > 0.85 and found["vanilla"][1] < 0.5, found
    # Without knowing who asks, the generic user of P-DPO serves the majority, as vanilla DPO does.
    assert accuracy(tmp_path / "pdpo" / "out", 1, "generic") > 0.6


def test_the_step_writes_an_adapter_and_a_user_model_that_plain_peft_and_loading_read(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    command = setup(tmp_path / "in")
    assert main([*command, "--model", "individual", "--backbone", str(tiny_backbone), "--out", str(tmp_path / "out")]) == 0
    out = tmp_path / "out"
    base, tokenizer = load_backbone(tiny_backbone)
    rows = opposite()
    pairs = encode_pairs(tokenizer, rows, Users(tokens=2), DPO(), 512)
    reference = [[float(response_logprobs(base, [p.bare], [[r]], tokenizer)) for r in (p.chosen, p.rejected)] for p in pairs[-6:]]
    policy = PeftModel.from_pretrained(base, out / "adapter").eval()
    users = load_user_model(out, backbone_sha256(tiny_backbone))
    scores = read_parquet(out / "scores.parquet", SCORED).to_pylist()
    with torch.no_grad():
        for scored, pair, (chosen, rejected) in zip(scores[-6:], pairs[-6:], reference, strict=True):
            for name, user in (("own", pair.user), ("generic", 0)):
                soft = users([user])[0]
                h = plain_logprob(policy, pair.prompt, pair.chosen, soft) - plain_logprob(
                    policy, pair.prompt, pair.rejected, soft
                )
                assert scored[name] == pytest.approx(0.5 * (float(h) - chosen + rejected), abs=1e-4)
    # What was trained on is not scored.
    assert [s["id"] for s in scores] == [r["id"] for r in rows if r["split"] == "test"]
    assert read_json(out / "adapter" / "adapter.json")["kind"] == "policy"
    about = read_json(out / "user_model.json")
    assert (about["kind"], about["users"], about["tokens"], about["text"]) == ("individual", 2, 2, "implicit")
    assert "text_place" not in about
    record = read_json(out / "record.json")
    assert record["status"] == "finished" and len(record["outputs"]) == 4 and record["tags"]["updates"] == "5"
    assert not (out / "checkpoints").exists()


def test_the_same_step_gives_the_same_bytes(tiny_backbone: Path, tmp_path: Path) -> None:
    setup(tmp_path / "in")
    for name in ("one", "two"):
        dpo_step(
            tmp_path / "in" / "config.yaml", "cluster", [tmp_path / "in" / "pairs.parquet"], tiny_backbone, None, tmp_path / name
        )
    for part in ("adapter", "user_model.safetensors", "user_model.json", "scores.parquet"):
        assert sha256(tmp_path / "one" / part) == sha256(tmp_path / "two" / part)


def refused(folder: Path, backbone: Path, capsys, *more: str, rows: list[dict] | None = None, model: str = "individual") -> str:
    """The one line that a step in `folder` ends with, having written nothing but its record."""
    if rows is not None:
        write_parquet(folder / "pairs.parquet", pa.Table.from_pylist(rows, PAIRS))
    command = ["users", "train", "--config", str(folder / "config.yaml"), "--pairs", str(folder / "pairs.parquet")]
    command += ["--model", model, "--backbone", str(backbone), "--out", str(folder / "out")]
    assert main([*command, *more]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("rlphf: error: ")
    assert not (folder / "out").exists() or not [
        p.name for p in (folder / "out").iterdir() if p.name.startswith(("adapter", "user_model", "scores"))
    ]
    return line


def test_bad_input_is_an_error_in_one_line(tiny_backbone: Path, tmp_path: Path, capsys) -> None:
    setup(tmp_path)
    only_test = [r | {"split": "test"} for r in opposite()]
    assert "the split 'train' is empty" in refused(tmp_path, tiny_backbone, capsys, rows=only_test)
    negative = [*opposite(), row(999, "Why?", "Yes.", "No.", -4)]
    assert "pairs: -4 is no user id" in refused(tmp_path, tiny_backbone, capsys, rows=negative)
    nobody = [r | {"user": None} for r in opposite()]
    assert "no training pair names its user; fill the column user" in refused(tmp_path, tiny_backbone, capsys, rows=nobody)
    setup(tmp_path)
    assert "model 'dpo2' is unknown; choose from pooled, " in refused(tmp_path, tiny_backbone, capsys, model="dpo2")
    assert "the model reads users' texts" in refused(tmp_path, tiny_backbone, capsys, model="both")
    write_parquet(tmp_path / "users.parquet", pa.table({"id": ["bob"], "text": ["I like bees."]}))
    assert "wrong column type" in refused(
        tmp_path, tiny_backbone, capsys, "--users", str(tmp_path / "users.parquet"), model="both"
    )


def test_users_of_no_training_pair_can_be_refused_before_the_training(tiny_backbone: Path, tmp_path: Path, capsys) -> None:
    setup(tmp_path)
    (tmp_path / "config.yaml").write_text((CONFIG % (0.5, 1)).replace("tokens: 2", "unknown: error, tokens: 2"))
    rows = [*opposite(), row(999, "Why?", "Yes.", "No.", 5, "test")]
    assert "user 5 was not trained" in refused(tmp_path, tiny_backbone, capsys, rows=rows)


def test_users_may_be_told_of_by_text_alone(tiny_backbone: Path, tmp_path: Path) -> None:
    setup(tmp_path, epochs=12)
    texts = pa.table({"id": [1, 2, 3], "text": ["Always say yes.", "Never say yes.", None]})
    write_parquet(tmp_path / "users.parquet", texts)
    pairs, people = [tmp_path / "pairs.parquet"], tmp_path / "users.parquet"
    dpo_step(tmp_path / "config.yaml", "dpo_text", pairs, tiny_backbone, people, tmp_path / "out")
    about = read_json(tmp_path / "out" / "user_model.json")
    assert (about["kind"], about["tokens"], about["text"], about["text_place"]) == ("uniform", 0, "explicit", "before")
    assert min(accuracy(tmp_path / "out", user) for user in (1, 2)) > 0.7
    assert json.loads((tmp_path / "out" / "record.json").read_text())["inputs"].keys() >= {"users", "backbone"}


def test_the_policys_start_is_that_of_every_adapter(make) -> None:
    one, other = make(moved=False), make({"model": "cluster"}, moved=False)
    a, b = (get_peft_model_state_dict(t.model) for t in (one, other))
    assert all(torch.equal(a[name], b[name]) for name in a)

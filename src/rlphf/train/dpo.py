"""P-DPO: one LoRA policy and a user model, trained together on pairs that users chose, on one frozen backbone in memory.

L = -[alpha log s(h(u)) + (1 - alpha) log s(h(u_0))]. The policy reads the soft tokens of the pair's user, or of the generic one;
the reference is the backbone without adapter, soft tokens and user's text. Dropout is off throughout, as in TRL's DPOTrainer.

The loop is our own. TRL's trainer computes one term per row, from token ids alone, with one optimizer for all parameters: soft
tokens by row, two terms of a pair in one step, and a table of which a step touches a few rows have no place in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlphf.config import load
from rlphf.data.records import PAIRS
from rlphf.errors import InputError
from rlphf.files import read_parquet, write_parquet
from rlphf.lm.adapters import POLICY, active, add_policy, initial_a_digest, write_policy
from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.lm.chat import encode_responses
from rlphf.seeds import derive
from rlphf.settings import DPO, Users
from rlphf.tracking.record import Run, step
from rlphf.train import dpo_terms as terms
from rlphf.train.checkpoint import newest_checkpoint, optimizer_tensors, own_checkpoints, restore_optimizer, save_checkpoint
from rlphf.users.embed import response_logprobs
from rlphf.users.model import UserModel, new_user_model, save_user_model, user_ids
from rlphf.users.prompts import fit_prompt, prompt_limit
from rlphf.users.rows import RowAdam

# A pair's margins under the trained policy: the user's own and the generic user's. Above 0 the pair is told rightly.
SCORED = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("user", pa.int64()),
        ("own", pa.float64()),
        ("generic", pa.float64()),
        ("probability", pa.float64()),
    ]
)
TEXTS = pa.schema([("id", pa.int64()), ("text", pa.string())])


@dataclass(frozen=True)
class Pair:
    """A pair in token ids: the policy's prompt, with the user's text; the reference's, without; two responses; the user."""

    prompt: list[int]
    bare: list[int]
    chosen: list[int]
    rejected: list[int]
    user: int

    @property
    def length(self) -> int:
        """Tokens of the longer of its two texts."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict],
    users: Users,
    settings: DPO,
    context: int,
    texts: Mapping[int, str | None] | None = None,
) -> list[Pair]:
    """Return the pairs `rows` (of PAIRS) in token ids, cut to `max_prompt`, `max_length` and the model's `context`.

    A pair that names no user is the generic one's. `texts` are users' texts; a user without one is told of by nothing. Raises
    InputError where soft tokens leave no room for a text, or a user is no id.
    """
    total = min(context, settings.max_length)
    total -= users.tokens if users.model != "uniform" and users.text != "explicit" else 0
    if total < 2:
        raise InputError(f"users.tokens: {users.tokens} soft tokens leave no room in {settings.max_length} tokens; lower them")
    owners = user_ids([0 if row["user"] is None else row["user"] for row in rows], "pairs").tolist()
    spoken = {} if users.text == "implicit" else texts or {}
    answers = [encode_responses(tokenizer, [row[name] for row in rows]) for name in ("chosen", "rejected")]
    pairs = []
    for row, user, chosen, rejected in zip(rows, owners, *answers, strict=True):
        limit = min(settings.max_prompt, prompt_limit(total, max(len(chosen), len(rejected))))
        bare = fit_prompt(tokenizer, row["prompt"], limit=limit)
        prompt = fit_prompt(tokenizer, row["prompt"], spoken[user], users.text_place, limit) if spoken.get(user) else bare
        room = total - max(len(prompt), len(bare))
        pairs.append(Pair(prompt, bare, chosen[:room], rejected[:room], user))
    return pairs


class DPOTrainer:
    """Trains the policy of `model` and the user model `users` on `pairs`.

    Every pair brings both of its terms, so a step's loss and gradient do not depend on how its pairs are laid out in passes
    through the model. A step draws its pairs from (seed, epoch), so a resumed run goes on as if undisturbed.
    """

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        users: UserModel,
        pairs: Sequence[Pair],
        settings: DPO,
        seed: int,
    ):
        self.model, self.tokenizer, self.users, self.pairs, self.settings = model.eval(), tokenizer, users, pairs, settings
        # Without soft tokens a user's own term is the generic user's: one of them is the whole loss, to the bit.
        self.alpha = settings.alpha if users.tokens_per_user else 0.0
        self.order = list(terms.batches([pair.length for pair in pairs], settings.batch_size, settings.epochs, seed))
        self.reference = torch.zeros(0, 2)
        policy = {name: p for name, p in model.named_parameters() if p.requires_grad}
        shared = {f"users.{name}": p for name, p in users.named_parameters()}
        self.trained = policy | shared
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(policy.values()), "weight_decay": settings.weight_decay},
                {"params": list(shared.values()), "weight_decay": 0.0},
            ]
        )
        self.peaks = (settings.learning_rate, settings.user_learning_rate)
        self.rows = RowAdam(users.rows)

    def train(self, run: Run, folder: Path) -> int:
        """Make all passes over the pairs, from the newest checkpoint in `folder` on; log every step, and return their number."""
        start = self.restore(folder)
        run.resume(start)
        if not len(self.reference):
            self.reference = self.reference_logprobs(self.pairs)
        for number in range(start, len(self.order)):
            run.log(self.update(number), step=number)
            if (number + 1) % self.settings.checkpoint_every == 0 and number + 1 < len(self.order):
                self.checkpoint(folder, number + 1)
        return len(self.order)

    def update(self, number: int) -> dict[str, float]:
        """Do step `number`; return its metrics."""
        chosen, size = self.order[number], self.settings.micro_batch_size
        share = terms.rate(number, len(self.order), self.settings.warmup_steps)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share
        self.optimizer.zero_grad(set_to_none=True)
        gathered = self.users.gather([self.pairs[i].user for i in chosen] if self.alpha > 0 else [])
        metrics: dict[str, float] = {}
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            own, generic = self.margins([self.pairs[i] for i in part], self.reference[part], gathered)
            losses = self.losses(own, generic)
            (losses.sum() / len(chosen)).backward()
            found = {"loss": losses}
            for name, margins in (("own", own), ("generic", generic)):
                if margins is not None:
                    found |= {f"{name}_margin": margins, f"{name}_accuracy": (margins > 0).float()}
            for name, values in found.items():
                metrics[name] = metrics.get(name, 0.0) + float(values.detach().sum()) / len(chosen)
        touched = [gathered.values] if gathered.values.grad is not None else []
        limit = self.settings.max_grad_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_([*self.trained.values(), *touched], limit)
        self.optimizer.step()
        if gathered.values.grad is not None:
            self.rows.step(gathered.slots, gathered.values.grad, self.peaks[1] * share)
        return {**metrics, "grad_norm": float(norm), "learning_rate": self.peaks[0] * share}

    def losses(self, own: Tensor | None, generic: Tensor | None) -> Tensor:
        """Return each pair's loss (b,) of its margins (b,)."""
        kind, beta = self.settings.loss, self.settings.beta
        each = [None if margins is None else terms.pair_loss(margins, kind, beta) for margins in (own, generic)]
        return terms.mixture(each[0], each[1], self.alpha)

    def margins(
        self, pairs: Sequence[Pair], reference: Tensor, gathered: Any = None, both: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the margins (b,) of `pairs` for their own users and for the generic one; None for a term without weight.

        `reference` (b, 2) are the reference's log-probabilities of the chosen and the rejected response. Where pair and user
        are those of another term, they are computed once. `both` asks for both terms, whatever their weight.
        """
        wanted_own, wanted_generic = both or self.alpha > 0, both or self.alpha < 1
        slots = self.users.slots([pair.user for pair in pairs]).tolist()
        users = [pair.user if slot >= 0 else 0 for pair, slot in zip(pairs, slots, strict=True)]
        forms = dict.fromkeys((i, user) for i, user in enumerate(users) if wanted_own)
        forms |= dict.fromkeys((i, 0) for i in range(len(pairs)) if wanted_generic)
        texts = [(pairs[i].prompt, response) for i, _ in forms for response in (pairs[i].chosen, pairs[i].rejected)]
        soft = self.users([user for _, user in forms], gathered).repeat_interleave(2, 0)
        with active(self.model, POLICY):
            prompts, responses = zip(*texts, strict=True)
            found = response_logprobs(self.model, prompts, responses, self.tokenizer, soft).view(-1, 2)
        base = reference[[i for i, _ in forms]].to(found.device)
        each = terms.margin(found[:, 0], found[:, 1], base[:, 0], base[:, 1], self.settings.beta)
        place = {form: k for k, form in enumerate(forms)}
        own = each[[place[form] for form in enumerate(users)]] if wanted_own else None
        generic = each[[place[i, 0] for i in range(len(pairs))]] if wanted_generic else None
        return own, generic

    @torch.no_grad()
    def reference_logprobs(self, pairs: Sequence[Pair]) -> Tensor:
        """Return the backbone's log-probabilities (B, 2) of the chosen and the rejected response, told of no user."""
        found = torch.zeros(len(pairs), 2)
        for part in self._alike(pairs):
            texts = [(pairs[i].bare, response) for i in part for response in (pairs[i].chosen, pairs[i].rejected)]
            prompts, responses = zip(*texts, strict=True)
            with active(self.model, None):
                found[part] = response_logprobs(self.model, prompts, responses, self.tokenizer).view(-1, 2).cpu()
        return found

    @torch.no_grad()
    def evaluate(self, pairs: Sequence[Pair]) -> tuple[list[float], list[float]]:
        """Return the margins of any pairs, for their own users and for the generic one."""
        reference = self.reference_logprobs(pairs)
        own, generic = [0.0] * len(pairs), [0.0] * len(pairs)
        for part in self._alike(pairs):
            both = self.margins([pairs[i] for i in part], reference[part], both=True)
            for values, margins in zip((own, generic), both, strict=True):
                for i, value in zip(part, margins.tolist() if margins is not None else [], strict=True):
                    values[i] = value
        return own, generic

    def _alike(self, pairs: Sequence[Pair]) -> list[list[int]]:
        order = sorted(range(len(pairs)), key=lambda i: pairs[i].length)
        size = max(self.settings.micro_batch_size, 8)
        return [order[start : start + size] for start in range(0, len(order), size)]

    def checkpoint(self, folder: Path, number: int) -> None:
        """Write all that a resumed run needs: policy, user model, the rows that were moved, optimizers, reference."""
        tensors = {f"policy/{k}": v for k, v in get_peft_model_state_dict(self.model, adapter_name=POLICY).items()}
        tensors |= {f"users/{k}": v for k, v in self.users.named_parameters()}
        tensors |= {f"rows/{k}": v for k, v in self.rows.tensors().items()}
        tensors |= optimizer_tensors(self.optimizer, list(self.trained)) | {"reference": self.reference}
        save_checkpoint(folder, number, tensors, {})

    def restore(self, folder: Path) -> int:
        """Take up the newest checkpoint in `folder`; return the step to go on from, 0 without one."""
        found = newest_checkpoint(folder)
        if found is None:
            return 0
        tensors, state = found

        def part(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(name): value for key, value in tensors.items() if key.startswith(name)}

        set_peft_model_state_dict(self.model, part("policy/"), adapter_name=POLICY)
        self.users.load_state_dict(part("users/"))
        self.rows.restore(part("rows/"))
        self.reference = tensors["reference"]
        restore_optimizer(self.optimizer, list(self.trained), tensors)
        return state["step"]


def read_texts(settings: Users, path: Path | None) -> dict[int, str | None]:
    """Return users' texts by id from `path` (columns id and text); raise InputError where texts are needed and none are given."""
    if settings.text == "implicit":
        return {}
    if path is None:
        raise InputError(f"users.text: {settings.text} needs users' texts; give a file with columns id and text (--users)")
    rows = read_parquet(path, TEXTS).to_pylist()
    ids = user_ids([row["id"] for row in rows], str(path)).tolist()
    return {i: row["text"] for i, row in zip(ids, rows, strict=True)}


def dpo_step(config: Path, pairs: Sequence[Path], backbone: Path, users: Path | None, out: Path) -> None:
    """Train policy and user model on the training pairs in the files `pairs`; write `out`/adapter and the user model beside it.

    `users` names a file of users' texts (columns id and text), which `users.text: explicit` and `both` need. The margins of all
    pairs, of every split, go to `out`/scores.parquet. Goes on from the newest checkpoint in `out`/checkpoints.
    """
    experiment = load(config)
    settings, seed = experiment.dpo, derive(experiment.seed, "dpo")
    inputs = {"backbone": backbone, **{"/".join(path.parts[-2:]): path for path in pairs}}
    inputs |= {"users": users} if users is not None and experiment.users.text != "implicit" else {}
    params = {"dpo": settings.model_dump(mode="json"), "users": experiment.users.model_dump(mode="json")}
    tags = {"method": "pdpo", "users": experiment.users.model}
    with step("dpo", out, experiment, params, inputs, tags) as run, own_checkpoints(out / "checkpoints", run) as folder:
        texts = read_texts(experiment.users, users)
        rows = [row for path in pairs for row in read_parquet(path, PAIRS).to_pylist()]
        train = [i for i, row in enumerate(rows) if row["split"] == "train"]
        where = ", ".join(map(str, pairs))
        if not train:
            raise InputError(f"{where}: the split 'train' is empty; nothing to train a policy on")
        dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        base, tokenizer = load_backbone(backbone, dtype)
        encoded = encode_pairs(tokenizer, rows, experiment.users, settings, base.config.max_position_embeddings, texts)
        known = [encoded[i].user for i in train if encoded[i].user]
        vocabulary: Any = base.get_input_embeddings().weight
        user_model = new_user_model(experiment.users, known, vocabulary, seed)
        if user_model.kind != "uniform" and not known:
            raise InputError(f"{where}: no training pair names its user; fill the column user, or set users.model: uniform")
        # Pairs that only measure may be of users who are not trained; where that is an error it is one before the training.
        user_model.slots([pair.user for pair in encoded])
        model = add_policy(base, settings.lora, derive(experiment.seed, "lora"))
        initial = initial_a_digest(model)
        trainer = DPOTrainer(model, tokenizer, user_model, [encoded[i] for i in train], settings, seed)
        steps = trainer.train(run, folder)
        digest = backbone_sha256(backbone)
        told = {"text": experiment.users.text, "text_place": experiment.users.text_place, "max_prompt": settings.max_prompt}
        save_user_model(user_model, out, {"backbone_sha256": digest, **told})
        about = {"preference": "users", "backbone_sha256": digest, "lora_a_sha256": initial}
        write_policy(model, out / "adapter", str(backbone), about)
        own, generic = trainer.evaluate(encoded)
        columns = {name: [row[name] for row in rows] for name in ("id", "split", "probability")}
        owners = [pair.user for pair in encoded]
        table = pa.table({**columns, "user": owners, "own": own, "generic": generic}).select(SCORED.names).cast(SCORED)
        write_parquet(out / "scores.parquet", table)
        for split in sorted({row["split"] for row in rows}):
            index = [i for i, row in enumerate(rows) if row["split"] == split]
            for name, values in (("own", own), ("generic", generic)):
                run.log({f"{split}_{name}_accuracy": sum(values[i] > 0 for i in index) / len(index)})
        run.tag(updates=steps, pairs=len(train), users=len(user_model.ids))
        run.output(out / "adapter", out / "user_model.safetensors", out / "user_model.json", out / "scores.parquet")

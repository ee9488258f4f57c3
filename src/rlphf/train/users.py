"""What P-DPO and P-RM share: pairs that users chose, and the loop that trains an adapter and a user model on them together.

L = alpha l(h(u)) + (1 - alpha) l(h(u_0)), where h is a pair's margin: what the chosen text is worth to the pair's user u, or to
the generic user u_0, less what the rejected text is worth to the same user. The two methods differ in what a text is worth.

The loop is our own. TRL's trainers compute one term per row, from token ids alone, with one optimizer for all parameters: they
have no place for soft tokens by row, two terms of a pair in one step, and a table of which a step touches a few rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rlphf.errors import InputError
from rlphf.lm.adapters import POLICY, active
from rlphf.lm.chat import encode_responses
from rlphf.lm.fit import fit_prompt, prompt_limit
from rlphf.progress import bar
from rlphf.settings_users import Users, UserTraining
from rlphf.tracking.record import Run
from rlphf.train import dpo_terms as terms
from rlphf.train.checkpoint import check_room, newest_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from rlphf.users.model import Gathered, UserModel, user_ids
from rlphf.users.prompts import fit_told
from rlphf.users.rows import RowAdam

# Pairs of a pass without gradients, at least.
REFERRED = 8


@dataclass(frozen=True)
class Pair:
    """A pair in token ids: the prompt, with the user's text; `bare`, the same without; two responses; and the user."""

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
    user_settings: Users,
    settings: UserTraining,
    context: int,
    texts: Mapping[int, str | None] | None = None,
) -> list[Pair]:
    """Return the pairs `rows` (of PAIRS) in token ids, cut to `max_prompt`, `max_length` and the model's `context`.

    A pair that names no user is the generic one's. `texts` are users' texts; the prompt of a user without one is the bare one.
    Raises InputError where `max_length` or soft tokens leave no room for a text, or a user is no id.
    """
    if not rows:
        # Tokenizers refuse an empty batch.
        return []
    whole = min(context, settings.max_length)
    soft = user_settings.tokens if user_settings.model != "uniform" and user_settings.text != "explicit" else 0
    total = whole - soft
    if whole < 2:
        raise InputError(f"max_length: {whole} token has no room for a prompt and a response; raise it")
    if total < 2:
        raise InputError(f"users.tokens: {soft} soft tokens leave no room in {whole} tokens; lower them")
    owners = user_ids([0 if row["user"] is None else row["user"] for row in rows], "pairs").tolist()
    spoken = {} if user_settings.text == "implicit" else texts or {}
    answers = [encode_responses(tokenizer, [row[name] for row in rows]) for name in ("chosen", "rejected")]
    pairs = []
    for row, user, chosen, rejected in zip(rows, owners, *answers, strict=True):
        limit = min(settings.max_prompt, prompt_limit(total, max(len(chosen), len(rejected))))
        bare = fit_prompt(tokenizer, row["prompt"], limit)
        prompt = fit_told(tokenizer, row["prompt"], spoken[user], user_settings.text_place, limit) if spoken.get(user) else bare
        room = total - max(len(prompt), len(bare))
        pairs.append(Pair(prompt, bare, chosen[:room], rejected[:room], user))
    return pairs


@dataclass(frozen=True)
class Term:
    """For one user per pair: `margins` (B,), and `chosen` (B,), the chosen response's score per token."""

    margins: Tensor
    chosen: Tensor


class PairTrainer(ABC):
    """Trains the adapter of `model`, the `user_model` and further parameters `others` on `pairs`.

    Every pair brings both of its terms, so a step's loss and gradient do not depend on how its pairs are laid out in passes
    through the model. A step draws its pairs from (seed, epoch), so a resumed run goes on as if undisturbed. Dropout is off
    throughout, as in TRL's DPOTrainer.
    """

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        user_model: UserModel,
        pairs: Sequence[Pair],
        settings: UserTraining,
        seed: int,
        others: Mapping[str, nn.Parameter] | None = None,
    ):
        self.model, self.tokenizer, self.user_model = model.eval(), tokenizer, user_model
        self.pairs, self.settings = pairs, settings
        # Without soft tokens a user's own term is the generic user's: one of them is the whole loss, to the bit.
        self.alpha = settings.alpha if user_model.tokens_per_user else 0.0
        self.order = list(terms.batches([pair.length for pair in pairs], settings.batch_size, settings.epochs, seed))
        self.reference = torch.zeros(0, 2)
        self.others = dict(others or {})
        adapter = {name: p for name, p in model.named_parameters() if p.requires_grad} | self.others
        shared = {f"users.{name}": p for name, p in user_model.named_parameters()}
        self.trained = adapter | shared
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(adapter.values()), "weight_decay": settings.weight_decay},
                {"params": list(shared.values()), "weight_decay": 0.0},
            ]
        )
        self.peaks = (settings.learning_rate, settings.user_learning_rate)
        self.rows = RowAdam(user_model.rows)

    @abstractmethod
    def worth(self, prompts: Sequence[list[int]], responses: Sequence[Sequence[list[int]]], soft: Tensor | None) -> Tensor:
        """Return what the responses (B, 2) to prompts are worth to users with soft tokens (B, T, H), with the adapter active."""

    @abstractmethod
    def reference_worth(self, pairs: Sequence[Pair]) -> Tensor:
        """Return what the chosen and the rejected text (B, 2) of pairs are worth without a user; computed once for all epochs."""

    @abstractmethod
    def term_losses(self, term: Term) -> Tensor:
        """Return each pair's loss (B,) for one user."""

    scale = 1.0

    def train(self, run: Run, folder: Path) -> int:
        """Make all passes over the pairs, from the newest checkpoint in `folder` on; log every step, and return their number."""
        # No more rows are moved than there are pairs.
        check_room(folder, [*self.trained.values(), self.user_model.rows[: len(self.pairs)]])
        start = self.restore(folder)
        run.resume(start)
        if not len(self.reference):
            self.reference = self.reference_worth(self.pairs)
        with bar(len(self.order), "steps", start) as done:
            for number in range(start, len(self.order)):
                run.log(self.update(number), step=number)
                if (number + 1) % self.settings.checkpoint_every == 0 and number + 1 < len(self.order):
                    self.checkpoint(folder, number + 1)
                done(1)
        return len(self.order)

    def update(self, number: int) -> dict[str, float]:
        """Do step `number`; return its metrics."""
        batch, size = self.order[number], self.settings.micro_batch_size
        share = terms.rate(number, len(self.order), self.settings.warmup_steps)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share
        self.optimizer.zero_grad(set_to_none=True)
        gathered = self.user_model.gather([self.pairs[i].user for i in batch] if self.alpha > 0 else [])
        metrics: dict[str, float] = {}
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            own, generic = self.both_terms([self.pairs[i] for i in part], self.reference[part], gathered)
            losses = self.losses(own, generic)
            (losses.sum() / len(batch)).backward()
            measured = {"loss": losses}
            for name, term in (("own", own), ("generic", generic)):
                if term is not None:
                    measured |= {f"{name}_margin": term.margins, f"{name}_accuracy": (1 + term.margins.sign()) / 2}
            for name, values in measured.items():
                metrics[name] = metrics.get(name, 0.0) + float(values.detach().sum()) / len(batch)
        touched = [gathered.values] if gathered.values.grad is not None else []
        limit = self.settings.max_grad_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_([*self.trained.values(), *touched], limit)
        self.optimizer.step()
        if gathered.values.grad is not None:
            self.rows.step(gathered.slots, gathered.values.grad, self.peaks[1] * share)
        return {**metrics, "grad_norm": float(norm), "learning_rate": self.peaks[0] * share}

    def losses(self, own: Term | None, generic: Term | None) -> Tensor:
        """Return each pair's loss (B,), both terms mixed."""
        each = [None if term is None else self.term_losses(term) for term in (own, generic)]
        return terms.mixture(each[0], each[1], self.alpha)

    def both_terms(
        self, pairs: Sequence[Pair], reference: Tensor, gathered: Gathered | None = None, both: bool = False
    ) -> tuple[Term | None, Term | None]:
        """Return the terms of `pairs` for their own users and for the generic one; None for a term of weight 0.

        `reference` (B, 2) is that of `reference_worth`. A pair whose own user is the generic one is computed once for both terms.
        `both` asks for both terms, whatever their weight.
        """
        slots = self.user_model.slots([pair.user for pair in pairs]).tolist()
        users = [pair.user if slot >= 0 else 0 for pair, slot in zip(pairs, slots, strict=True)]
        own = [(i, user) for i, user in enumerate(users)] if both or self.alpha > 0 else []
        generic = [(i, 0) for i in range(len(pairs))] if both or self.alpha < 1 else []
        forms = list(dict.fromkeys(own + generic))
        prompts = [pairs[i].prompt for i, _ in forms]
        responses = [(pairs[i].chosen, pairs[i].rejected) for i, _ in forms]
        soft = self.user_model([user for _, user in forms], gathered)
        with active(self.model, POLICY):
            worth = self.worth(prompts, responses, soft)
        base = reference[[i for i, _ in forms]].to(worth.device)
        margins = terms.margin(worth[:, 0], worth[:, 1], base[:, 0], base[:, 1], self.scale)
        chosen = worth[:, 0] / torch.tensor([len(first) for first, _ in responses], device=worth.device)
        place = {form: k for k, form in enumerate(forms)}
        rows = [[place[form] for form in wanted] for wanted in (own, generic)]
        first, second = (Term(margins[index], chosen[index]) if index else None for index in rows)
        return first, second

    def margins(
        self, pairs: Sequence[Pair], reference: Tensor, gathered: Gathered | None = None, both: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the margins (B,) of `both_terms` alone."""
        own, generic = self.both_terms(pairs, reference, gathered, both)
        return own.margins if own else None, generic.margins if generic else None

    @torch.no_grad()
    def evaluate(self, pairs: Sequence[Pair]) -> tuple[list[float], list[float]]:
        """Return the margins of any pairs, for their own users and for the generic one."""
        reference = self.reference_worth(pairs)
        own, generic = [0.0] * len(pairs), [0.0] * len(pairs)
        for part in self.alike(pairs):
            both = self.margins([pairs[i] for i in part], reference[part], both=True)
            for values, margins in zip((own, generic), both, strict=True):
                for i, value in zip(part, margins.tolist() if margins is not None else [], strict=True):
                    values[i] = value
        return own, generic

    def alike(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Return the indices of `pairs` in groups of like length, for passes without gradients."""
        order = sorted(range(len(pairs)), key=lambda i: pairs[i].length)
        size = max(self.settings.micro_batch_size, REFERRED)
        return [order[start : start + size] for start in range(0, len(order), size)]

    def checkpoint(self, folder: Path, number: int) -> None:
        """Write all that a resumed run needs: adapter, user model, the rows that were moved, optimizers, reference."""
        tensors = {f"policy/{k}": v for k, v in get_peft_model_state_dict(self.model, adapter_name=POLICY).items()}
        tensors |= {f"others/{k}": v for k, v in self.others.items()}
        tensors |= {f"users/{k}": v for k, v in self.user_model.named_parameters()}
        tensors |= {f"rows/{k}": v for k, v in self.rows.tensors().items()}
        tensors |= optimizer_tensors(self.optimizer, list(self.trained)) | {"reference": self.reference}
        save_checkpoint(folder, number, tensors, {})

    @torch.no_grad()
    def restore(self, folder: Path) -> int:
        """Take up the newest checkpoint in `folder`; return the step to go on from, 0 without one."""
        saved = newest_checkpoint(folder)
        if saved is None:
            return 0
        tensors, state = saved

        def part(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(name): value for key, value in tensors.items() if key.startswith(name)}

        set_peft_model_state_dict(self.model, part("policy/"), adapter_name=POLICY)
        for name, value in part("others/").items():
            self.others[name].copy_(value)
        self.user_model.load_state_dict(part("users/"))
        self.rows.restore(part("rows/"))
        self.reference = tensors["reference"]
        restore_optimizer(self.optimizer, list(self.trained), tensors)
        return state["step"]

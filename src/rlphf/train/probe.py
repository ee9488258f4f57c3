"""A reward model's head as a linear probe: Bradley-Terry on the last states of the frozen backbone, before any adapter.

Of few pairs and on a large backbone it orders unseen ones about as well as an adapter that is trained on them, for one forward
pass (docs/real-text.md). Source: linear probing, and fine-tuning from there, as in Kumar et al. 2022.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from transformers import PreTrainedModel

from rlphf.errors import InputError
from rlphf.lm.batches import pad
from rlphf.processes import local_rank
from rlphf.progress import bar

# Inverse strengths of the ridge penalty that are tried, on states of variance 1, and into how many parts prompts are cut for it.
STRENGTHS, FOLDS = np.logspace(-5, 1, 13), 5

Floats = NDArray[np.float32]


@torch.no_grad()
def last_states(model: PreTrainedModel, texts: Sequence[list[int]], pad_id: int, batch_size: int = 16) -> Floats:
    """Return the last hidden state (H,) of each text's last token, which a sequence classifier's head reads: (N, H)."""
    if torch.cuda.is_available() and model.device.type == "cpu":
        torch.nn.Module.to(model, torch.device("cuda", local_rank()))
    model.eval()
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    found = np.zeros((len(texts), model.config.hidden_size), np.float32)
    with bar(len(texts), "texts read") as done:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            tokens, mask = pad([texts[i] for i in batch], pad_id, model.device)
            states = model.base_model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
            ends = torch.tensor([len(texts[i]) - 1 for i in batch], device=states.device)
            found[batch] = states[torch.arange(len(batch), device=states.device), ends].float().cpu().numpy()
            done(len(batch))
    return found


def fit_head(chosen: Floats, rejected: Floats, prompts: Sequence[str]) -> torch.Tensor:
    """Return the weight (1, H) that most probably orders pairs of states (N, H) as they were chosen, by -log s(w.(c - r)).

    A ridge penalty keeps it small, of the strength that predicts pairs of other prompts best. Raises InputError for pairs of a
    single prompt, by which no strength can be found.
    """
    numbers = {name: i for i, name in enumerate(dict.fromkeys(prompts))}
    if len(numbers) < 2:
        raise InputError("reward.head: a probe needs pairs of two prompts at least; add pairs, or set drawn")
    scale = np.concatenate([chosen, rejected]).std(axis=0, dtype=np.float64) + 1e-6
    gaps = (chosen - rejected) / scale
    # Both ways round, so that neither class is empty; without an intercept the fit is the same.
    both, labels = np.concatenate([gaps, -gaps]), np.repeat([1, 0], len(gaps))
    groups = np.tile([numbers[name] for name in prompts], 2)

    def probe(strength: float) -> LogisticRegression:
        return LogisticRegression(C=strength, fit_intercept=False, max_iter=1000)

    folds = GroupKFold(min(FOLDS, len(numbers)))
    values = [cross_val_score(probe(c), both, labels, groups=groups, cv=folds, scoring="neg_log_loss").mean() for c in STRENGTHS]
    weight = probe(STRENGTHS[int(np.argmax(values))]).fit(both, labels).coef_ / scale
    return torch.from_numpy(weight).float()

"""The user model of P-RLHF: a map from a user's id to T soft tokens of the backbone's width; user 0 is the generic user.

Source: Li et al. 2024, "Personalized Language Modeling from Personalized Human Feedback", examples 1 to 3. A user's own part
is a row of a table that is no parameter: a batch gathers the rows of its users, and only these get gradients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Literal, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlphf.errors import InputError
from rlphf.files import atomic_file, check_file, read_json, sha256, write_json
from rlphf.seeds import derive
from rlphf.settings_users import Users
from rlphf.users.records import ABOUT, TENSORS
from rlphf.users.rows import zeros

Kind = Literal["uniform", "individual", "cluster"]
LARGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class Gathered:
    """The rows of a batch's users: their indices `slots` (m,), ascending, and `values` (m, R), a leaf that takes gradients."""

    slots: Tensor
    values: Tensor


class UserModel(nn.Module):
    """Soft tokens (T, H) of users, by id.

    `uniform`: none, T = 0. `individual`: e_i = e_0 + o_i; `generic` is e_0 (T, H), a row is o_i. `cluster`: e_i is the mixture
    of `clusters` (K, T, H) with weights softmax(w_i); `generic` is w_0 (K,), a row is w_i. `ids` (n,) are the ids, ascending, of
    the users who have a row in `rows` (n, R), which stays on the CPU. Every other id is the generic user; with `unknown: error`
    only 0 is.
    """

    def __init__(
        self,
        kind: Kind,
        ids: Tensor,
        rows: Tensor,
        generic: Tensor,
        clusters: Tensor,
        width: int,
        unknown: Literal["generic", "error"] = "generic",
    ):
        super().__init__()
        self.kind, self.ids, self.rows, self.width, self.unknown = kind, ids, rows, width, unknown
        if kind != "uniform":
            self.generic = nn.Parameter(generic)
        if kind == "cluster":
            self.clusters = nn.Parameter(clusters)

    @property
    def tokens_per_user(self) -> int:
        """T, 0 for a uniform model."""
        if self.kind == "uniform":
            return 0
        return (self.clusters if self.kind == "cluster" else self.generic).shape[-2]

    @property
    def bytes_per_user(self) -> int:
        """What one more user adds to the saved file."""
        return self.rows.shape[1] * self.rows.element_size() + self.ids.element_size()

    def generic_row(self) -> Tensor:
        """Return the row (R,) with which a user is the generic one: no offset, or the generic weights."""
        if self.kind == "uniform":
            raise InputError("a uniform user model has no rows; fit one of the model individual or cluster")
        return torch.zeros(self.generic.numel()) if self.kind == "individual" else self.generic.detach().cpu().float().clone()

    def with_row(self, user: int, row: Tensor) -> "UserModel":
        """Return a user model with a row (R,) for one more user; what users share is shared, all rows are copied.

        Raises InputError for the generic user and for one who has a row.
        """
        (wanted,) = user_ids([user])
        if wanted == 0 or bool((self.ids == wanted).any()):
            raise InputError(f"user {user} is known already; give a new user an id of its own, from 1 on")
        place = int((self.ids < wanted).sum())
        ids = torch.cat([self.ids[:place], wanted[None], self.ids[place:]])
        rows = torch.cat([self.rows[:place], row.detach().to("cpu", self.rows.dtype)[None], self.rows[place:]])
        clusters = self.clusters if self.kind == "cluster" else torch.zeros(0)
        return UserModel(self.kind, ids, rows, self.generic, clusters, self.width, self.unknown)

    def slots(self, users: Tensor | Sequence[int]) -> Tensor:
        """Return the row (B,) of each user, -1 for the generic one; raise InputError for what is no id (`user_ids`)."""
        wanted = user_ids(users)
        if not len(self.ids):
            known = torch.zeros_like(wanted, dtype=torch.bool)
            place = wanted
        else:
            place = torch.searchsorted(self.ids, wanted).clamp(max=len(self.ids) - 1)
            known = self.ids[place] == wanted
        strange = wanted[~known & (wanted > 0)]
        if self.unknown == "error" and self.kind != "uniform" and len(strange):
            raise InputError(
                f"user {int(strange[0])} was not trained; train on pairs of this user, or set users.unknown: generic"
            )
        return torch.where(known, place, -1)

    def gather(self, users: Tensor | Sequence[int]) -> Gathered:
        """Return the rows of the users of a batch, for `forward` to take in place of the table."""
        slots = self.slots(users).unique()
        slots = slots[slots >= 0]
        values = self.rows[slots].to(self.device).requires_grad_()
        return Gathered(slots, values)

    @property
    def device(self) -> torch.device:
        """Where soft tokens come out."""
        return self.generic.device if self.kind != "uniform" else self.rows.device

    def forward(self, users: Tensor | Sequence[int], gathered: Gathered | None = None) -> Tensor:
        """Return the soft tokens (B, T, H) of `users` (B,), with gradients to the rows in `gathered` where it is given."""
        slots = self.slots(users)
        if self.kind == "uniform":
            return torch.zeros(len(slots), 0, self.width, device=self.device)
        known = (slots >= 0).nonzero().squeeze(1)
        if gathered is None:
            own = self.rows[slots[known]].to(self.device)
        else:
            own = gathered.values[torch.searchsorted(gathered.slots, slots[known]).to(self.device)]
        known = known.to(self.device)
        if self.kind == "individual":
            base = self.generic.expand(len(slots), -1, -1)
            return base.index_add(0, known, own.view(-1, *self.generic.shape))
        weights = self.generic.expand(len(slots), -1).index_copy(0, known, own)
        return torch.einsum("bk,kth->bth", weights.softmax(-1), self.clusters)


def user_ids(values: Tensor | Sequence[int], where: str = "user ids") -> Tensor:
    """Return ids (B,) as int64; raise InputError, beginning with `where`, for text, fractions, truth values and negatives."""
    if isinstance(values, Tensor):
        if values.dtype.is_floating_point or values.dtype.is_complex or values.dtype == torch.bool or values.dim() != 1:
            kind = f"{values.dim()}-dimensional {str(values.dtype).removeprefix('torch.')}"
            raise InputError(f"{where}: a {kind} tensor holds no ids; give a list of whole numbers, 0 for the generic user")
        ids = values.to("cpu", torch.int64)
        bad = ids[ids < 0].tolist()
    else:
        bad = [v for v in values if not isinstance(v, Integral) or isinstance(v, bool) or not 0 <= v <= LARGEST_ID]
        ids = torch.tensor([] if bad else [int(v) for v in values], dtype=torch.int64)
    if bad:
        raise InputError(f"{where}: {bad[0]!r} is no user id; ids are whole numbers from 1 on, and 0 is the generic user")
    return ids


def new_user_model(settings: Users, users: Sequence[int] | Tensor, vocabulary: Tensor, seed: int) -> UserModel:
    """Return a user model, not yet trained, with a row for each of `users` (0 and repetitions are left out).

    Soft tokens are drawn from the rows of `vocabulary` (V, H), the backbone's input embeddings, or evenly from [-0.5, 0.5];
    a cluster's weights are N(0, 1). With `start: generic` offsets are zero, and weights those of the generic user. Where
    prompts describe users by text alone, the model is uniform. Raises InputError where a user needs more tokens than the
    vocabulary has.
    """
    ids = user_ids(users).unique()
    ids = ids[ids > 0]
    count, width = len(ids), vocabulary.shape[1]
    nothing = torch.zeros(0)
    if settings.model == "uniform" or settings.text == "explicit":
        return UserModel("uniform", ids[:0], torch.zeros(0, 0), nothing, nothing, width, settings.unknown)
    generator = torch.Generator().manual_seed(derive(seed, "users"))
    drawn = settings.start == "drawn"
    if settings.model == "individual":
        vectors = soft_tokens(count + 1 if drawn else 1, settings, vocabulary, generator)
        size = vectors[0].numel()
        rows = vectors[1:].reshape(count, size) if drawn else zeros(count, size)
        generic, clusters = vectors[0].clone(), nothing
    else:
        clusters = soft_tokens(settings.clusters, settings, vocabulary, generator)
        generic = torch.randn(settings.clusters, generator=generator)
        rows = torch.randn(count, settings.clusters, generator=generator) if drawn else generic.repeat(count, 1)
    device = vocabulary.device
    return UserModel(settings.model, ids, rows, generic.to(device), clusters.to(device), width, settings.unknown)


def soft_tokens(count: int, settings: Users, vocabulary: Tensor, generator: torch.Generator) -> Tensor:
    """Return `count` sets of T soft tokens (count, T, H); tokens of one set are distinct, of all sets while there are enough."""
    size, width = settings.tokens, vocabulary.shape[1]
    if settings.init == "uniform":
        return torch.rand(count, size, width, generator=generator) - 0.5
    if size > len(vocabulary):
        raise InputError(f"users.tokens: {size} distinct tokens are asked for and the vocabulary has {len(vocabulary)}")
    # Whole sets are cut out of one permutation after the other.
    whole = len(vocabulary) // size * size
    passes = [torch.randperm(len(vocabulary), generator=generator)[:whole] for _ in range(-(-count * size // whole))]
    index = torch.cat(passes)[: count * size]
    return vocabulary.detach().cpu().float()[index].view(count, size, width)


def save_user_model(user_model: UserModel, folder: Path | str, about: Mapping[str, str | int]) -> None:
    """Write user_model.safetensors, and user_model.json with its digest and `about` (such as backbone_sha256)."""
    folder = Path(folder)
    tensors = {"ids": user_model.ids, "rows": user_model.rows}
    tensors |= {name: value.detach().cpu() for name, value in user_model.named_parameters()}
    with atomic_file(folder / TENSORS) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)
        described = {
            "kind": user_model.kind,
            "tokens": user_model.tokens_per_user,
            "clusters": len(user_model.clusters) if user_model.kind == "cluster" else 0,
            "users": len(user_model.ids),
            "width": user_model.width,
            "bytes_per_user": user_model.bytes_per_user if user_model.kind != "uniform" else 0,
            "sha256": sha256(temporary),
        }
    write_json(folder / ABOUT, {**about, **described})


def load_user_model(
    folder: Path | str,
    backbone_sha256: str,
    unknown: Literal["generic", "error"] = "generic",
    device: torch.device | str = "cpu",
) -> UserModel:
    """Load a saved user model; raise InputError if it is of another backbone, damaged, or not what its JSON says."""
    folder = Path(folder)
    described = read_json(folder / ABOUT)
    path = folder / TENSORS
    check_file(path)
    if not isinstance(described, dict) or described.get("backbone_sha256") != backbone_sha256:
        raise InputError(f"{folder}: user model of another backbone; train it again on this one")
    try:
        if sha256(path) != described.get("sha256"):
            raise InputError(f"{path}: is not the file that {ABOUT} describes; train the user model again")
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error}); pickled user models are not accepted") from None
    shapes = _shapes(described, folder)
    for name in sorted(shapes.keys() | tensors.keys()):
        shape = list(tensors[name].shape) if name in tensors else "none"
        if shape != shapes.get(name):
            raise InputError(f"{path}: tensor {name}: found {shape}, {ABOUT} says {shapes.get(name, 'none')}; train it again")
    nothing = torch.zeros(0)
    generic, clusters = (tensors.get(name, nothing).to(device) for name in ("generic", "clusters"))
    return UserModel(
        cast(Kind, described["kind"]), tensors["ids"], tensors["rows"], generic, clusters, described["width"], unknown
    )


def _shapes(described: dict, folder: Path) -> dict[str, list[int]]:
    try:
        kind, size, count, clusters, width = (described[key] for key in ("kind", "tokens", "users", "clusters", "width"))
        each = {"uniform": 0, "individual": size * width, "cluster": clusters}[kind]
    except (KeyError, TypeError):
        raise InputError(f"{folder / ABOUT}: says no kind and sizes of a user model; train it again") from None
    shapes: dict[str, list[int]] = {"ids": [count], "rows": [count, each]}
    if kind == "individual":
        shapes["generic"] = [size, width]
    if kind == "cluster":
        shapes |= {"generic": [clusters], "clusters": [clusters, size, width]}
    return shapes

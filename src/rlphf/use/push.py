"""A model's folder with its card on the Hugging Face hub, as one commit. The token comes from the environment alone."""

import json
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rlphf.cards import card_data, joined_card, relative, split_card
from rlphf.errors import InputError
from rlphf.files import CARD, read_json, read_text
from rlphf.tracking.record import METRICS, RECORD, SAMPLES

TOKEN = "HF_TOKEN"
CONFIG, ADAPTER = "config.json", "adapter_config.json"
# What a backbone's folder has beside its configuration, and no other program's config.json has.
WEIGHTS, TOKENIZER = "*.safetensors", "tokenizer*"
# A step's record is about this machine, and is not sent.
KEPT_BACK = (RECORD, METRICS, SAMPLES)


def files(folder: Path) -> list[Path]:
    """Return the files of a folder that go to the hub, sorted: all but hidden ones and records. Raises InputError for a link."""
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts) or path.name in KEPT_BACK:
            continue
        if path.is_symlink():
            raise InputError(f"{path}: is a link; only files of the folder itself are sent")
        if path.is_file():
            found.append(path)
    return found


def content(folder: Path, base_model: str | None) -> dict[str, Path | bytes]:
    """Return what is sent, {name: file, or the bytes in its place}.

    Card and configuration of an adapter name its backbone by `base_model`, or by the card's own name where the backbone is of the
    hub. Raises InputError for a folder that holds no model of ours, and for an adapter of a backbone that only this machine has.
    """
    sent: dict[str, Path | bytes] = {path.relative_to(folder).as_posix(): path for path in files(folder)}
    if ADAPTER not in sent:
        if not all(any(fnmatchcase(name, kind) and "/" not in name for name in sent) for kind in (CONFIG, WEIGHTS, TOKENIZER)):
            wanted = f"{ADAPTER}, or {CONFIG} with {WEIGHTS} and a tokenizer"
            raise InputError(f"{folder}: holds no adapter and no backbone; name the folder that has {wanted}")
        return sent
    if CARD not in sent:
        raise InputError(f"{folder}: has no {CARD}; train or merge it again, which writes its card")
    config, data = read_json(folder / ADAPTER), card_data(folder)
    if not isinstance(config, dict):
        raise InputError(f"{folder / ADAPTER}: is no configuration of an adapter")
    local, named = str(config.get("base_model_name_or_path")), str(data.get("base_model"))
    base = base_model or (named if named != relative(local) else None)
    if base is None:
        advice = "send the backbone's folder first, and name its repository with --base-model"
        raise InputError(f"{folder}: its backbone, {relative(local)}, is on this machine alone; {advice}")
    checked(base, "--base-model")
    body = split_card(read_text(folder / CARD, "a model card"))[1]
    for quote in ("`", '"'):
        body = body.replace(f"{quote}{named}{quote}", f"{quote}{base}{quote}")
    sent[CARD] = joined_card({**data, "base_model": base}, body).encode()
    sent[ADAPTER] = (json.dumps({**config, "base_model_name_or_path": base}, indent=2, sort_keys=True) + "\n").encode()
    return sent


def checked(name: str, option: str) -> str:
    """Return the name of a repository; raise InputError if it can be none."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"{option} {name}: {error}") from None
    return name


def push_step(folder: Path, repo: str, base_model: str | None = None, private: bool = False, dry_run: bool = False) -> None:
    """Send the model in `folder` to the repository `repo` of the hub, which is made if it is not there.

    With `dry_run` the files are listed, and nothing is sent. The token is that of the environment variable HF_TOKEN, and written
    nowhere. Raises InputError when the hub refuses, or cannot be reached, and for a public repository that was to be `private`.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder")
    checked(repo, "--repo")
    sent = content(folder, base_model)
    for name, made in sent.items():
        size = len(made) if isinstance(made, bytes) else made.stat().st_size
        print(f"{size:>12,}  {name}")
    if dry_run:
        print(f"nothing was sent to {repo}")
        return
    token = os.environ.get(TOKEN)
    if not token:
        raise InputError(f"{TOKEN}: is not set; put a token that may write into this environment variable, or try --dry-run")
    print(_send(sent, repo, token, private))


def _send(sent: dict[str, Path | bytes], repo: str, token: str, private: bool) -> str:
    """Make one commit of all files; return its address."""
    import huggingface_hub
    from huggingface_hub import CommitOperationAdd

    api: Any = huggingface_hub.HfApi(token=token)
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(address.repo_id).private:
            raise InputError(f"{repo}: is there already and public; make it private on the hub, or leave --private out")
        operations = [CommitOperationAdd(name, made if isinstance(made, bytes) else str(made)) for name, made in sent.items()]
        api.create_commit(address.repo_id, operations, commit_message="Model with its card")
    except InputError:
        raise
    except Exception as error:  # The library passes on what its client raises: no connection, no right, no such place.
        reason = str(error).replace(token, "***") or type(error).__name__
        raise InputError(f"{repo}: the hub did not take it ({reason})") from None
    return str(address)

"""A preference of one's own, written into an experiment's file as data: what the workflow then plans is its models alone."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from rlphf.config import layered
from rlphf.errors import InputError
from rlphf.files import read_yaml, write_text
from rlphf.preferences import PREFERENCES, is_id

BASE = Path("config/config.yaml")
HEADER = "# Overrides keys of {base}.\n"


def with_value(text: str, key: str, value: Any) -> str:
    """Return sound YAML of settings with another value for a key at its top level, added at the end where it is not there.

    All else stays as it is written, comments included.
    """
    tree = yaml.compose(text, Loader=yaml.SafeLoader)
    lines = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=120)
    pairs = tree.value if isinstance(tree, yaml.MappingNode) else []
    found = next(((name, old) for name, old in pairs if name.value == key), None)
    if found is None:
        return f"{text.rstrip()}\n{lines}" if text.strip() else lines
    start, end = found[0].start_mark.index, found[1].end_mark.index
    # A block ends where the next key begins: the comments between belong to that.
    kept = text[start:end].splitlines(keepends=True)
    while kept and (not kept[-1].strip() or kept[-1].lstrip().startswith("#")):
        end -= len(kept.pop())
    return text[:start] + lines.rstrip("\n") + ("\n" if text[:end].endswith("\n") else "") + text[end:]


def new_preference_step(
    id: str,
    axis: str,
    name: str,
    prompt: str,
    experiment: Path,
    words: Sequence[str] | None = None,
    measure: str | None = None,
    direction: str | None = None,
    judge: str | None = None,
    combine: bool = False,
    config: Sequence[Path] | None = None,
) -> None:
    """Add a preference to an experiment's file, which is made if it is not there, and print how to see what would run.

    Its pairs are chosen, and answers judged, by a text rule: more or less (`direction`) sentences that hold one of `words`, or
    another `measure`; without either, by the experiment's reward model that annotates. `config` are the files that the experiment
    is laid over. With `combine` its combinations are evaluated, too, which trains again what serves all of them. What does not
    make a valid experiment is refused, and the file left as it was.
    """
    below = list(config or [BASE])
    if id in PREFERENCES or not (is_id(id) and id[-1] >= "E"):
        fault = "is one of the paper's" if id in PREFERENCES else "is no id of an experiment's own preference"
        raise InputError(f"--id {id}: {fault}; choose P and the number of the axis, and a letter from E on, such as P3E")
    if direction and not (words or measure):
        raise InputError("--direction: is about a rule; name its --words, or a --measure")
    raws = [read_yaml(path)[0] for path in below]
    settings: Any = read_yaml(experiment)[0] if experiment.exists() else {}
    if settings is not None and not isinstance(settings, dict):
        raise InputError(f"{experiment}: expected a mapping of settings, got {type(settings).__name__}")
    now = layered([*raws, settings or {}], str(experiment))
    if id in now.own_preferences:
        raise InputError(f"--id {id}: {experiment} has it already, as {now.own_preferences[id].name}; choose another letter")
    if name in (own.name for own in now.own_preferences.values()):
        raise InputError(f"--name {name}: {experiment} has it already; choose another word")
    rule = {"measure": measure or "sentences_with", "words": list(words or []), "direction": direction or "more"}
    own: dict[str, Any] = {"axis": axis, "name": name, "prompt": prompt}
    own |= {"rule": rule} if words or measure else {}
    own |= {"judge": judge} if judge else {}
    mine = (settings or {}).get("own_preferences") or {}
    changes: dict[str, Any] = {"own_preferences": {**mine, id: own}, "preferences": [*now.preferences, id]}
    changes |= {"combination_preferences": [*now.combination_preferences, id]} if combine else {}
    wanted = {**(settings or {}), **changes}
    layered([*raws, wanted], str(experiment))
    text = experiment.read_text(encoding="utf-8") if experiment.exists() else HEADER.format(base=below[-1])
    try:
        for key, value in changes.items():
            text = with_value(text, key, value)
        sound = yaml.safe_load(text) == wanted
    except yaml.YAMLError:
        sound = False
    if not sound:
        raise InputError(f"{experiment}: is written in a form that cannot be added to; give each key a line of its own")
    write_text(experiment, text)
    print(f"{experiment}: {id} {name} is a preference of experiment {now.experiment}; see what it trains:")
    files = shlex.join(map(str, [*(path for path in below if path != BASE), experiment]))
    print(f"snakemake --workflow-profile workflow/profiles/default --configfile {files} --dry-run")

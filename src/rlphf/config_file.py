"""config/config.yaml with a comment on every key, config/schema.json and config/README.md, from the configuration's models."""

import json
import textwrap
from pathlib import Path
from typing import Any

from rlphf.config import Experiment, load
from rlphf.config_reference import flow, is_reference, reference
from rlphf.errors import InputError
from rlphf.files import read_text, write_text
from rlphf.settings import Section

HEADER = """\
# The experiment `demo`. Every key is here; a file given with --configfile, such as those in experiments/, overrides some.
# Keys and comments are written by `rlphf config write`; change the values.
"""
# What is written beside a configuration.
BESIDE = ("schema.json", "README.md")


def commented(section: Section, indent: str = "") -> str:
    """Return a section as YAML in which every key has its description as a comment: the text of config/config.yaml."""
    lines = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        lines += textwrap.wrap(
            field.description or "", 110 - len(indent), initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        if isinstance(value, Section):
            lines += [f"{indent}{name}:", commented(value, indent + "  ").rstrip("\n")]
        else:
            lines.append(f"{indent}{name}: {flow(section.model_dump(mode='json')[name])}")
    return "\n".join(lines) + "\n"


def schema() -> dict[str, Any]:
    """Return the JSON schema of the configuration, as stored in config/schema.json."""
    return Experiment.model_json_schema()


def is_schema(text: str) -> bool:
    """Return whether a text was written from `schema`, maybe of other settings."""
    return f'"title": "{Experiment.__name__}"' in text


def write_step(config: Path, out: Path) -> None:
    """Write `config` with all keys and their comments to `out`; beside it the JSON schema as schema.json, and README.md.

    Raises InputError for an `out` that is a folder or has one of these names, and where another file of such a name lies there.
    """
    if out.is_dir() or out.name in BESIDE:
        raise InputError(
            f"--out: {out} cannot be the configuration, beside which {' and '.join(BESIDE)} are written; name a file"
        )
    text, beside = HEADER + commented(load(config)), [out.with_name(name) for name in BESIDE]
    for path, written in zip(beside, (is_schema, is_reference), strict=True):
        if path.exists() and not written(read_text(path, "text")):
            raise InputError(f"{path}: is none that this command writes, and would be lost; give --out in a folder of its own")
    write_text(out, text)
    write_text(beside[0], json.dumps(schema(), indent=2) + "\n")
    write_text(beside[1], reference())

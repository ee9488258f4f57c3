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


def write_step(config: Path, out: Path) -> None:
    """Write `config` with all keys and their comments to `out`; beside it the JSON schema as schema.json, and README.md.

    Raises InputError where another README.md lies beside `out`.
    """
    text, readme = HEADER + commented(load(config)), out.with_name("README.md")
    if readme.exists() and not is_reference(read_text(readme, "Markdown")):
        raise InputError(f"{readme}: is none that this command writes, and would be lost; give --out in a folder of its own")
    write_text(out, text)
    write_text(out.with_name("schema.json"), json.dumps(schema(), indent=2) + "\n")
    write_text(readme, reference())

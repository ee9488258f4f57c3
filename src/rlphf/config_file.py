"""config/config.yaml with a comment on every key, and config/schema.json: both written from the configuration's models."""

import json
import textwrap
from pathlib import Path
from typing import Any

import yaml

from rlphf.config import Experiment, load
from rlphf.files import write_text
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
            flow = yaml.safe_dump(section.model_dump(mode="json")[name], default_flow_style=True, allow_unicode=True, width=10**6)
            lines.append(f"{indent}{name}: {flow.strip().removesuffix('...').strip()}")
    return "\n".join(lines) + "\n"


def schema() -> dict[str, Any]:
    """Return the JSON schema of the configuration, as stored in config/schema.json."""
    return Experiment.model_json_schema()


def write_step(config: Path, out: Path) -> None:
    """Write `config` with all keys and their comments to `out`, and the JSON schema beside it as schema.json."""
    write_text(out, HEADER + commented(load(config)))
    write_text(out.with_name("schema.json"), json.dumps(schema(), indent=2) + "\n")

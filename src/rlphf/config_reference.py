"""config/README.md: every key of the configuration with its type, what it may be, its default and what it does.

Written from the configuration's models, so nothing here describes a key.
"""

import re
from types import NoneType
from typing import Any, get_args

import yaml

from rlphf.config import Experiment
from rlphf.settings import Section
from rlphf.settings_types import HUGE, LARGEST

HEADER = """\
<!-- Written by `rlphf config write`; change the settings' descriptions in src/rlphf. -->

# Configuration

An experiment is a file of settings in YAML. Snakemake first reads `config/config.yaml`, which has every key with the value of the
experiment `demo`; the file given with `--configfile`, such as those in `config/experiments/`, overrides it key by key. So an
experiment's file needs only `experiment`, its name, and the keys that it changes:

```yaml
experiment: mine
ppo: {kl_coefficient: 0.1}
```

    snakemake --workflow-profile workflow/profiles/default --configfile config/experiments/mine.yaml --dry-run

lists the jobs of such a file. For one start, a value can be changed on the command line: `--config seed=7`.

The values of `demo` are for its small model; check those of `reward`, `ppo` and `dpo` for any other. The defaults below, mostly
the papers' settings, hold only where no file names the key: in `rlphf` commands on a file of your own. An unknown key, or a
value of another type or out of range, is an error: one line says where, and nothing is run. Threads, memory, partitions and
GPUs are in `workflow/profiles/`. Integers are below 2^31, other numbers at most 1e30. Editors can check and complete settings
by the JSON schema `config/schema.json`.
"""
TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "`true` or `false`", "null": "`null`"}
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
# The bounds of numbers that have no other; the header names them once.
FURTHEST = (HUGE, LARGEST, -LARGEST)


def reference() -> str:
    """Return the text of config/README.md."""
    return f"{HEADER}\n{_section('', Experiment.model_construct(experiment=''))}"


def is_reference(text: str) -> bool:
    """Return whether a text was written by `reference`, maybe of other settings."""
    return text.startswith(HEADER.partition("\n")[0])


def flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.strip().removesuffix("...").strip()


def kind(schema: dict[str, Any], name: str) -> str:
    """Return what the key `name` may be, in words, from the JSON schema of its values: "integer above 0 or `null`"."""
    if "anyOf" in schema:
        return _either([kind(choice, name) for choice in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return _either([f"`{flow(value)}`" for value in schema.get("enum", [schema.get("const")])])
    if "$ref" in schema:
        return f"mapping, see {_link(name)}"
    if schema["type"] == "array":
        return f"list{_length(schema)}, each {kind(schema['items'], f'{name}[]')}"
    if schema["type"] == "object":
        ((keys, values),) = schema.get("patternProperties", {"": schema.get("additionalProperties")}).items()
        return f"mapping{f' of keys matching `{keys}`' if keys else ''}, each value {kind(values, f'{name}[]')}"
    return TYPES[schema["type"]] + _bounds(schema)


def _either(choices: list[str]) -> str:
    *rest, last = choices
    return f"{', '.join(rest)} or {last}" if rest else last


def _length(schema: dict[str, Any]) -> str:
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least == most:
        return "" if least is None else f" of {least}"
    return f" of at least {least}" if most is None else f" of {least or 0} to {most}"


def _bounds(schema: dict[str, Any]) -> str:
    found = [f"{words} {schema[key]}" for key, words in BOUNDS.items() if schema.get(key, HUGE) not in FURTHEST]
    if schema.get("minLength"):
        found.append("not empty")
    if "pattern" in schema:
        found.append(f"matching `{schema['pattern']}`")
    return f" {' and '.join(found)}" if found else ""


def _link(name: str) -> str:
    return f"[`{name}`](#{re.sub(r'[^a-z0-9_-]', '', name)})"


def _row(*cells: str) -> str:
    """Return a row of a Markdown table: a bar would end a cell, and what stands in angles outside of code would be a tag."""
    kept = []
    for cell in cells:
        parts = cell.replace("|", r"\|").split("`")
        kept.append("`".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts)))
    return f"| {' | '.join(kept)} |"


def _section(name: str, section: Section) -> str:
    """Return a section's heading, its own keys as a table, and the sections in it."""
    prefix = f"{name}." if name else ""
    schema = type(section).model_json_schema()["properties"]
    rows, inner = [_row("key", "type", "default", "what it does"), _row(*["---"] * 4)], []
    for key, field in type(section).model_fields.items():
        text = field.description or ""
        value = None if field.is_required() else getattr(section, key)
        if isinstance(value, Section):
            rows.append(_row(f"`{key}`", f"mapping, see {_link(prefix + key)}", "", text))
            inner.append(_section(prefix + key, value))
            continue
        default = "needed" if field.is_required() else f"`{flow(section.model_dump(mode='json')[key])}`"
        rows.append(_row(f"`{key}`", kind(schema[key], prefix + key), default, text))
        for element in get_args(field.annotation):
            if isinstance(element, type) and issubclass(element, Section):
                one = "" if NoneType in get_args(field.annotation) else "[]"
                inner.append(_section(f"{prefix}{key}{one}", element.model_construct()))
    heading = f"{'#' * (2 + name.count('.'))} {name or 'experiment'}"
    return "\n".join([heading, "", *rows, "", *inner])

"""What the judges of any text read: prompts and the files of responses, checked."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from rlphf.data.records import PROMPTS, RESPONSES, check_prompts, check_responses
from rlphf.files import read_parquet


def named(prompts: Path, responses: Sequence[Path]) -> dict[str, Path]:
    """Return a judge's inputs by the names that they have in its record."""
    return {"prompts": prompts, **{"/".join(path.parts[-2:]): path for path in responses}}


def read_inputs(prompts: Path, responses: Sequence[Path]) -> tuple[pa.Table, dict[str, pa.Table]]:
    """Return PROMPTS and {file: RESPONSES}; raise InputError naming file, row and column of what breaks their rules."""
    asked = read_parquet(prompts, PROMPTS)
    check_prompts(asked, str(prompts))
    tables = {str(path): read_parquet(path, RESPONSES) for path in responses}
    for where, table in tables.items():
        check_responses(table, where)
    return asked, tables

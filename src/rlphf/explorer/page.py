"""The explorer: one HTML file that needs no network, in which a run's answers, scores, soups and curves can be read."""

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from rlphf.config import load
from rlphf.errors import InputError
from rlphf.evaluate.scores import FRONT, Row
from rlphf.evaluate.table_files import read_table
from rlphf.evaluate.tables import verdicts_of
from rlphf.explorer.charts import curves, front
from rlphf.explorer.content import answers_of, content, prompts_of, responses_of, user_scores_of, users_of
from rlphf.files import write_text
from rlphf.tracking.record import step

PARTS = Path(__file__).parent
# The version whose specifications Altair writes: "v6.4.1" is 6.4.
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
SLOT = re.compile(r"<!-- (\w+) -->")


def as_json(value: Any) -> str:
    """Return JSON that can stand in a script element: no text in it, whatever it holds, ends the element or opens another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def page(shown: Row, charts: Sequence[Row]) -> str:
    """Return the page of what `content` gathered and of `charts`; equal contents give equal texts.

    Vega is kept as a text that the page runs when it first draws a chart, so that answers are there at once. It compiles the
    expressions of charts, which is what the page's content policy allows `unsafe-eval` for.
    """
    parts = {
        "title": html.escape(f"{shown['experiment']}, seed {shown['seed']}"),
        "style": (PARTS / "page.css").read_text(encoding="utf-8"),
        # One script in parts: each uses what those before it have.
        "script": "\n".join(path.read_text(encoding="utf-8") for path in sorted(PARTS.glob("page_*.js"))),
        "content": as_json(shown),
        "charts": as_json(list(charts)),
        "vega": as_json(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)),
    }
    # In one pass: what is put in is not looked through for slots.
    return SLOT.sub(lambda slot: parts[slot[1]], (PARTS / "page.html").read_text(encoding="utf-8"))


def explorer_step(results: Path, seed_folder: Path, out: Path, users: bool = False) -> None:
    """Write the explorer of the run in `seed_folder` to the file `out`; tables are those in the folder `results`.

    With `users` it has what users were answered alone, for a run without methods for combinations, and reads no tables. The
    record lies beside it, in a folder of its name.
    """
    if not seed_folder.is_dir():
        raise InputError(f"{seed_folder}: no such folder; it should hold the outputs of a run")
    config, tables = seed_folder / "config.yaml", results / "tables"
    experiment = load(config)
    inputs = {"config": config, **prompts_of(experiment, seed_folder, users)}
    inputs |= {f"answers/{name}": path for name, path in answers_of(experiment, seed_folder).items()}
    inputs |= {"users": users_of(experiment, seed_folder)} if experiment.user_evaluation.methods else {}
    if scored := user_scores_of(experiment, seed_folder):
        inputs["user_scores"] = scored
    if not users:
        inputs["scores"] = verdicts_of(experiment.evaluation.judges[0], experiment, seed_folder)
        inputs |= {name: tables / f"{name}.parquet" for name in ("curves", FRONT)}
        inputs |= {f"responses/{name}": path for name, path in responses_of(experiment, seed_folder).items()}
    with step("explorer", out.parent / out.stem, experiment, inputs=inputs) as run:
        shown = content(experiment, seed_folder, users)
        charts = [] if users else [*curves(read_table(tables, "curves")), *front(read_table(tables, FRONT))]
        write_text(out, page(shown, charts))
        cells = [*shown["cells"], *shown["user_cells"]]
        run.log({"answers": sum(len(cell["texts"]) for cell in cells), "megabytes": out.stat().st_size / 1e6})
        run.output(out)
        run.artifact(out)

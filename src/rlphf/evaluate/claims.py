"""The claims ledger: statements written down before a run, each with the number that decides it, and the verdicts.

A claim names a row of a table, the column with its effect, and the threshold that decides it. With one seed the effect's
interval is the table's own, over prompts, in tables about users over users and prompts. With several it is the t interval over
seeds, one effect each: every seed has topics, trainings and testbed users of its own, so nothing else is drawn. Users of raw data
are the same for all seeds, and the interval is for them. The verdict follows from the interval alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from scipy.stats import t as student

from rlphf.config import load
from rlphf.errors import InputError
from rlphf.evaluate.bootstrap import COVERAGE, clean, mean
from rlphf.evaluate.schemas import ESTIMATES, SCHEMAS
from rlphf.evaluate.scores import Row
from rlphf.evaluate.table_files import write_table
from rlphf.evaluate.tables import all_tables, measured
from rlphf.evaluate.user_tables import user_tables, users_measured
from rlphf.files import read_yaml
from rlphf.settings import Section
from rlphf.tracking.record import step


class Claim(Section):
    """A statement and what decides it: `effect` of the one row of `table` that `where` picks, against `threshold`."""

    claim: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Its name.")
    statement: str = Field(min_length=1, description="What is claimed.")
    table: str = Field(description="Table with the effect and its interval.")
    where: dict[str, str] = Field(min_length=1, description="{column: value} of its row.")
    effect: str = Field(description="Column of the effect, the one that the table's interval is of.")
    direction: Literal["above", "below"] = Field("above", description="On which side of the threshold the claim holds.")
    threshold: float = Field(0.0, description="The smallest (below: largest) effect that counts.")


def read_claims(path: Path | str) -> list[Claim]:
    """Read a ledger, which may be an empty list; raise InputError naming the claim and what is wrong with it."""
    stated = read_yaml(path)[0]
    if not isinstance(stated, list):
        raise InputError(f"{path}: expected a list of claims; write [] where nothing is claimed")
    try:
        claims = TypeAdapter(list[Claim]).validate_python(stated)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"{path}: claim {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    for claim in claims:
        where = f"{path}: claim {claim.claim}"
        if claim.table not in ESTIMATES:
            raise InputError(f"{where}: no table {claim.table!r} has intervals; choose from {', '.join(ESTIMATES)}")
        for column in claim.where:
            if column not in SCHEMAS[claim.table].names:
                raise InputError(f"{where}: table {claim.table} has no column {column!r}")
        if claim.effect != ESTIMATES[claim.table]:
            known = ESTIMATES[claim.table]
            raise InputError(f"{where}: effect {claim.effect!r} has no interval in table {claim.table}; name {known!r}")
    if len({claim.claim for claim in claims}) != len(claims):
        raise InputError(f"{path}: two claims have one name; give each its own")
    return claims


def verdict(low: float, high: float, direction: str, threshold: float) -> str:
    """Return supported if the whole interval lies beyond the threshold, refuted if none of it does, else undecided."""
    if direction == "below":
        low, high, threshold = -high, -low, -threshold
    return "supported" if low > threshold else "refuted" if high <= threshold else "undecided"


def interval(effects: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % t interval of the mean of at least two `effects`, one per seed."""
    values = np.array(effects)
    reach = student.ppf((1 + COVERAGE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return clean(values.mean() - reach), clean(values.mean() + reach)


def evaluate(claims: Sequence[Claim], tables: Sequence[Mapping[str, Sequence[Row]]]) -> list[Row]:
    """Return the rows of table `claims`, from the tables of each seed.

    A claim of which the runs made no row is left undecided, with seeds 0: the ledger forgets none. Raises InputError when a
    claim picks more than one row, some seeds have its row and others not, or a row's effect or interval is empty.
    """
    rows: list[Row] = []
    for claim in claims:
        found = [[row for row in seed[claim.table] if _picks(claim, row)] for seed in tables]
        if any(len(picked) > 1 for picked in found):
            raise InputError(f"claim {claim.claim}: more than one row of {claim.table} fits; name more columns under where")
        picked = [one[0] for one in found if one]
        if picked and len(picked) < len(tables):
            raise InputError(f"claim {claim.claim}: only {len(picked)} of {len(tables)} seeds have its row of {claim.table}")
        row: Row = {name: getattr(claim, name) for name in ("claim", "statement", "table")}
        row |= {"effect": None, "ci_low": None, "ci_high": None}
        row |= {"direction": claim.direction, "threshold": claim.threshold, "verdict": "undecided", "seeds": len(picked)}
        if picked:
            if any(one[column] is None for one in picked for column in (claim.effect, "ci_low", "ci_high")):
                raise InputError(
                    f"claim {claim.claim}: its row of {claim.table} has no effect or no interval; claim what is measured"
                )
            effects = [one[claim.effect] for one in picked]
            low, high = interval(effects) if len(effects) > 1 else (picked[0]["ci_low"], picked[0]["ci_high"])
            row |= {"effect": mean(np.array(effects)), "ci_low": low, "ci_high": high}
            row["verdict"] = verdict(low, high, claim.direction, claim.threshold)
        rows.append(row)
    return rows


def _picks(claim: Claim, row: Row) -> bool:
    return all(str(row[column]) == value for column, value in claim.where.items())


def claims_step(ledger: Path, configs: Sequence[Path], out: Path) -> None:
    """Evaluate the claims in the file `ledger` over the seeds whose folders hold the files `configs`; write table `claims`.

    The record lies in `out`/claims: the folder of tables has that of the step that makes the others.
    """
    claims = read_claims(ledger)
    experiments = [load(path) for path in configs]
    inputs = {"claims": ledger}
    for experiment, path in zip(experiments, configs, strict=True):
        made = {"config": path, **measured(experiment, path.parent), **users_measured(experiment, path.parent)}
        inputs |= {f"seed-{experiment.seed}/{name}": file for name, file in made.items()}
    with step("claims", out / "claims", experiments[0], experiments[0].evaluation, inputs) as run:
        tables = [
            all_tables(experiment, path.parent) | user_tables(experiment, path.parent)
            for experiment, path in zip(experiments, configs, strict=True)
        ]
        rows = evaluate(claims, tables)
        files = write_table(out, "claims", rows)
        run.log({f"claims_{name}": sum(r["verdict"] == name for r in rows) for name in ("supported", "refuted", "undecided")})
        run.output(*files)
        run.artifact(*(path for path in files if path.suffix == ".md"))

"""Verdicts follow from intervals alone, and the ledger forgets no claim."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rlphf.errors import InputError
from rlphf.evaluate.claims import Claim, claims_step, evaluate, interval, read_claims, verdict
from rlphf.evaluate.schemas import ESTIMATES, SCHEMAS
from rlphf.evaluate.table_files import read_table
from rlphf.files import read_json

LEDGER = Path(__file__).parent.parent.parent / "config" / "claims.yaml"
WHERE = {"preference": "P1A", "seed": "1"}
GAIN = Claim(claim="gain", statement="P1A gains.", table="adapters", where=WHERE, effect="delta", threshold=0.1)


def seed(delta: float, low: float = 0.0, high: float = 1.0) -> dict[str, list[dict]]:
    rows = [{"preference": p, "seed": 1, "delta": delta, "ci_low": low, "ci_high": high} for p in ("P1A", "P1B")]
    return {"adapters": rows}


@pytest.mark.parametrize(
    ("low", "high", "direction", "wanted"),
    [
        (0.11, 0.5, "above", "supported"),
        (0.1, 0.5, "above", "undecided"),
        (-0.5, 0.11, "above", "undecided"),
        (-0.5, 0.1, "above", "refuted"),
        (-0.5, 0.09, "below", "supported"),
        (-0.5, 0.1, "below", "undecided"),
        (0.1, 0.5, "below", "refuted"),
    ],
)
def test_the_verdict_is_where_the_whole_interval_lies(low, high, direction, wanted):
    assert verdict(low, high, direction, 0.1) == wanted


def test_the_interval_over_seeds_is_that_of_student():
    # t(0.975, 4) = 2.7764; standard deviation of 1..5: sqrt(2.5).
    reach = 2.7764 * np.sqrt(2.5 / 5)
    assert interval([1, 2, 3, 4, 5]) == pytest.approx((3 - reach, 3 + reach), abs=1e-3)


def test_the_interval_over_seeds_holds_the_mean_as_often_as_it_says():
    drawn = np.random.default_rng(1).normal(0.3, 0.1, size=(2000, 5))
    held = [low <= 0.3 <= high for low, high in map(interval, drawn)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_one_seed_takes_the_interval_of_the_table_and_several_their_own():
    (one,) = evaluate([GAIN], [seed(0.3, 0.2, 0.4)])
    assert (one["effect"], one["ci_low"], one["ci_high"], one["verdict"], one["seeds"]) == (0.3, 0.2, 0.4, "supported", 1)
    (many,) = evaluate([GAIN], [seed(0.3), seed(0.2), seed(0.4)])
    assert many["effect"] == pytest.approx(0.3) and (many["ci_low"], many["ci_high"]) == interval([0.3, 0.2, 0.4])
    assert many["verdict"] == "undecided" and many["seeds"] == 3


def test_a_claim_that_was_not_measured_stays_in_the_ledger():
    absent = GAIN.model_copy(update={"claim": "absent", "where": {"preference": "P3D"}})
    rows = evaluate([GAIN, absent], [seed(0.3, 0.2, 0.4)])
    assert [row["claim"] for row in rows] == ["gain", "absent"]
    assert (rows[1]["verdict"], rows[1]["seeds"], rows[1]["effect"]) == ("undecided", 0, None)


def test_a_claim_that_fits_two_rows_or_only_some_seeds_is_refused():
    with pytest.raises(InputError, match="claim gain: more than one row of adapters fits"):
        evaluate([GAIN.model_copy(update={"where": {"seed": "1"}})], [seed(0.3)])
    with pytest.raises(InputError, match="claim gain: only 1 of 2 seeds"):
        evaluate([GAIN], [seed(0.3), {"adapters": []}])


@pytest.mark.parametrize("empty", ["delta", "ci_low", "ci_high"])
def test_a_claim_about_an_empty_cell_is_refused(empty):
    broken = seed(0.3)
    broken["adapters"][0][empty] = None
    with pytest.raises(InputError, match="claim gain: its row of adapters has no effect or no interval"):
        evaluate([GAIN], [seed(0.2), broken])


def test_every_table_with_an_interval_says_what_it_is_of():
    # Table claims has verdicts, which no claim is about.
    known = {name for name, schema in SCHEMAS.items() if "ci_low" in schema.names}
    assert ESTIMATES.keys() == known - {"claims"}
    for table, column in ESTIMATES.items():
        assert {column, "ci_low", "ci_high"} <= {field.name for field in SCHEMAS[table] if pa.types.is_float64(field.type)}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("table: adapters", "table: adapter", "claim a: no table 'adapter' has intervals"),
        ("effect: delta", "effect: gain", "claim a: effect 'gain' has no interval in table adapters; name 'delta'"),
        ("preference: P1A", "method: pp", "claim a: table adapters has no column 'method'"),
        ("table: adapters", "table: timings", "claim a: no table 'timings' has intervals"),
        ("table: adapters", "table: claims", "claim a: no table 'claims' has intervals"),
        ("effect: delta", "effect: after", "claim a: effect 'after' has no interval in table adapters; name 'delta'"),
        ("effect: delta", "effect: preference", "claim a: effect 'preference' has no interval"),
        ("effect: delta", "effct: delta", "claim 0.effect: Field required"),
        ("claim: a", "claim: b", "two claims have one name"),
        ("- claim", "-\tclaim", "cannot be read as YAML"),
    ],
)
def test_a_wrong_ledger_is_refused_in_one_line(tmp_path, old, new, message):
    text = "- claim: {}\n  statement: It gains.\n  table: adapters\n  where: {{preference: P1A}}\n  effect: delta\n"
    (tmp_path / "claims.yaml").write_text(text.format("a").replace(old, new, 1) + text.format("b"))
    with pytest.raises(InputError) as error:
        read_claims(tmp_path / "claims.yaml")
    assert message in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("text", ["", "# - claim: a\n", "claim: a\n"])
def test_a_ledger_that_is_no_list_is_told_how_to_claim_nothing(tmp_path, text):
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(InputError, match=r"claims.yaml: expected a list of claims; write \[\] where nothing is claimed"):
        read_claims(tmp_path / "claims.yaml")
    (tmp_path / "claims.yaml").write_text("[]\n")
    assert read_claims(tmp_path / "claims.yaml") == [] == evaluate([], [seed(0.3)])


def test_the_projects_ledger_is_sound_and_its_verdicts_are_a_table(finished_run, tmp_path):
    config, seed_folder, experiment = finished_run
    (seed_folder / "config.yaml").write_text(config.read_text())
    claims_step(LEDGER, [seed_folder / "config.yaml"], tmp_path / "tables")
    inputs = read_json(tmp_path / "tables" / "claims" / "record.json")["inputs"]
    measured = {f"seed-{experiment.seed}/{name}" for name in ("config", "judge/oracle", "reward/P1A/scores.parquet")}
    assert measured | {"claims"} <= set(inputs)
    rows = {row["claim"]: row for row in read_table(tmp_path / "tables", "claims")}
    assert list(rows) == [claim.claim for claim in read_claims(LEDGER)]
    # In the imagined run soups obey more often than the plain and the prompted backbone, and nothing was mixed at decoding.
    assert rows["psoups-vb"]["verdict"] == rows["psoups-pp"]["verdict"] == "supported"
    assert rows["psoups-mod"]["seeds"] == 0 and rows["psoups-vb"]["seeds"] == 1

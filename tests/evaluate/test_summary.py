import shutil
from pathlib import Path

import pytest

from rlphf.evaluate.schemas import USER_TABLES
from rlphf.evaluate.summary import TABLES, WIDTH, grid, summary, summary_step
from rlphf.evaluate.table_files import read_table, write_table
from rlphf.evaluate.tables import tables_step
from rlphf.files import read_json, sha256

FIGURES, SOUPS = Path("results/demo/figures"), Path("results/demo/seed-1/soups")


VERDICTS = ["supported"] * 4 + ["undecided"] * 30


@pytest.fixture(scope="module")
def tables(finished_run, tmp_path_factory):
    config, seed_folder, _ = finished_run
    out = tmp_path_factory.mktemp("tables")
    tables_step(config, seed_folder, out)
    claims = [{"claim": f"c{i}", "statement": "Users hold.", "table": "methods", "verdict": v} for i, v in enumerate(VERDICTS)]
    blank = {"effect": 0.1, "ci_low": 0.0, "ci_high": 0.2, "direction": "above", "threshold": 0.0, "seeds": 1}
    write_table(out, "claims", [claim | blank for claim in claims])
    for name in USER_TABLES:
        write_table(out, name, [])
    return out


@pytest.fixture
def user_tables(tables, tmp_path):
    """The same tables in another folder, with three methods that serve users, one of which answers nothing, and claims."""
    for path in tables.glob("*.parquet"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    ends = {"ci_low": 0.61, "ci_high": 0.7449}
    told = [
        {"method": m, "population": p, "n_pairs": 60, "accuracy": 0.66 + 0.01 * i, "ceiling": None, "seed": 1, **ends}
        for i, m in enumerate(("dpo", "prm", "pdpo_individual"))
        for p in ("seen", "majority", "minority", "unseen")
    ]
    served = [
        {"method": row["method"], "population": row["population"], "criterion": c, "mean": mean, "n": 24, **ends}
        for row in told
        if row["method"] != "prm"
        for c, mean in (("score", 0.63), ("helpfulness", 0.7))
    ]
    write_table(tmp_path, "users_accuracy", told)
    write_table(tmp_path, "users_scores", served)
    claims = read_table(tmp_path, "claims")
    write_table(tmp_path, "claims", [row | {"table": "users_differences"} if i > 2 else row for i, row in enumerate(claims)])
    return tmp_path


def fits(text, tables):
    return all(len(line) <= WIDTH for line in text.splitlines() if str(tables) not in line)


def test_summary_is_plain_ascii_within_its_width(tables):
    text = summary(tables, FIGURES, SOUPS)
    assert text.isascii()
    assert fits(text, tables)


def test_summary_names_where_everything_lies_and_how_to_look_at_it(tables, capsys):
    summary_step(tables, FIGURES, SOUPS)
    text = capsys.readouterr().out
    for words in (str(tables), str(FIGURES), str(SOUPS), "make ui"):
        assert words in text


def test_summary_is_written_with_a_record_of_the_tables_that_it_was_made_from(tables, tmp_path, capsys):
    out = tmp_path / "results" / "summary.txt"
    summary_step(tables, FIGURES, SOUPS, out)
    assert capsys.readouterr().out == ""
    assert out.read_text() == summary(tables, FIGURES, SOUPS)
    record = read_json(out.parent / "summary" / "record.json")
    assert {Path(described["path"]) for described in record["inputs"].values()} == {tables / f"{n}.parquet" for n in TABLES}
    assert [described["sha256"] for described in record["outputs"].values()] == [sha256(out)]


def test_summary_counts_claims_and_names_those_that_are_not_supported(tables):
    text = summary(tables, FIGURES, SOUPS)
    assert "4 supported, 30 undecided, 0 refuted" in text and "refuted:" not in text
    assert "undecided: c4, c5," in text and "c33" in text and " c3," not in text


def test_summary_of_a_ledger_without_claims_says_so_and_counts_nothing(tables, tmp_path):
    shutil.copytree(tables, tmp_path / "tables")
    write_table(tmp_path / "tables", "claims", [])
    text = summary(tmp_path / "tables", FIGURES, SOUPS)
    assert "\nClaims (table claims): none are stated in the ledger\n" in text and "0 supported" not in text


def test_summary_shows_each_combination_and_adapter_with_its_interval(tables):
    text = summary(tables, FIGURES, SOUPS)
    (row,) = (
        r
        for r in read_table(tables, "methods")
        if (r["method"], r["combination"], r["criterion"]) == ("pp", "P1B-P2A-P3B", "mean")
    )
    # Methods that do not fit beside each other go into a further block.
    lines = [line for line in text.splitlines() if line.startswith("P1B P2A P3B")]
    (line,) = (line for line in lines if f" {row['mean']:.2f} [" in line)
    assert f"{row['mean']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]" in line
    (adapter,) = (r for r in read_table(tables, "adapters") if r["preference"] == "P3D")
    (line,) = (line for line in text.splitlines() if line.startswith("P3D sarcastic"))
    assert f"{adapter['delta']:+.2f} [{adapter['ci_low']:+.2f}, {adapter['ci_high']:+.2f}]" in line


def test_summary_counts_the_combinations_on_which_soups_are_better(tables):
    rows = [r for r in read_table(tables, "differences") if r["criterion"] == "mean" and r["combination"] != "all"]
    better = sum(r["ci_low"] > 0 for r in rows if (r["method_a"], r["method_b"]) == ("psoups", "pp"))
    assert f"against PP: better on {better}, worse on 0 of 8" in summary(tables, FIGURES, SOUPS)


def test_summary_shows_every_judges_average_and_how_far_judges_agree(tables):
    text = summary(tables, FIGURES, SOUPS)
    rows = {(r["judge"], r["method"]): r for r in read_table(tables, "averages") if r["criterion"] == "majority"}
    (line,) = (line for line in text.splitlines() if line.startswith("P-SOUPS  "))
    for judge in ("oracle", "rules"):
        row = rows[judge, "psoups"]
        assert f"{row['rate_half_ties']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]" in line
    (row,) = (r for r in read_table(tables, "agreement") if r["criterion"] == "majority")
    assert f"rules decides like oracle in {row['agreement_decided']:.2f} [" in text


def test_mistakes_have_a_block_where_they_are_priced(tables, tmp_path):
    assert "mistake" not in summary(tables, FIGURES, SOUPS)
    for path in tables.glob("*.parquet"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    row = {"mistake": "random_reward_head", "method": "psoups", "criterion": "mean", "before": 0.7, "after": 0.5, "n": 9}
    effect = {"effect": -0.2, "ci_low": -0.25, "ci_high": -0.1512}
    write_table(tmp_path, "release_bugs", [row | effect | {"against": against} for against in ("without it", "pp")])
    text = summary(tmp_path, FIGURES, SOUPS)
    found = [line.split() for line in text.splitlines() if line.startswith("random reward head: P-SOUPS")]
    assert [" ".join(words[4:]) for words in found] == [
        "without it 0.70 0.50 -0.200 [-0.250, -0.151]",
        "PP 0.70 0.50 -0.200 [-0.250, -0.151]",
    ]
    assert fits(text, tmp_path)


def test_users_have_no_block_where_there_are_none(tables):
    assert "users" not in summary(tables, FIGURES, SOUPS)


def test_methods_that_serve_users_are_shown_by_population_with_intervals(user_tables):
    text = summary(user_tables, FIGURES, SOUPS)
    lines = [line.split("  ") for line in text.splitlines()]
    found = {(words[0], words[-1].strip()): len([word for word in words if word.strip()]) for words in lines if len(words) > 1}
    # Seen, minority and unseen, beside the name.
    assert found["P-DPO individual", "0.68 [0.61, 0.74]"] == found["P-DPO individual", "0.63 [0.61, 0.74]"] == 4
    assert found["P-RM", "0.67 [0.61, 0.74]"] == found["method", "unseen"] == 4
    assert sum(name == "P-RM" for name, _ in found) == 1
    assert text.index("Methods that serve users") < text.index("Tables  ")
    assert text.isascii() and fits(text, user_tables)


def test_claims_about_users_are_counted_by_themselves(user_tables):
    assert "\nClaims about users: 1 supported, 30 undecided, 0 refuted\n" in summary(user_tables, FIGURES, SOUPS)


def test_users_of_raw_data_have_no_table_of_scores(user_tables):
    write_table(user_tables, "users_scores", [])
    text = summary(user_tables, FIGURES, SOUPS)
    assert text.count("P-DPO individual") == 1 and "score of answers" not in text


def test_many_methods_are_wrapped_and_not_cut(tables, tmp_path):
    for name in (
        "adapters",
        "reward_models",
        "differences",
        "methods",
        "averages",
        "agreement",
        "release_bugs",
        "claims",
        *USER_TABLES,
    ):
        rows = read_table(tables, name)
        if name == "methods":
            rows = [row | {"method": f"{row['method']}{copy}"} for copy in range(3) for row in rows]
        write_table(tmp_path, name, rows)
    text = summary(tmp_path, FIGURES, SOUPS)
    assert fits(text, tmp_path)
    assert all(f"psoups{copy}" in text for copy in range(3))


def test_grid_aligns_numbers_to_the_right():
    assert grid(["name", "n"], [["a", "1"], ["bc", "22"]], [1]) == ["name   n", "--------", "a      1", "--------", "bc    22"]

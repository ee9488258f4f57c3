import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.evaluate.judging import compared

from rlphf.config import Experiment, parse
from rlphf.data.records import PROMPTS, RESPONSES
from rlphf.errors import InputError
from rlphf.evaluate import release_bugs, runs
from rlphf.evaluate import tables as tables_module
from rlphf.evaluate.bootstrap import Bootstrap
from rlphf.evaluate.judges.comparisons import RATED
from rlphf.evaluate.judges.people import export_step, import_step
from rlphf.evaluate.runs import MERGES, curves, data, kept_kl, merges, pairs_file, reward_models, spoken_for, timings
from rlphf.evaluate.schemas import RUN_TABLES, SCHEMAS
from rlphf.evaluate.scores import read_scores
from rlphf.evaluate.table_files import FORMULA, as_csv, as_markdown, as_text, formatted, from_text, read_table
from rlphf.evaluate.tables import ORACLE, all_tables, measured, tables_step
from rlphf.files import read_json, read_parquet, write_parquet
from rlphf.preferences import PREFERENCES
from rlphf.settings import PPO
from rlphf.settings_soup import Merging, Soup

COLUMNS = {
    "data": "source preference read kept train validation test dropped reason",
    "reward_models": "preference split n accuracy ceiling ci_low ci_high",
    "adapters": "preference seed before after delta ci_low ci_high kl length_before length_after",
    "adapter_effects": "preference criterion before after delta ci_low ci_high",
    "methods": "method combination criterion mean ci_low ci_high n",
    "differences": "method_a method_b combination criterion difference ci_low ci_high n",
    "win_rates": "method_a method_b combination criterion wins losses ties rate rate_half_ties ci_low ci_high",
    "matrix": "judge method_a method_b criterion wins losses ties rate rate_half_ties ci_low ci_high paper_gpt4",
    "averages": "judge method criterion opponents rate rate_half_ties ci_low ci_high paper_gpt4 paper_humans",
    "agreement": "judge_a judge_b criterion n agreement decided agreement_decided ci_low ci_high",
    "swaps": "judge criterion n consistent ci_low ci_high prefers_first malformed",
    "front": "first second weight criterion mean ci_low ci_high n",
    "budgets": "method trainings pairs updates samples seconds answer_ms",
    "merges": "combination rule relative_error score",
    "timings": "step seconds peak_mb",
    "curves": "preference kind step metric value",
}


@pytest.fixture(scope="module")
def tables(finished_run, tmp_path_factory):
    config, seed_folder, _ = finished_run
    out = tmp_path_factory.mktemp("tables")
    tables_step(config, seed_folder, out)
    return out


@pytest.fixture
def copied_run(finished_run, tmp_path):
    """A copy of the run that a test may spoil."""
    config, seed_folder, experiment = finished_run
    shutil.copytree(seed_folder, tmp_path / "seed")
    return config, tmp_path / "seed", experiment


@pytest.mark.parametrize("name", COLUMNS)
def test_a_table_is_written_three_times_under_one_name(tables, name):
    rows = read_table(tables, name)
    assert rows
    with (tables / f"{name}.csv").open(newline="") as stream:
        header, *lines = csv.reader(stream)
    assert header == list(rows[0]) == COLUMNS[name].split()
    assert lines == [[formatted(value) for value in row.values()] for row in rows]
    markdown = [line for line in (tables / f"{name}.md").read_text().splitlines() if line.startswith("|")][2:]
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown] == lines


def test_the_record_names_all_that_the_tables_were_read_from(finished_run, tmp_path, monkeypatch):
    config, seed_folder, _ = finished_run
    opened = set()
    for module in (tables_module, runs, release_bugs):
        for name in ("read_parquet", "read_scores", "read_metrics"):
            if hasattr(module, name):
                read = getattr(module, name)
                monkeypatch.setattr(module, name, lambda path, *rest, read=read: opened.add(Path(path)) or read(path, *rest))
    tables_step(config, seed_folder, tmp_path)
    named = {Path(described["path"]) for described in read_json(tmp_path / "record.json")["inputs"].values()}
    assert {path for path in opened if path.exists()} == named
    assert len(named) > 10


def test_tables_have_the_same_bytes_when_made_again(finished_run, tables, tmp_path):
    config, seed_folder, _ = finished_run
    tables_step(config, seed_folder, tmp_path)
    made = sorted(p.name for p in tmp_path.iterdir() if p.suffix in (".parquet", ".csv", ".md"))
    assert len(made) == 3 * len(RUN_TABLES)
    for name in made:
        assert (tmp_path / name).read_bytes() == (tables / name).read_bytes(), name


def test_no_combination_of_keys_occurs_twice(tables):
    for name in RUN_TABLES:
        keys = [f.name for f in SCHEMAS[name] if pa.types.is_string(f.type) or f.name in ("step", "weight")]
        found = [tuple(row[key] for key in keys) for row in read_table(tables, name)]
        assert len(found) == len(set(found)), name


def test_method_means_are_those_of_the_scores(finished_run, tables):
    _, seed_folder, experiment = finished_run
    scored = read_parquet(seed_folder / ORACLE).to_pylist()
    for row in read_table(tables, "methods"):
        if row["combination"] == "all" or row["criterion"] == "mean":
            continue
        where = "" if row["method"] in ("vb", "rlhf") else row["combination"]
        key = (row["method"], where, row["criterion"])
        values = [s["score"] for s in scored if (s["method"], s["combination"], s["criterion"]) == key]
        assert row["mean"] == pytest.approx(np.mean(values))
        assert row["ci_low"] <= row["mean"] <= row["ci_high"]
        assert row["n"] == len(values)
    assert {row["method"] for row in read_table(tables, "methods")} == set(experiment.evaluation.methods)


def test_all_is_the_mean_over_the_combinations(tables):
    rows = {(r["method"], r["combination"], r["criterion"]): r for r in read_table(tables, "methods")}
    each = [row["mean"] for (m, c, criterion), row in rows.items() if (m, criterion) == ("pp", "mean") and c != "all"]
    assert len(each) == 8
    assert rows["pp", "all", "mean"]["mean"] == pytest.approx(np.mean(each))
    asking = [rows["pp", c, "P3B"]["mean"] for m, c, k in rows if (m, k) == ("pp", "P3B") and c.endswith("P3B")]
    assert rows["pp", "all", "P3B"]["mean"] == pytest.approx(np.mean(asking))


def test_a_method_that_obeys_more_often_scores_higher_with_an_interval_above_zero(tables):
    rows = {(r["method_a"], r["method_b"], r["combination"], r["criterion"]): r for r in read_table(tables, "differences")}
    assert rows["psoups", "vb", "all", "mean"]["ci_low"] > 0.2
    assert rows["vb", "psoups", "all", "mean"]["ci_high"] < -0.2


def test_adapters_are_judged_by_their_own_preference_against_the_prompted_backbone(finished_run, tables):
    _, seed_folder, experiment = finished_run
    scores = read_scores(seed_folder / ORACLE)
    rows = read_table(tables, "adapters")
    assert [row["preference"] for row in rows] == experiment.preferences
    for row in rows:
        p = row["preference"]
        before, after = (scores.cell(m, p).score(p, p).mean() for m in ("base", "adapter"))
        assert (row["before"], row["after"], row["delta"]) == pytest.approx((before, after, after - before))
        assert row["ci_low"] <= row["delta"] <= row["ci_high"]
        assert (row["seed"], row["kl"]) == (7, 4.5)


def test_every_judge_has_its_matrix_and_the_first_one_that_of_the_win_rates(tables):
    found = {(r["judge"], r["method_a"], r["method_b"], r["criterion"]): r for r in read_table(tables, "matrix")}
    rates = {(r["method_a"], r["method_b"], r["combination"], r["criterion"]): r for r in read_table(tables, "win_rates")}
    for criterion in ("majority", "mean", "helpfulness"):
        ours, theirs = found["oracle", "psoups", "pp", criterion], rates["psoups", "pp", "all", criterion]
        assert {name: theirs[name] for name in ("wins", "losses", "ties", "rate", "rate_half_ties", "ci_low", "ci_high")} == {
            name: ours[name] for name in ("wins", "losses", "ties", "rate", "rate_half_ties", "ci_low", "ci_high")
        }
    # Text rules know no helpfulness and have no mean, and the unprompted soups are none of the paper's methods.
    assert {key[3] for key in found if key[0] == "rules"} == {"majority"}
    assert "psoups_unprompted" not in {key[1] for key in found}


def test_people_are_one_more_judge(copied_run, tmp_path):
    config, seed_folder, experiment = copied_run
    files = [seed_folder / "responses" / name / "responses.parquet" for name in ("vb", "rlhf", "pp", "pmorl", "psoups")]
    asked = seed_folder / "prompts" / "prompts.parquet"
    answered = {row["prompt_id"] for row in read_parquet(files[0], RESPONSES).to_pylist()}
    prompts = [row for row in read_parquet(asked, PROMPTS).to_pylist() if row["id"] in answered]
    write_parquet(asked, pa.Table.from_pylist(prompts, PROMPTS))
    export_step(config, asked, files, tmp_path / "sheet", 2)
    sheet = tmp_path / "sheet" / "ratings.csv"
    sheet.write_text(re.sub(r",$", ",1", sheet.read_text(), flags=re.M))
    import_step(tmp_path / "sheet" / "key.csv", sheet, tmp_path / "rated.parquet")
    evaluation = experiment.evaluation.model_copy(
        update={"judges": ["oracle", "people"], "ratings": str(tmp_path / "rated.parquet")}
    )
    rated = experiment.model_copy(update={"evaluation": evaluation})
    rows = all_tables(rated, seed_folder)
    assert {row["judge"]: row["n"] for row in rows["swaps"]}["people"] == 0
    assert {row["judge"] for row in rows["averages"]} == {"oracle", "people"}
    # Of one judge's 8 combinations, two prompts each.
    assert {r["wins"] + r["losses"] + r["ties"] for r in rows["matrix"] if r["judge"] == "people"} == {16}
    assert measured(rated, seed_folder).keys() >= {"prompts/prompts.parquet", "responses/vb/responses.parquet"}
    # Another training of one method: its answers are others.
    answers = read_parquet(files[2], RESPONSES).to_pylist()
    write_parquet(files[2], pa.Table.from_pylist([row | {"response": "Anew."} for row in answers], RESPONSES))
    with pytest.raises(InputError, match="rated.parquet: row .: people saw other responses of pp"):
        all_tables(rated, seed_folder)


def test_comparisons_that_are_none_are_an_error_that_names_the_file(copied_run, tmp_path):
    _, seed_folder, experiment = copied_run
    rated = [row | {"shown": "0f"} for row in compared([1], a="vb", b="vb", combination="P1A-P2A-P3A")]
    write_parquet(tmp_path / "rated.parquet", pa.Table.from_pylist(rated, RATED))
    evaluation = experiment.evaluation.model_copy(
        update={"judges": ["oracle", "people"], "ratings": str(tmp_path / "rated.parquet")}
    )
    with pytest.raises(InputError, match="rated.parquet: row 1, column method_b"):
        all_tables(experiment.model_copy(update={"evaluation": evaluation}), seed_folder)


def test_adapter_lengths_are_mean_tokens(finished_run, tables):
    _, seed_folder, _ = finished_run
    rows = read_parquet(seed_folder / "responses" / "adapters" / "responses.parquet", RESPONSES).to_pylist()
    tokens = [row["tokens"] for row in rows if (row["method"], row["combination"]) == ("adapter", "P2A")]
    (found,) = (row for row in read_table(tables, "adapters") if row["preference"] == "P2A")
    assert found["length_after"] == pytest.approx(np.mean(tokens))


def test_adapter_effects_hold_the_own_preference_and_every_other_criterion(tables):
    effects = read_table(tables, "adapter_effects")
    assert len(effects) == 8 * 9
    own = {row["preference"]: row["delta"] for row in effects if row["preference"] == row["criterion"]}
    assert own == {row["preference"]: row["delta"] for row in read_table(tables, "adapters")}


def write_reward_model(folder, rows):
    """Write pairs and scores of preference P1A from (prompt, split, chosen, rejected, probability)."""
    pairs = [
        {"id": f"{i}", "prompt": prompt, "chosen": "a", "rejected": "b", "preference": "P1A", "user": None}
        | {"probability": p, "source": "testbed", "split": split}
        for i, (prompt, split, _, _, p) in enumerate(rows)
    ]
    scored = [
        {"id": f"{i}", "split": split, "chosen": chosen, "rejected": rejected, "probability": p}
        for i, (_, split, chosen, rejected, p) in enumerate(rows)
    ]
    write_parquet(folder / "pairs" / "P1A" / "pairs.parquet", pa.Table.from_pylist(pairs))
    write_parquet(folder / "reward" / "P1A" / "scores.parquet", pa.Table.from_pylist(scored))


def of(preferences: list[str], **settings) -> Experiment:
    """Return an experiment of some preferences."""
    return parse({"experiment": "some", "preferences": preferences, "combination_preferences": preferences, **settings})


def test_reward_accuracy_counts_a_tie_half_and_the_ceiling_is_the_annotators(tmp_path):
    write_reward_model(
        tmp_path,
        [
            ("q1", "test", 2.0, 1.0, 0.9),
            ("q2", "test", 1.0, 2.0, 0.3),
            ("q3", "test", 1.0, 1.0, 0.8),
            ("q4", "train", 1.0, 0.0, 0.6),
        ],
    )
    train, test = reward_models(tmp_path, of(["P1A"]), Bootstrap(1, 100))
    assert (test["split"], test["n"], test["accuracy"]) == ("test", 3, 0.5)
    assert test["ceiling"] == pytest.approx((0.9 + 0.7 + 0.8) / 3)
    assert (train["split"], train["accuracy"], train["ceiling"]) == ("train", 1.0, 0.6)


def test_ceiling_is_null_where_a_probability_is_unknown(tmp_path):
    write_reward_model(tmp_path, [("q1", "test", 2.0, 1.0, 0.9), ("q2", "test", 1.0, 2.0, None)])
    assert reward_models(tmp_path, of(["P1A"]), Bootstrap(1, 100))[0]["ceiling"] is None


def test_pairs_of_one_prompt_are_drawn_together(tmp_path):
    right = [1, 0, 1, 1, 0, 1]
    once = [(f"q{i}", "test", float(r), 0.5, 0.9) for i, r in enumerate(right)]
    write_reward_model(tmp_path / "once", once)
    write_reward_model(tmp_path / "copied", once * 4)
    one, copied = (reward_models(tmp_path / name, of(["P1A"]), Bootstrap(1, 300))[0] for name in ("once", "copied"))
    assert (copied["n"], one["n"]) == (24, 6)
    assert (copied["ci_low"], copied["ci_high"]) == (one["ci_low"], one["ci_high"])


def test_a_scored_pair_that_is_unknown_is_named(copied_run):
    _, seed_folder, _ = copied_run
    shutil.copy(pairs_file(seed_folder, "P1B"), pairs_file(seed_folder, "P1A"))
    with pytest.raises(InputError, match="P1A/scores.parquet: pair P1A-0 is not among the annotated ones"):
        reward_models(seed_folder, of(["P1A"]), Bootstrap(1, 10))


def test_curves_hold_the_last_value_of_each_step(tmp_path):
    path = tmp_path / "ppo" / "P1A" / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    logged = ((0, 1.0), (1, 2.0), (1, 3.0), (2, "nan"))
    lines = [json.dumps({"step": step, "time": 0, "metrics": {"kl": value}}) for step, value in logged]
    path.write_text("\n".join(lines) + '\n{"step": 3, "ti')
    rows = curves(tmp_path, of(["P1A"]))
    assert [(row["preference"], row["kind"], row["step"], row["metric"]) for row in rows] == [
        ("P1A", "ppo", s, "kl") for s in range(3)
    ]
    assert [row["value"] for row in rows] == pytest.approx([1, 3, np.nan], nan_ok=True)
    assert kept_kl(rows[:2], PPO()) == {"P1A": 3.0}


@pytest.mark.parametrize(
    ("scores", "kept"),
    [([0.5, 0.2, 0.9], 0.0), ([0.5, 0.6, 0.9], 2.0), ([0.1, 0.5, 0.5], 2.0)],
    ids=["untrained", "one within the budget", "not beyond it"],
)
def test_the_kl_of_a_chosen_policy_is_its_own(scores, kept):
    names = ["start", "selection", "selection"]
    rows = [
        {"preference": "P1A", "kind": "ppo", "step": step, "metric": f"{name}_{what}", "value": value}
        for name, step, kl, score in zip(names, [0, 0, 1], [0.0, 2.0, 9.0], scores, strict=True)
        for what, value in (("kl", kl), ("score", score))
    ]
    last = {"preference": "P1A", "kind": "ppo", "step": 1, "metric": "kl", "value": 8.0}
    settings = PPO(keep="best", keep_by="gold", max_kl=8.0)
    assert kept_kl([*rows, last], settings) == {"P1A": kept}
    assert kept_kl([last], settings) == {}


def test_merge_score_stands_at_the_rule_that_was_used(finished_run, tables):
    _, seed_folder, experiment = finished_run
    means = {
        r["combination"]: r["mean"] for r in read_table(tables, "methods") if (r["method"], r["criterion"]) == ("psoups", "mean")
    }
    for row in read_table(tables, "merges"):
        assert row["score"] == (means[row["combination"]] if row["rule"] == "delta" else None)
    by_method = read_table(tables, "methods")
    truncated = experiment.model_copy(update={"soup": experiment.soup.model_copy(update={"svd_rank": 16})})
    assert {row["score"] for row in merges(seed_folder, truncated, by_method)} == {None}
    # The release's mistakes merge by the factors, whatever the setting says.
    for mistake in ("factor_merge", "other_starts"):
        for row in merges(seed_folder, experiment.making(mistake), by_method):
            assert row["score"] == (means[row["combination"]] if row["rule"] == "factor" else None)


def test_further_ways_to_merge_have_rows_of_their_own_and_the_scores_of_their_methods(copied_run):
    _, seed_folder, experiment = copied_run
    ways = Soup(compared={"factor": Merging(rule="factor"), "thin": Merging(rule="ties")})
    experiment = experiment.model_copy(update={"soup": ways})
    own = read_parquet(seed_folder / "soups" / "merges.parquet", MERGES).to_pylist()
    for name, rule in (("factor", "factor"), ("thin", "ties")):
        made = [row | {"rule": rule} for row in own if row["rule"] == "factor"]
        write_parquet(seed_folder / "soups" / name / "merges.parquet", pa.Table.from_pylist(own[:1] + made, MERGES))
    known = {"psoups": 0.5, "psoups_factor": 0.4, "psoups_thin": 0.7}
    combinations = sorted({row["combination"] for row in own})
    means = [
        {"method": method, "combination": combination, "criterion": "mean", "mean": value}
        for method, value in known.items()
        for combination in combinations
    ]
    found = merges(seed_folder, experiment, means)
    assert [row["combination"] for row in found] == sorted(row["combination"] for row in found)
    scores = {(row["combination"], row["rule"]): row["score"] for row in found}
    assert len(scores) == len(found)
    for combination in combinations:
        assert (scores[combination, "delta"], scores[combination, "factor"], scores[combination, "thin"]) == (0.5, 0.4, 0.7)


def test_timings_name_steps_by_their_path_leave_unmeasured_memory_null_and_those_about_users_out(tables):
    assert read_table(tables, "timings") == [
        {"step": "ppo/P1A", "seconds": 61.5, "peak_mb": 812.25},
        {"step": "prompts", "seconds": 0.41, "peak_mb": None},
    ]


def test_a_benchmark_file_of_other_columns_is_refused(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "x.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(InputError, match="x.tsv: columns s and max_rss"):
        timings(tmp_path)


def test_policies_that_once_trained_in_other_company_have_no_time(tmp_path):
    (tmp_path / "benchmarks" / "ppo").mkdir(parents=True)
    for name in ("P1A", "P1A+P1B", "P2A", "pmorl"):
        (tmp_path / "benchmarks" / "ppo" / f"{name}.tsv").write_text("s\tmax_rss\n1.0\t2.0\n")
    assert [row["step"] for row in timings(tmp_path, [["P1A", "P1B"], ["P2A"]])] == ["ppo/P1A+P1B", "ppo/P2A", "ppo/pmorl"]
    assert [row["step"] for row in timings(tmp_path, [["P1A"], ["P1B"], ["P2A"]])] == ["ppo/P1A", "ppo/P2A", "ppo/pmorl"]


def test_data_counts_the_raw_sources_and_the_pairs_made_in_the_run(copied_run):
    _, seed_folder, _ = copied_run
    made = data(seed_folder, of(list(PREFERENCES)))
    assert [(row["source"], row["preference"]) for row in made] == [("testbed", p) for p in PREFERENCES]
    assert {(row["read"], row["train"], row["test"], row["dropped"], row["reason"]) for row in made} == {(40, 20, 20, 0, "all")}
    raw = {"source": "hh", "preference": None, "read": 9, "kept": 7, "train": 7, "validation": 0, "test": 0, "dropped": 2}
    counted = [raw | {"reason": "all"}, raw | {"reason": "empty", "read": None}]
    write_parquet(seed_folder / "data" / "data.parquet", pa.Table.from_pylist(counted, SCHEMAS["data"]))
    assert data(seed_folder, of(list(PREFERENCES))) == counted + made


def test_general_pairs_count_where_a_run_has_them_and_forgotten_preferences_do_not(copied_run):
    _, seed_folder, _ = copied_run
    for name in ("pairs", "reward"):
        (seed_folder / name / "P1B").rename(seed_folder / name / "general")
    found = reward_models(seed_folder, of(["P1A", "P2A"]), Bootstrap(1, 10))
    assert list(dict.fromkeys(row["preference"] for row in found)) == ["P1A", "P2A", "general"]


def test_general_pairs_count_without_a_general_reward_model(copied_run):
    _, seed_folder, _ = copied_run
    (seed_folder / "pairs" / "P1B").rename(seed_folder / "pairs" / "general")
    assert {row["preference"] for row in data(seed_folder, of(["P1A", "P2A"]))} == {"P1A", "P2A", "general"}
    assert {row["preference"] for row in reward_models(seed_folder, of(["P1A", "P2A"]), Bootstrap(1, 10))} == {"P1A", "P2A"}


def test_models_of_a_method_or_judge_that_was_dropped_are_passed_over(copied_run):
    _, seed_folder, _ = copied_run
    for kind in ("pairs", "reward", "ppo"):
        for name in ("general", "gold"):
            shutil.copytree(seed_folder / kind / "P1B", seed_folder / kind / name)
    needed = {"user_evaluation": {"methods": []}, "evaluation": {"methods": ["vb", "psoups"], "judges": ["oracle"]}}
    experiment = of(["P1A", "P2A"], **needed)
    for kind in ("pairs", "reward", "ppo"):
        assert spoken_for(seed_folder, kind, experiment) == ["P1A", "P2A"]
    # The judge learns from general pairs, where raw ones do not take their place.
    judged = of(["P1A", "P2A"], **needed | {"evaluation": needed["evaluation"] | {"judges": ["oracle", "gold"]}})
    assert spoken_for(seed_folder, "pairs", judged) == ["P1A", "P2A", "general"]
    assert spoken_for(seed_folder, "reward", judged) == ["P1A", "P2A", "gold"]
    assert spoken_for(seed_folder, "ppo", judged) == ["P1A", "P2A"]


def test_a_run_that_was_not_judged_is_refused_and_nothing_is_written(copied_run, tmp_path):
    config, seed_folder, _ = copied_run
    (seed_folder / ORACLE).unlink()
    with pytest.raises(InputError, match="judge/oracle/scores.parquet does not exist"):
        tables_step(config, seed_folder, tmp_path / "tables")
    assert not list((tmp_path / "tables").glob("*.parquet"))


def test_numbers_are_rounded_to_four_places_without_a_negative_zero():
    assert [formatted(v) for v in (0.123456, -0.00001, 3, None, "x", 1.0)] == ["0.1235", "0.0000", "3", "", "x", "1.0000"]


@pytest.mark.parametrize("text", ["=1+1", "'=1", "''=1", "'", "-3", "'plain'", "", "@x", "a=1"])
def test_no_text_starts_a_formula_and_all_are_read_back(text):
    assert not as_text(text).startswith(FORMULA) and from_text(as_text(text)) == text


def test_markdown_aligns_numbers_and_escapes_bars():
    table = pa.table({"name": ["a|b", "c"], "value": [1.5, None]})
    assert as_markdown(table, "Caption.").splitlines() == [
        "Caption.",
        "",
        "| name |  value |",
        "| ---- | -----: |",
        "| a\\|b | 1.5000 |",
        "| c    |        |",
    ]
    assert as_csv(table) == "name,value\na|b,1.5000\nc,\n"

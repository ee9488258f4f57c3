"""Claims about what is compared, and about the table of verdicts."""

from collections import Counter
from itertools import combinations

import pyarrow as pa
import pytest
import yaml

from rlphf.errors import InputError
from rlphf.evaluate.judges.comparisons import COMPARISONS, check_comparisons, questions, row, spread, table_of
from rlphf.evaluate.judges.inputs import read_inputs

ABOUT = {"prompt_id": "q", "combination": "P1A-P2B-P3A", "sample": 0, "method_a": "pp", "method_b": "vb"}
ABOUT |= {"criterion": "P2B", "first": "b"}


def asked(inputs):
    return questions(inputs.experiment, *read_inputs(inputs.prompts, inputs.responses))


def test_all_pairs_of_the_papers_methods_are_compared_by_all_criteria_in_both_orders(inputs):
    found = asked(inputs)
    # mod is evaluated and none of the paper's; psoups, vb and pp stay, in the order of the configuration.
    assert {(q.method_a, q.method_b) for q in found} == set(combinations(("psoups", "vb", "pp"), 2))
    by_combination = {c: {q.criterion for q in found if q.combination == c} for c in {q.combination for q in found}}
    assert by_combination == {c: {*c.split("-"), "helpfulness"} for c in ("P1A-P2A-P3A", "P1A-P2B-P3A")}
    assert len(found) == 3 * 2 * 4 * 2 * 2
    assert Counter(q.first for q in found) == {"a": 48, "b": 48}
    assert len({tuple(q.columns.values()) for q in found}) == len(found)
    assert found == asked(inputs)


def test_prompts_are_evenly_spread_over_those_of_the_split(inputs):
    assert {q.prompt_id for q in asked(inputs)} == {"q0", "q2"}
    inputs.set(prompts=None)
    assert {q.prompt_id for q in asked(inputs)} == {"q0", "q1", "q2", "q3"}
    assert spread([str(i) for i in range(10)], 3) == ["0", "3", "6"]
    assert spread(["b", "a"], 5) == ["a", "b"]


def test_a_question_shows_the_first_samples_of_its_two_methods_in_its_order(inputs):
    for q in asked(inputs):
        own = q.combination if q.method_a != "vb" else ""
        assert q.response_a.startswith(f"{q.method_a} {own} {q.prompt_id} 0")
        assert q.prompt == f"What is number {q.prompt_id[1]}?"
        assert q.shown == ((q.response_a, q.response_b) if q.first == "a" else (q.response_b, q.response_a))


def test_a_method_without_combinations_is_compared_for_every_combination(inputs):
    found = [q for q in asked(inputs) if q.method_a == "vb" and q.criterion == "P1A" and q.prompt_id == "q0" and q.first == "a"]
    assert [q.combination for q in found] == ["P1A-P2A-P3A", "P1A-P2B-P3A"]
    assert len({q.response_a for q in found}) == 1 and len({q.response_b for q in found}) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[2:], r"method pp, combination P1A-P2A-P3A: none to prompt q0 \(1 are missing\)"),
        (lambda rows: [r for r in rows if "P2B" not in r["combination"]], "method pp, combination P1A-P2B-P3A: there are none"),
        (lambda rows: [], "method pp, combination P1A-P2A-P3A: there are none"),
        (lambda rows: [*rows, {**rows[0], "prompt_id": "q9"}], "method pp, combination P1A-P2A-P3A: answers prompt q9"),
        (lambda rows: [*rows, rows[0]], r"responses.parquet: prompt_id, method, combination, sample: 'q0, pp, .* occurs 2 times"),
    ],
)
def test_a_hole_in_the_responses_is_named(inputs, change, message):
    inputs.change("pp", change)
    with pytest.raises(InputError, match=message):
        asked(inputs)


def test_a_file_that_is_named_twice_is_refused(inputs, tmp_path):
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(inputs.responses[0].read_bytes())
    inputs.responses.append(copy)
    with pytest.raises(InputError, match="copy.parquet: method psoups, combination P1A-P2A-P3A, prompt q0: occurs twice"):
        asked(inputs)


def test_one_method_alone_cannot_be_compared(inputs):
    settings = yaml.safe_load(inputs.config.read_text())
    settings["evaluation"]["methods"] = ["psoups", "mod"]
    inputs.config.write_text(yaml.safe_dump(settings))
    with pytest.raises(InputError, match="evaluation.methods: name two or more of vb, rlhf, pp"):
        asked(inputs)


@pytest.mark.parametrize(("first", "shown", "verdict"), [("a", 1, 1), ("a", -1, -1), ("b", 1, -1), ("b", -1, 1), ("b", 0, 0)])
def test_a_verdict_speaks_of_method_a_whoever_was_shown_first(first, shown, verdict):
    assert row({**ABOUT, "first": first}, shown) == {**ABOUT, "first": first, "verdict": verdict, "malformed": False}


def test_no_verdict_is_a_malformed_tie():
    made = table_of([row(ABOUT, None)])
    assert made.to_pylist() == [{**ABOUT, "verdict": 0, "malformed": True}]
    check_comparisons(made, "x")


def table(*changes):
    rows = [row({**ABOUT, "prompt_id": f"q{i}"}, 1) | change for i, change in enumerate(changes)]
    return pa.Table.from_pylist(rows, COMPARISONS)


def test_a_good_table_passes():
    check_comparisons(table({}, {"prompt_id": "q0", "first": "a"}, {"prompt_id": "q0", "criterion": "helpfulness"}), "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": 2}, "row 2, column verdict: 2 is none of"),
        ({"first": "c"}, "row 2, column first: 'c' is neither"),
        ({"criterion": "P2A"}, "row 2, column criterion: 'P2A' is no criterion of P1A-P2B-P3A"),
        ({"method_b": "pp"}, "row 2, column method_b: is method_a"),
        ({"method_a": ""}, "row 2, column method_a: is empty"),
        ({"sample": -1}, "row 2, column sample: is negative"),
        ({"malformed": True}, "row 2, column malformed: has a verdict"),
        ({"combination": "P9"}, "preference 'P9' is unknown"),
        ({"prompt_id": "q0"}, "row 2: q0, P1A-P2B-P3A, 0, pp, vb, P2B, vb first, occurs twice"),
        ({"prompt_id": "q0", "method_a": "vb", "method_b": "pp", "first": "a"}, "row 2: .* vb first, occurs twice"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named(change, message):
    with pytest.raises(InputError, match=message):
        check_comparisons(table({}, change), "some.parquet")


def test_columns_have_to_be_those_of_the_schema():
    with pytest.raises(InputError, match="some.parquet: columns are .*; expected prompt_id"):
        check_comparisons(table({}).drop(["first"]), "some.parquet")
    wide = table({}).set_column(7, "verdict", pa.array([1], pa.int64()))
    with pytest.raises(InputError, match="some.parquet: column verdict: is int64, expected int8"):
        check_comparisons(wide, "some.parquet")

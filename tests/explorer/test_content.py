"""Claims about what the explorer's page is given: all answers with their own scores, each text once."""

import shutil

import pyarrow as pa
import pytest
from tests.explorer.conftest import HOSTILE, INFERRED, PEOPLE, SERVING

from rlphf.config import parse
from rlphf.data.records import PROMPTS, RESPONSES
from rlphf.derived import combinations_of
from rlphf.errors import InputError
from rlphf.evaluate.judges.oracle import oracle_scores
from rlphf.evaluate.scores import read_scores
from rlphf.explorer.charts import curves
from rlphf.explorer.content import content, judged, prompts_of
from rlphf.files import read_parquet, write_parquet
from rlphf.preferences import declare
from rlphf.users.records import ANSWERS, USER_SCORES


@pytest.fixture(scope="module")
def shown(explored):
    seed_folder, experiment = explored
    return content(experiment, seed_folder)


def rows_of(shown, cell):
    """Yield (prompt id, sample, text, tokens, finished, {criterion: score}) of a cell."""
    keys = [(prompt, sample) for prompt in cell["prompts"] for sample in range(cell["samples"])]
    for i, (prompt, sample) in enumerate(keys):
        scores = {name: values[i] for name, values in cell["scores"].items()}
        finished = i not in cell["cut"]
        yield shown["prompts"][prompt]["id"], sample, shown["texts"][cell["texts"][i]], cell["tokens"][i], finished, scores


@pytest.mark.parametrize("method", ["vb", "psoups", "front"])
def test_every_answer_is_there_with_its_length_and_end(explored, shown, method):
    table = read_parquet(explored[0] / "responses" / method / "responses.parquet", RESPONSES).to_pylist()
    stored = {(r["combination"], r["prompt_id"], r["sample"]): (r["response"], r["tokens"], r["finished"]) for r in table}
    found = {
        (cell["combination"], prompt, sample): rest
        for cell in shown["cells"]
        if cell["method"] == method
        for prompt, sample, *rest, _ in rows_of(shown, cell)
    }
    assert {key: tuple(value) for key, value in found.items()} == stored


def test_every_answer_has_the_scores_that_the_oracle_gives_it(explored, shown):
    prompts = read_parquet(explored[0] / "prompts" / "prompts.parquet", PROMPTS)
    for method in ("psoups", "front"):
        responses = read_parquet(explored[0] / "responses" / method / "responses.parquet", RESPONSES)
        stored = {
            (r["combination"], r["prompt_id"], r["sample"], r["criterion"]): r["score"]
            for r in oracle_scores(prompts, responses).to_pylist()
        }
        found = {
            (cell["combination"], prompt, sample, criterion): score
            for cell in shown["cells"]
            if cell["method"] == method
            for prompt, sample, _, _, _, scores in rows_of(shown, cell)
            for criterion, score in scores.items()
        }
        assert found.keys() == stored.keys() and found == pytest.approx(stored, abs=5e-4)


def test_each_text_and_prompt_is_kept_once(shown):
    assert len(set(shown["texts"])) == len(shown["texts"]) and HOSTILE in shown["texts"]
    ids = [prompt["id"] for prompt in shown["prompts"]]
    assert len(set(ids)) == len(ids)


def test_users_have_their_weights_and_their_answers_scores(explored, shown):
    assert [(user["id"], user["group"], user["weights"]) for user in shown["users"]] == [
        (1, "majority", {"P1A": 0.6, "P3A": 0.4}),
        (2, "unseen", {"P1B": 1.0}),
    ]
    folder = explored[0] / "users"
    scores = {
        (r["method"], r["user"], r["prompt_id"]): r for r in read_parquet(folder / "judge/oracle/scores.parquet").to_pylist()
    }
    assert {(cell["method"], cell["user"]) for cell in shown["user_cells"]} == {(m, u["id"]) for m in SERVING for u in PEOPLE}
    for cell in shown["user_cells"]:
        for prompt, _, _, _, _, found in rows_of(shown, cell):
            row = scores[cell["method"], cell["user"], prompt]
            assert found == pytest.approx({"score": row["score"], "helpfulness": row["helpfulness"]}, abs=5e-4)


def test_users_alone_are_shown_without_combinations(shown, explored, copied):
    for name in ("responses", "judge"):
        shutil.rmtree(copied / name)
    alone = content(explored[1], copied, users_alone=True)
    same = ("users", "user_methods", "preferences")
    assert {name: alone[name] for name in same} == {name: shown[name] for name in same}
    assert alone["cells"] == alone["methods"] == [] and alone["judge"] is None and alone["user_judge"] == "oracle"
    assert {row["kind"] for row in alone["recipes"]} == {"user"}
    assert [said(alone, cell) for cell in alone["user_cells"]] == [said(shown, cell) for cell in shown["user_cells"]]


def said(shown, cell):
    """A user's cell with its texts in place of their numbers."""
    return cell["user"], cell["method"], list(rows_of(shown, cell))


def test_of_users_whose_taste_nobody_knows_no_judge_is_named(explored, copied):
    shutil.rmtree(copied / "users" / "judge")
    shown = content(explored[1], copied, users_alone=True)
    assert shown["user_judge"] is None and all(cell["scores"] == {} for cell in shown["user_cells"])


def test_users_without_answers_are_no_page(explored, copied):
    silent = explored[1].model_copy(update={"user_evaluation": explored[1].user_evaluation.model_copy(update={"methods": []})})
    with pytest.raises(InputError, match="no user was answered"):
        content(silent, copied, users_alone=True)


def test_recipes_are_those_of_combinations_of_the_front_and_of_users(explored, shown):
    recipes = shown["recipes"]
    assert [row["name"] for row in recipes if row["kind"] == "combination"] == combinations_of(explored[1])
    assert [row["weights"] for row in recipes if row["kind"] == "front"] == [
        {"P2A": 1.0, "P2B": 0.0},
        {"P2A": 0.5, "P2B": 0.5},
        {"P2A": 0.0, "P2B": 1.0},
    ]
    own = [row for row in recipes if row["kind"] == "user"]
    assert [row["name"] for row in own] == ["1", "2"] and all(row["weights"] == INFERRED for row in own)
    assert all(shown["user_cells"][row["cell"]]["method"] == "psoups_inferred" for row in own)


def test_a_preference_of_ones_own_is_one_of_its_axis(explored):
    seed_folder, experiment = explored
    poetic = {"axis": "style", "name": "poetic", "prompt": "Answer as a poet would.", "rule": {"words": ["lovely"]}}
    raw = experiment.model_dump(mode="json") | {"own_preferences": {"P3E": poetic}}
    for key in ("preferences", "combination_preferences"):
        raw[key] = [*raw[key], "P3E"]
    try:
        shown = content(parse(raw), seed_folder)
        rows = [{"kind": "ppo", "preference": "P3E", "metric": "kl", "step": step, "value": 0.1} for step in range(2)]
        (chart,) = curves(rows)
    finally:
        declare({})
    assert shown["axes"][2]["preferences"] == ["P3A", "P3B", "P3E"]
    assert shown["preferences"]["P3E"] == {"axis": "style", "label": "poetic", "prompt": "Answer as a poet would."}
    assert chart["group"] == "style"


def test_switches_are_the_axes_of_the_combinations(shown):
    assert [row["preferences"] for row in shown["axes"]] == [["P1A", "P1B"], ["P2A", "P2B"], ["P3A", "P3B"]]


def test_a_judge_that_did_not_see_a_method_gives_it_no_scores(explored):
    scores = read_scores(explored[0] / "judge" / "rules" / "scores.parquet")
    assert judged(scores, "front", "0.500") == {} and judged(scores, "vb", "")


@pytest.fixture
def copied(explored, tmp_path):
    """A copy of the run that may be spoiled."""
    shutil.copytree(explored[0], tmp_path / "seed-7")
    return tmp_path / "seed-7"


def spoiled(path, change, schema=RESPONSES):
    write_parquet(path, pa.Table.from_pylist(change(read_parquet(path, schema).to_pylist()), schema))


def without_one_of_two_samples(rows):
    return [*rows, *({**row, "sample": 1} for row in rows[1:])]


def of_another_prompt(rows):
    return [rows[0] | {"prompt_id": "strange"}, *rows[1:]]


def of_another_user(rows):
    return [rows[0] | {"user": 99}, *rows[1:]]


@pytest.mark.parametrize(
    ("name", "change", "schema", "said"),
    [
        ("responses/vb/responses.parquet", without_one_of_two_samples, RESPONSES, "has no sample 1; generate"),
        ("responses/vb/responses.parquet", of_another_prompt, RESPONSES, "prompt_id 'strange' is not among the prompts"),
        ("users/answers/sft/answers.parquet", of_another_user, ANSWERS, "user 99 is not among the users"),
        ("users/judge/oracle/scores.parquet", lambda rows: rows[1:], USER_SCORES, "has no score by score; judge it again"),
    ],
)
def test_what_does_not_fit_together_is_refused_where_it_is(explored, copied, name, change, schema, said):
    spoiled(copied / name, change, schema)
    with pytest.raises(InputError, match=said):
        content(explored[1], copied)


def test_a_run_without_users_shows_none(explored, copied):
    shutil.rmtree(copied / "users")
    alone = explored[1].model_copy(update={"user_evaluation": explored[1].user_evaluation.model_copy(update={"methods": []})})
    shown = content(alone, copied)
    assert shown["users"] == shown["user_cells"] == shown["user_methods"] == []
    assert {row["kind"] for row in shown["recipes"]} == {"combination", "front"}


def test_a_page_reads_the_prompts_that_were_asked_and_none_that_an_earlier_configuration_left(explored):
    seed_folder, experiment = explored
    assert (seed_folder / "prompts" / "prompts.parquet").exists()
    assert list(prompts_of(experiment, seed_folder)) == list(prompts_of(experiment, seed_folder, True)) == ["prompts"]
    raw = experiment.model_copy(update={"user_data": experiment.user_data.model_copy(update={"source": "persona"})})
    assert list(prompts_of(raw, seed_folder)) == ["prompts", "user_prompts"]
    assert list(prompts_of(raw, seed_folder, True)) == ["user_prompts"]

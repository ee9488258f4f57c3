"""Claims about the language model as judge: what is asked, what is counted, what is kept."""

import json
import re
import time

import pytest

from rlphf.cli import main
from rlphf.errors import InputError
from rlphf.evaluate.judges import llm
from rlphf.evaluate.judges.comparisons import COMPARISONS, check_comparisons
from rlphf.evaluate.judges.llm import llm_step
from rlphf.files import read_json, read_parquet
from rlphf.tracking.record import read_metrics

SECRET = "sk-very-secret-0123456789"
# 3 pairs, 2 combinations, 4 criteria, 1 prompt, 2 orders: no two of them show the same texts.
ROWS = 48


@pytest.fixture
def judge(inputs, tmp_path):
    """Run the step with changed settings into a folder; return its rows."""

    def run(url, folder="llm", **settings):
        inputs.set(base_url=url, **({"prompts": 1} | settings))
        llm_step(inputs.config, inputs.prompts, inputs.responses, tmp_path / folder / "llm.parquet")
        table = read_parquet(tmp_path / folder / "llm.parquet", COMPARISONS)
        check_comparisons(table, folder)
        return table.to_pylist()

    return run


def metrics(folder):
    """Return the last value of each metric of a step."""
    return {name: value for line in read_metrics(folder / "metrics.jsonl") for name, value in line["metrics"].items()}


def shown(text):
    """Return the two responses in a comparison."""
    return re.search(r"<response_a>\n(.*?)\n</response_a>.*<response_b>\n(.*?)\n</response_b>", text, re.DOTALL).groups()


def longer(texts, before):
    first, second = shown(texts[0])
    return f"Verdict: {'A' if len(first) > len(second) else 'B'}"


def test_a_judge_that_always_prefers_the_first_contradicts_itself_on_every_pair(serve, judge):
    rows = judge(serve(lambda texts, before: "Verdict: A").url)
    assert len(rows) == ROWS
    assert all(row["verdict"] == (1 if row["first"] == "a" else -1) for row in rows)
    assert not any(row["malformed"] for row in rows)


def test_a_judge_that_looks_at_the_responses_says_the_same_in_both_orders(serve, judge):
    rows = judge(serve(longer).url)
    # The answers of pp are longer than those of vb, and these than those of psoups.
    expected = {("psoups", "vb"): -1, ("psoups", "pp"): -1, ("vb", "pp"): -1}
    assert all(row["verdict"] == expected[row["method_a"], row["method_b"]] for row in rows)
    assert len(rows) == ROWS


def test_a_request_shows_the_question_and_one_criterion(serve, judge):
    server = serve(longer)
    judge(server.url)
    assert len(server.requests) == ROWS
    for request in server.requests:
        (message,) = request["messages"]
        first, second = shown(message["content"])
        prompt_id = re.search("q[0-9]", first)[0]
        assert f"What is number {prompt_id[1]}?" in message["content"] and f" {prompt_id} 0" in second


def test_a_malformed_reply_is_asked_again_in_the_right_form(serve, judge, tmp_path):
    server = serve(lambda texts, before: "Hm." if before == 0 else "Verdict: TIE")
    rows = judge(server.url)
    assert {(row["verdict"], row["malformed"]) for row in rows} == {(0, False)}
    again = [request["messages"] for request in server.requests if len(request["messages"]) > 1]
    assert len(server.requests) == 2 * ROWS and len(again) == ROWS
    assert {tuple(m["role"] for m in sent) for sent in again} == {("user", "assistant", "user")}
    assert metrics(tmp_path / "llm")["replies_asked"] == 2 * ROWS and metrics(tmp_path / "llm")["malformed"] == 0


def test_a_judge_without_verdicts_stops_the_step_and_is_counted_where_it_may_be_so(serve, judge, tmp_path):
    server = serve(lambda texts, before: f"I cannot say, {before}.")
    with pytest.raises(InputError, match=f"{ROWS} of {ROWS} comparisons have no verdict after 3 attempts; .*max_malformed"):
        judge(server.url)
    assert len(server.requests) == 3 * ROWS
    assert not (tmp_path / "llm" / "llm.parquet").exists()
    rows = judge(server.url, max_malformed=1.0)
    assert {(row["verdict"], row["malformed"]) for row in rows} == {(0, True)} and len(rows) == ROWS
    assert len(server.requests) == 3 * ROWS
    assert metrics(tmp_path / "llm")["malformed"] == ROWS


def test_as_many_malformed_as_allowed_are_allowed_and_one_more_is_not(serve, judge):
    def reply(texts, before):
        return "Hm." if shown(texts[0])[0] == "psoups P1A-P2A-P3A q0 0" and "elementary" in texts[0] else "Verdict: A"

    server = serve(reply)
    # It is shown first once with each of the two other methods.
    rows = judge(server.url, attempts=1, max_malformed=2 / ROWS)
    assert [row["verdict"] for row in rows if row["malformed"]] == [0, 0]
    with pytest.raises(InputError, match=f"2 of {ROWS} comparisons have no verdict after 1 attempts"):
        judge(server.url, folder="second", attempts=1, max_malformed=1.9 / ROWS)


def test_a_second_run_asks_nothing_and_gives_the_same_bytes(serve, judge, tmp_path):
    server = serve(longer)
    judge(server.url, parallel=8)
    assert metrics(tmp_path / "llm")["tokens_in"] == 100 * ROWS and metrics(tmp_path / "llm")["tokens_out"] == 10 * ROWS
    judge(server.url, folder="second", price_in=1.0)
    found = metrics(tmp_path / "second")
    assert (found["replies_asked"], found["replies_from_cache"], found["cost"]) == (0, ROWS, 0)
    assert len(server.requests) == ROWS
    assert (tmp_path / "second" / "llm.parquet").read_bytes() == (tmp_path / "llm" / "llm.parquet").read_bytes()


def test_results_do_not_depend_on_which_reply_is_first(serve, judge, inputs, tmp_path):
    server = serve(longer)
    judge(server.url, parallel=1, cache=str(tmp_path / "one"))
    inputs.responses.reverse()
    judge(server.url, folder="second", parallel=8, cache=str(tmp_path / "eight"))
    assert len(server.requests) == 2 * ROWS
    assert (tmp_path / "second" / "llm.parquet").read_bytes() == (tmp_path / "llm" / "llm.parquet").read_bytes()
    names = [sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in ("one", "eight")]
    assert names[0] == names[1] and len(names[0]) == ROWS


def test_equal_comparisons_are_asked_once(serve, judge, inputs):
    same = {"P2A": "", "P2B": ""}
    for method in ("pp", "psoups"):
        inputs.change(
            method, lambda rows: [r | {"response": re.sub("P2[AB]", lambda m: same[m[0]], r["response"])} for r in rows]
        )
    server = serve(longer)
    assert len(judge(server.url)) == ROWS
    # P1A, P3A and helpfulness are the same questions in both combinations; P2A and P2B are each in one of them.
    assert len(server.requests) == ROWS // 2 // 4 * 3 + ROWS // 4


def test_a_replay_uses_no_network_and_names_what_is_missing(serve, judge, tmp_path):
    server = serve(longer)
    judge(server.url)
    server.close()
    with pytest.raises(InputError, match=f"{tmp_path}/kept: replies to {ROWS} of {2 * ROWS} comparisons are missing; .*replay"):
        judge("https://judge.invalid/v1", folder="second", prompts=2, replay=True)
    judge("https://judge.invalid/v1", folder="third", replay=True)
    assert (tmp_path / "third" / "llm.parquet").read_bytes() == (tmp_path / "llm" / "llm.parquet").read_bytes()


def test_a_limit_of_cost_stops_the_step_which_then_goes_on(serve, judge, tmp_path):
    server = serve(longer)
    # Each reply costs 100 x 2 + 10 x 5 millionths: the fourth reaches the limit.
    prices = {"price_in": 2.0, "price_out": 5.0, "parallel": 1}
    message = f"evaluation.llm.max_cost: 0.001 is reached after 4 of {ROWS} comparisons; the replies so far are kept"
    with pytest.raises(InputError, match=message):
        judge(server.url, max_cost=0.001, **prices)
    assert metrics(tmp_path / "llm")["cost"] == pytest.approx(0.001)
    assert not (tmp_path / "llm" / "llm.parquet").exists()
    with pytest.raises(InputError, match=f"reached after 8 of {ROWS} comparisons"):
        judge(server.url, max_cost=0.001, **prices)
    judge(server.url, max_cost=1.0, **prices)
    assert len(server.requests) == ROWS


def test_a_limit_of_time_stops_the_step(serve, judge):
    def slow(texts, before):
        time.sleep(0.2)
        return "Verdict: A"

    server = serve(slow)
    with pytest.raises(InputError, match=f"evaluation.llm.max_seconds: 0.5 is reached after [1-3] of {ROWS} comparisons"):
        judge(server.url, max_seconds=0.5, parallel=1)
    assert 1 <= len(server.requests) <= 3


def test_replies_before_an_error_are_kept(serve, judge, tmp_path):
    left = iter(range(5))
    server = serve(lambda texts, before: 404 if next(left, None) is None else "Verdict: A")
    with pytest.raises(InputError, match="status 404"):
        judge(server.url, parallel=1)
    # The queue behind the error is not asked any more.
    assert len(list((tmp_path / "kept").iterdir())) == 5 and len(server.requests) <= 7


def test_retries_are_counted(serve, judge, tmp_path):
    judge(serve(lambda texts, before: 503 if before == 0 else "Verdict: A").url)
    assert metrics(tmp_path / "llm")["retried"] == ROWS and metrics(tmp_path / "llm")["replies_asked"] == ROWS


def test_progress_is_logged_while_the_step_runs(serve, judge, tmp_path, monkeypatch):
    monkeypatch.setattr(llm, "LOG_EVERY", 20)
    judge(serve().url)
    lines = read_metrics(tmp_path / "llm" / "metrics.jsonl")
    assert [line["step"] for line in lines if "replies_asked" in line["metrics"]] == [20, 40, ROWS]


@pytest.mark.parametrize("reply", [401, f"Verdict: A\n{SECRET}"])
def test_the_key_reaches_no_file_and_no_message(serve, inputs, tmp_path, capfd, monkeypatch, reply):
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    server = serve(lambda texts, before: reply)
    inputs.set(base_url=server.url, key_variable="JUDGE_KEY", prompts=1)
    files = [str(path) for path in inputs.responses]
    command = ["judge", "llm", "--config", str(inputs.config), "--prompts", str(inputs.prompts), "--responses", *files]
    status = main([*command, "--out", str(tmp_path / "llm" / "llm.parquet")])
    out, err = capfd.readouterr()
    assert f"Bearer {SECRET}" in server.keys
    if reply == 401:
        assert status == 2 and out == "" and err.count("\n") == 1
        assert err.startswith(f"rlphf: error: judge at {server.url}: status 401: ")
        assert read_json(tmp_path / "llm" / "record.json")["status"] == "failed"
    else:
        assert status == 0 and len(list((tmp_path / "kept").iterdir())) == ROWS
    assert SECRET not in out + err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_the_record_names_judge_and_settings(serve, judge, tmp_path):
    judge(serve().url, model="some-model")
    record = json.loads((tmp_path / "llm" / "record.json").read_text())
    assert (record["step"], record["tags"]) == ("judge llm", {"judge": "llm", "model": "some-model"})
    assert record["params"]["llm"]["model"] == "some-model"
    assert set(record["inputs"]) == {"prompts", *(f"{method}/responses.parquet" for method in ("psoups", "vb", "mod", "pp"))}

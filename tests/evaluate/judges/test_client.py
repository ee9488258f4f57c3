"""Claims about one request: what is sent, what is tried again, and what an error says."""

import logging
import socket
import traceback

import pytest

from rlphf.errors import InputError
from rlphf.evaluate.judges.client import Client, is_loopback
from rlphf.evaluate.judges.replies import Reply, keep, kept, messages
from rlphf.settings_evaluation import LLMJudge

SECRET = "sk-very-secret-0123456789"


@pytest.fixture
def ask(monkeypatch):
    """Ask a server once, with a key in the environment."""
    monkeypatch.setenv("JUDGE_KEY", SECRET)

    def once(url, **settings):
        settings = {"max_retries": 2, "key_variable": "JUDGE_KEY", **settings}
        client = Client(LLMJudge(base_url=url, model="some-model", **settings))
        try:
            return client.ask(messages("Which?"))
        finally:
            client.close()

    return once


def test_a_request_is_the_question_and_the_settings(serve, ask):
    server = serve(lambda texts, before: "So.\nVerdict: B")
    assert ask(server.url, temperature=0.5, max_tokens=7) == (Reply("So.\nVerdict: B", 100, 10), 0)
    (request,) = server.requests
    assert request["messages"] == [{"role": "user", "content": "Which?"}]
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("some-model", 0.5, 7)
    assert server.keys == [f"Bearer {SECRET}"]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_a_server_that_is_busy_or_broken_for_a_moment_is_asked_again(serve, ask, status):
    server = serve(lambda texts, before: status if before < 2 else "Verdict: A")
    assert ask(server.url) == (Reply("Verdict: A", 100, 10), 2)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [429, 500])
def test_a_server_that_stays_so_is_given_up(serve, ask, status):
    server = serve(lambda texts, before: status)
    with pytest.raises(InputError, match=f"judge at {server.url}: status {status}: .* run again to go on"):
        ask(server.url)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "advice"), [(400, "model"), (401, "JUDGE_KEY"), (403, "JUDGE_KEY"), (404, "base_url"), (422, "")]
)
def test_a_refusal_is_not_tried_again_and_does_not_repeat_the_key(serve, ask, status, advice, caplog):
    caplog.set_level(logging.DEBUG)
    server = serve(lambda texts, before: status)
    with pytest.raises(InputError, match=f"status {status}: .*{advice}") as caught:
        ask(server.url)
    assert server.keys == [f"Bearer {SECRET}"]
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + caplog.text


def test_a_key_that_a_reply_repeats_is_not_kept(serve, ask):
    server = serve(lambda texts, before: f"Your key is {SECRET}.\nVerdict: A")
    assert ask(server.url)[0].text == "Your key is [key].\nVerdict: A"


def test_a_server_that_is_down_is_named(ask):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(InputError, match=f"judge at {url}: cannot be reached; start it or correct evaluation.llm.base_url"):
        ask(url, max_retries=0)


def test_a_server_that_says_nothing_is_not_waited_for(ask):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(InputError, match="does not reply in time"):
            ask(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", max_retries=0, timeout=0.2)


@pytest.mark.parametrize(
    "raw", [b"<html>Welcome</html>", b"{}", b"[]", b'{"choices": []}', b'{"choices": [{"message": null}]}', b"{"]
)
def test_a_server_of_another_protocol_is_named(serve, ask, raw):
    server = serve()
    server.raw = raw
    with pytest.raises(InputError, match=f"judge at {server.url}: its reply .*OpenAI-compatible"):
        ask(server.url)


def test_a_reply_without_text_is_an_empty_one(serve, ask):
    server = serve()
    server.raw = b'{"choices": [{"message": {"role": "assistant", "content": null}}], "usage": null}'
    assert ask(server.url) == (Reply("", 0, 0), 0)


def test_a_reply_in_characters_that_cannot_be_written_is_kept_without_them(serve, ask, tmp_path):
    server = serve()
    server.raw = rb'{"choices": [{"message": {"role": "assistant", "content": "\ud800\nVerdict: A"}}], "usage": null}'
    reply, _ = ask(server.url)
    keep(tmp_path / "reply.json", reply)
    assert kept(tmp_path / "reply.json").text.endswith("\nVerdict: A")


def test_a_limit_of_cost_needs_a_server_that_counts(serve, ask):
    server = serve()
    server.usage = None
    assert ask(server.url) == (Reply("Verdict: A", 0, 0), 0)
    with pytest.raises(InputError, match="does not count tokens, so that evaluation.llm.max_cost cannot be kept"):
        ask(server.url, price_in=1.0, max_cost=1.0)


def test_a_server_on_this_machine_needs_no_key_and_any_other_does(serve, ask, monkeypatch):
    server = serve(lambda texts, before: "There is none.\nVerdict: A")
    monkeypatch.delenv("JUDGE_KEY")
    assert ask(server.url)[0].text == "There is none.\nVerdict: A"
    assert server.keys == ["Bearer none"]
    with pytest.raises(InputError, match="environment variable JUDGE_KEY: set it to the API key of https://judge.invalid/v1"):
        ask("https://judge.invalid/v1")


@pytest.mark.parametrize("key", ["sk-secret\nx: y", "sk-sécret", "sk secret"])
def test_a_key_that_cannot_be_sent_is_refused_unseen(ask, monkeypatch, key):
    monkeypatch.setenv("JUDGE_KEY", key)
    with pytest.raises(InputError, match="environment variable JUDGE_KEY: holds no usable key") as caught:
        ask("http://127.0.0.1:1/v1")
    assert "cret" not in str(caught.value)


def test_proxies_are_not_for_this_machine(serve, ask, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert ask(serve().url, max_retries=0)[0].text == "Verdict: A"


def test_loopback_is_this_machine_under_any_of_its_names():
    assert all(map(is_loopback, ("http://localhost:1/v1", "http://127.0.0.2/v1", "http://[::1]:8000/v1")))
    assert not any(map(is_loopback, ("https://api.openai.com/v1", "http://10.0.0.1/v1", "http://localhost.example/v1")))

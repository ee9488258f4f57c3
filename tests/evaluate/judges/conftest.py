"""A few answers of three methods on disk, and a server on this machine that replies as it is told."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from rlphf.config import Experiment, load
from rlphf.data.records import PROMPTS, RESPONSES
from rlphf.files import write_parquet

METHODS = ("psoups", "vb", "mod", "pp")
COMBINATIONS = ("P1A-P2A-P3A", "P1A-P2B-P3A")
QUESTIONS = {f"q{i}": f"What is number {i}?" for i in range(4)}


def answer(method: str, combination: str, prompt_id: str, sample: int = 0) -> dict[str, Any]:
    """Return a row of RESPONSES whose text says where it comes from; longer for methods that come later."""
    text = f"{method} {combination} {prompt_id} {sample}" + " word" * 9 * METHODS.index(method)
    about = {"prompt_id": prompt_id, "method": method, "combination": combination, "sample": sample}
    return about | {"response": text, "tokens": 1, "finished": True}


@dataclass
class Inputs:
    """Files that a judge reads."""

    config: Path
    prompts: Path
    responses: list[Path]

    @property
    def experiment(self) -> Experiment:
        return load(self.config)

    def set(self, **llm: Any) -> None:
        """Change settings of `evaluation.llm`."""
        settings = yaml.safe_load(self.config.read_text())
        settings["evaluation"]["llm"] |= llm
        self.config.write_text(yaml.safe_dump(settings))

    def change(self, method: str, change: Callable[[list[dict]], list[dict]]) -> None:
        """Change a method's rows."""
        (path,) = [path for path in self.responses if path.parent.name == method]
        rows = change(pa.parquet.read_table(path).to_pylist())
        write_parquet(path, pa.Table.from_pylist(rows, RESPONSES))


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """Four prompts, of which two are compared; vb has one answer for both combinations, the others two samples for each."""
    import pyarrow.parquet  # noqa: F401

    config = tmp_path / "config.yaml"
    llm = {"prompts": 2, "cache": str(tmp_path / "kept"), "max_retries": 2, "timeout": 20.0}
    settings = {
        "experiment": "judged",
        "seed": 7,
        "preferences": ["P1A", "P2A", "P2B", "P3A"],
        "combination_preferences": ["P1A", "P2A", "P2B", "P3A"],
        "evaluation": {"methods": list(METHODS), "llm": llm},
    }
    config.write_text(yaml.safe_dump(settings))
    rows = [{"id": i, "prompt": text, "topic": None, "source": "mine", "split": "test"} for i, text in QUESTIONS.items()]
    rows.append({"id": "q9", "prompt": "Which one is for training?", "topic": None, "source": "mine", "split": "train"})
    write_parquet(tmp_path / "prompts.parquet", pa.Table.from_pylist(rows, PROMPTS))
    files = []
    for method in METHODS:
        combinations = ("",) if method == "vb" else COMBINATIONS
        found = [answer(method, c, i, sample) for c in combinations for i in QUESTIONS for sample in range(2)]
        files.append(tmp_path / "responses" / method / "responses.parquet")
        write_parquet(files[-1], pa.Table.from_pylist(found, RESPONSES))
    return Inputs(config, tmp_path / "prompts.parquet", files)


# What a server replies to a request: a text, or a status that is an error.
Reply = str | int


class Server:
    """A chat server on this machine: `reply` is given the texts of a request and how often the first of them was seen before."""

    def __init__(self, reply: Callable[[list[str], int], Reply]):
        self.reply, self.requests, self.keys = reply, [], []
        self.raw: bytes | None = None
        self.usage: dict[str, int] | None = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, body = server.answer(request, self.headers["authorization"])
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                # So that tests need not wait as long as users of a busy server do.
                self.send_header("retry-after-ms", "10")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def answer(self, request: dict[str, Any], key: str) -> tuple[int, bytes]:
        texts = [message["content"] for message in request["messages"]]
        with self._lock:
            before = sum(earlier["messages"][0]["content"] == texts[0] for earlier in self.requests)
            self.requests.append(request)
            self.keys.append(key)
        made = self.reply(texts, before)
        if self.raw is not None:
            return 200, self.raw
        if isinstance(made, int):
            return made, json.dumps({"error": {"message": f"{key} is not right", "code": key}}).encode()
        message = {"role": "assistant", "content": made}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": self.usage}
        return 200, json.dumps(body).encode()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers, which are closed at the end."""
    servers: list[Server] = []

    def start(reply: Callable[[list[str], int], Reply] = lambda texts, before: "Verdict: A") -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.close()

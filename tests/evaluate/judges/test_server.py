"""Claims about the judge and a server that others wrote: `transformers serve`, with a model that knows nothing."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlphf.errors import InputError
from rlphf.evaluate.judges.comparisons import COMPARISONS, check_comparisons
from rlphf.evaluate.judges.llm import llm_step
from rlphf.files import read_json, read_parquet
from rlphf.tracking.record import read_metrics

ROWS, ATTEMPTS, TOKENS = 48, 2, 4


@pytest.fixture(scope="module")
def server(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address of a running server, and the name of its model."""
    folder = tmp_path_factory.mktemp("served")
    model = folder / "model"
    shutil.copytree(tiny_backbone, model)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", model, "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--device", "cpu"], env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", str(model)
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_a_model_that_knows_nothing_is_asked_and_counted(server, inputs, tmp_path):
    url, model = server
    inputs.set(base_url=url, model=model, prompts=1, attempts=ATTEMPTS, max_tokens=TOKENS, parallel=2, timeout=60.0)
    out = tmp_path / "llm" / "llm.parquet"
    with pytest.raises(InputError, match=f"{ROWS} of {ROWS} comparisons have no verdict after {ATTEMPTS} attempts"):
        llm_step(inputs.config, inputs.prompts, inputs.responses, out)
    assert not out.exists()
    replies = [read_json(path) for path in (tmp_path / "kept").iterdir()]
    assert len(replies) == ROWS * ATTEMPTS
    assert all(reply["prompt_tokens"] > 100 and 0 <= reply["completion_tokens"] <= TOKENS for reply in replies)
    counted = {
        name: value for line in read_metrics(tmp_path / "llm" / "metrics.jsonl") for name, value in line["metrics"].items()
    }
    assert counted["replies_asked"] == ROWS * ATTEMPTS and counted["retried"] == 0
    assert counted["tokens_in"] == sum(reply["prompt_tokens"] for reply in replies)
    assert counted["tokens_out"] == sum(reply["completion_tokens"] for reply in replies) > 0

    inputs.set(max_malformed=1.0, replay=True)
    llm_step(inputs.config, inputs.prompts, inputs.responses, out)
    table = read_parquet(out, COMPARISONS)
    check_comparisons(table, str(out))
    assert table.num_rows == ROWS
    assert set(table["verdict"].to_pylist()) == {0} and set(table["malformed"].to_pylist()) == {True}


def test_a_model_that_the_server_does_not_have_is_an_error_in_one_line(server, inputs, tmp_path):
    url, model = server
    inputs.set(base_url=url, model=f"{model}/none", max_retries=0)
    with pytest.raises(InputError, match=f"judge at {url}: status [45][0-9][0-9]: "):
        llm_step(inputs.config, inputs.prompts, inputs.responses, tmp_path / "llm" / "llm.parquet")

"""A real MLflow server on this machine alone, over SQLite, that tests and benchmarks start, kill and start again."""

import os
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

LIMIT = 240


class Server:
    """`mlflow server` as `make tracking-server` starts it, in a folder of its own and on a free port."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.database = folder / "mlflow.db"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it and wait until it answers; raises AssertionError with its log when it does not within LIMIT seconds."""
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += [
            "--backend-store-uri",
            f"sqlite:///{self.database}",
            "--artifacts-destination",
            str(self.folder / "mlartifacts"),
        ]
        with (self.folder / "server.log").open("ab") as log:
            # Its workers are its group, which is stopped as a whole.
            self.process = subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            try:
                self.ask("GET", "/health", timeout=2)
                return
            except (OSError, HTTPException):
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.2)
        raise AssertionError((self.folder / "server.log").read_text())

    def ask(self, method: str, path: str, body: str | None = None, timeout: float = 60) -> bytes:
        """Return the answer to a request with a JSON `body`; raises HTTPException when it is not one of success."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise HTTPException(f"{method} {path}: status {answer.status}: {content[:300]!r}")
        return content

    def kill(self) -> None:
        """End it at once, in the middle of whatever it is doing."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

"""The doctor: a line for each thing, status 1 where something is missing, and no model loaded."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from rlphf.cli import main
from rlphf.config import parse
from rlphf.settings import Backbone
from rlphf.use import doctor
from rlphf.use.doctor import Finding, device, machine, packages, profile_in, settings, tracking

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What of the repository the doctor looks at."""
    monkeypatch.chdir(tmp_path)
    for name in ("config", "workflow"):
        shutil.copytree(ROOT / name, name)
    shutil.copy(ROOT / "requirements.lock", ".")
    return tmp_path


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_the_repository_is_well_and_every_line_has_a_status(workplace, monkeypatch, capsys):
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=16e9))
    monkeypatch.setattr(doctor, "may_take", lambda: 10**6)
    assert main(["doctor"]) == 0
    said = lines(capsys)
    assert all(line[:6].strip() in ("ok", "warn") for line in said)
    for what in ("cores: ", "memory: 16.0 GB", "disk: ", "Python 3.11", "packages: ", "torch 2", "GPU: ", "raw files: none"):
        assert any(what in line for line in said), what
    assert any("experiment demo" in line for line in said) and any("mlflow.db, made by the first run" in line for line in said)


def test_a_fault_ends_with_1_and_says_what_to_do(workplace, capsys):
    Path("mine.yaml").write_text("{experiment: mine, sed: 5}")
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--config", "config/config.yaml", "mine.yaml", "--profile", "nowhere"])
    assert ended.value.code == 1
    said = [line for line in lines(capsys) if line.startswith("fail")]
    assert len(said) == 2 and "sed: unknown key" in said[0] and "nowhere/config.yaml: cannot be read" in said[1]


def test_bad_arguments_end_with_2():
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--fast"])
    assert ended.value.code == 2


def test_raw_files_that_are_not_there_are_named(workplace):
    experiment, found = settings([Path("config/config.yaml"), Path("config/experiments/smollm2-cpu.yaml")])
    assert experiment is not None and [finding.status for finding in found] == ["ok", "fail"]
    assert "data.sources.0.path: raw/alpaca_eval, data.sources.1.path: raw/hh_rlhf are not there" in found[1].what


def test_data_sets_of_the_hub_are_named(workplace):
    Path("mine.yaml").write_text("{experiment: mine, data: {sources: [{kind: hub, path: me/pairs}]}}")
    found = settings([Path("config/config.yaml"), Path("mine.yaml")])[1]
    assert found[-1].status == "ok" and found[-1].what.startswith("data of the hub: me/pairs;")


@pytest.mark.parametrize(
    ("free", "granted", "status"),
    # What a control group or SLURM grants, in MiB, counts where it is less than what is free.
    [(16e9, 10**6, "ok"), (3e9, 10**6, "warn"), (1e9, 10**6, "fail"), (64e9, 3000, "warn"), (64e9, 1000, "fail")],
)
def test_little_memory_is_said(monkeypatch, free, granted, status):
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    monkeypatch.setattr(doctor, "may_take", lambda: granted)
    assert next(f for f in machine() if f.what.startswith("memory")).status == status


def test_the_disk_is_that_of_the_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to("/proc")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: SimpleNamespace(free=9e9 if place == Path("results") else 0))
    assert next(f for f in machine() if f.what.startswith("disk")).what == "disk: 9.0 GB free"


def test_packages_are_compared_with_their_pins(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text("# pins\npyyaml==6.0.3\npydantic==0.1\nno-such-package==1.0\n")
    _, missing, other = packages(lock)
    assert (missing.status, missing.what) == ("fail", "packages: no-such-package missing")
    assert other.status == "warn" and "for 0.1" in other.what and "make setup" in other.advice
    assert next(f for f in packages(tmp_path / "none") if "packages" in f.what).status == "warn"


def test_a_profile_is_read(tmp_path):
    assert profile_in(ROOT / "workflow" / "profiles" / "default").status == "ok"
    # `--profile` of Snakemake, and of `rlphf plan`, takes a file, too.
    assert profile_in(ROOT / "workflow" / "profiles" / "slurm" / "site.yaml").status == "ok"
    (tmp_path / "config.yaml").write_text("- a\n")
    assert profile_in(tmp_path).status == "fail"


def address(uri: str, enabled: bool = True) -> object:
    return parse({"experiment": "x", "tracking": {"uri": uri, "enabled": enabled}})


def test_a_store_of_this_machine_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tracking(address("sqlite:///mlflow.db")).status == "ok" and not Path("mlflow.db").exists()
    sqlite3.connect("mlflow.db").execute("create table a (b)")
    assert tracking(address("sqlite:///mlflow.db")).status == "ok"
    Path("mlflow.db").write_text("this is no database " * 100)
    found = tracking(address("sqlite:///mlflow.db"))
    assert found.status == "warn" and "not a database" in found.what
    assert tracking(address("sqlite:///mlflow.db", enabled=False)).what == "tracking: off"


def test_the_store_that_the_environment_names_is_the_one_that_is_looked_at(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking(address("sqlite:///mlflow.db")).status == "warn"


def test_a_server_is_asked(monkeypatch):
    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert tracking(address(f"http://127.0.0.1:{server.server_port}")).status == "ok"
        server.shutdown()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = tracking(address(f"http://127.0.0.1:{free.getsockname()[1]}"))
    assert found.status == "warn" and "does not answer" in found.what


def of_the_hub(name: str) -> list[Finding]:
    return list(doctor.backbone(Backbone(source="hub", name=name)))


def test_a_backbone_of_the_hub_is_in_the_cache_or_can_be_got(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not list(doctor.backbone(Backbone(source="train"))) and not of_the_hub(str(tmp_path))
    (found,) = of_the_hub("me/model")
    assert (found.status, found.what) == (
        "fail",
        "backbone: me/model is not in the local cache of the hub, and HF_HUB_OFFLINE keeps from it",
    )
    assert "hf download me/model" in found.advice
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    (found,) = of_the_hub("me/model")
    assert found.status == "fail" and "does not answer" in found.what
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        # It answers that it knows no such request.
        assert [found.status for found in of_the_hub("me/model")] == ["ok"]
        server.shutdown()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--me--model"
    for name, text in (("refs/main", "1a"), ("snapshots/1a/config.json", "{}")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    # A plan or an interrupted download may have left the configuration alone.
    assert [found.status for found in of_the_hub("me/model")] == ["fail"]
    (folder / "snapshots/1a/model.safetensors").touch()
    assert [found.status for found in of_the_hub("me/model")] == ["ok"]
    assert [found.what for found in of_the_hub("no/such/name")][0].startswith("backbone: no/such/name is no name of the hub")


def test_the_experiments_backbone_is_among_what_is_said(workplace, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(workplace))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit):
        main(["doctor", "--config", "config/config.yaml", "config/experiments/prlhf-prism.yaml"])
    assert any("Meta-Llama-3-8B-Instruct is not in the local cache" in line for line in lines(capsys))


def torch_with(monkeypatch: pytest.MonkeyPatch, available: bool, bf16: bool = True, driver: str = "") -> None:
    """Pretend another torch, and a driver."""
    cuda = SimpleNamespace(
        is_available=lambda: available,
        get_device_properties=lambda _: SimpleNamespace(name="A GPU", total_memory=80e9),
        is_bf16_supported=lambda: bf16,
    )
    made = SimpleNamespace(__version__="2", get_num_threads=lambda: 2, cuda=cuda, version=SimpleNamespace(cuda="13"))
    monkeypatch.setattr(doctor.importlib, "import_module", lambda _: made)
    monkeypatch.setattr(doctor, "_driver", lambda: driver)


def test_a_gpu_is_described(monkeypatch):
    torch_with(monkeypatch, True, driver="580.1")
    found = list(device(None))[1]
    assert (found.status, found.what) == ("ok", "GPU: A GPU, 80 GB, bf16, CUDA 13, driver 580.1")
    torch_with(monkeypatch, True, bf16=False)
    assert list(device(None))[1].status == "warn"


def test_a_gpu_that_torch_does_not_see_and_one_that_is_needed(monkeypatch):
    torch_with(monkeypatch, False, driver="580.1")
    assert list(device(None))[1].status == "warn"
    torch_with(monkeypatch, False)
    assert list(device(None))[1].status == "ok"
    needing = parse({"experiment": "x", "backbone": {"source": "path", "name": "a", "quantization": "4bit"}})
    assert list(device(needing))[1].status == "fail"


def test_nothing_heavier_than_torch_is_imported(workplace):
    code = "import sys; from rlphf.use.doctor import *\ntry: doctor_step()\nexcept SystemExit: pass\n"
    code += "print([n for n in ('transformers', 'peft', 'mlflow', 'datasets') if n in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_address_or_a_port_that_speaks_no_http_is_one_line(monkeypatch):
    for uri in ("http://head:5000x", "http://[::1", "http://127.0.0.1:99999"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        found = tracking(address("sqlite:///mlflow.db"))
        assert found.status == "warn" and f"{uri} does not answer (" in found.what
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-\x1b[2Jserver\r\n")

        threading.Thread(target=greet, daemon=True).start()
        found = tracking(address(f"http://127.0.0.1:{server.getsockname()[1]}"))
    assert found.status == "warn" and found.what.endswith("does not answer (SSH-2.0- [2Jserver)")


@pytest.mark.parametrize(
    "uri", ["http://me:secret@127.0.0.1:9", "http://me:secret@nowhere.invalid", "postgresql://me:secret@a/b"]
)
def test_a_password_of_the_environment_is_not_said(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = tracking(address("sqlite:///mlflow.db"))
    assert uri.replace("me:secret@", "") in found.what and "secret" not in found.what + found.advice

"""Whether this machine can run an experiment: one line for each thing that is looked at, and what to do where it is not right."""

import http.client
import importlib
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil

from rlphf.address import said, without_userinfo
from rlphf.config import Experiment, load_layers
from rlphf.errors import InputError
from rlphf.files import read_text, read_yaml
from rlphf.given import check_files, named_files
from rlphf.limits import may_take
from rlphf.settings import Backbone

CONFIG, PROFILE, LOCK = Path("config/config.yaml"), Path("workflow/profiles/default"), Path("requirements.lock")
# Where results go, which may be a link to another disk.
RESULTS = Path("results")
PYTHON = (3, 11)
# GB of memory and disk below which a run of the demo is likely to fail, and below which it may.
LEAST_MEMORY, SOME_MEMORY = 2.0, 4.0
LEAST_DISK, SOME_DISK = 1.0, 5.0
SECONDS = 3.0


@dataclass(frozen=True)
class Finding:
    """What was found about one thing, and what to do about it."""

    status: Literal["ok", "warn", "fail"]
    what: str
    advice: str = ""


def machine() -> Iterator[Finding]:
    """Look at cores, free memory, as far as SLURM or a control group grants it, and free space on the disk of the results."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", f"cores: {cores}")
    memory = min(psutil.virtual_memory().available, may_take() * 2**20) / 1e9
    disk = shutil.disk_usage(RESULTS if RESULTS.exists() else Path.cwd()).free / 1e9
    yield _enough("memory", memory, LEAST_MEMORY, SOME_MEMORY, "end other programs, or run one job at a time with --cores 1")
    yield _enough("disk", disk, LEAST_DISK, SOME_DISK, "make room, or work on another disk")


def _enough(name: str, size: float, least: float, some: float, advice: str) -> Finding:
    text = f"{name}: {size:.1f} GB free"
    if size >= some:
        return Finding("ok", text)
    return Finding("warn" if size >= least else "fail", text, advice)


def packages(lock: Path = LOCK) -> Iterator[Finding]:
    """Look at Python, and compare what is installed with the pins of `lock`."""
    said = f"Python {platform.python_version()}"
    right = sys.version_info[:2] == PYTHON
    yield Finding("ok", said) if right else Finding("fail", said, f"use Python {'.'.join(map(str, PYTHON))}")
    try:
        lines = read_text(lock, "a list of packages").splitlines()
    except InputError:
        yield Finding("warn", f"packages: {lock} is not there to compare with", "run this in the repository's folder")
        return
    pins = dict(line.split("==", 1) for line in map(str.strip, lines) if "==" in line and not line.startswith("#"))
    missing, other = [], []
    for name, pinned in pins.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            missing.append(name)
            continue
        if found.partition("+")[0] != pinned:
            other.append(f"{name} {found} for {pinned}")
    advice = "run `make setup`, which installs the pinned packages"
    if missing:
        yield Finding("fail", f"packages: {_few(missing)} missing", advice)
    if other:
        yield Finding("warn", f"packages: {_few(other)}", f"results may differ; {advice}")
    if not missing and not other:
        yield Finding("ok", f"packages: {len(pins)} as pinned")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def device(experiment: Experiment | None) -> Iterator[Finding]:
    """Look at torch, its threads, and the GPU that it finds."""
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        yield Finding("fail", f"torch: cannot be imported ({error})", "run `make setup`")
        return
    yield Finding("ok", f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    driver = _driver()
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        size = f"{about.total_memory / 1e9:.0f} GB"
        what = f"GPU: {about.name}, {size}, {bf16}, CUDA {torch.version.cuda}, driver {driver or 'unknown'}"
        advice = (
            "" if bf16 == "bf16" else "policies train in bfloat16; take a newer GPU, or set CUDA_VISIBLE_DEVICES= for the CPU"
        )
        yield Finding("warn" if advice else "ok", what, advice)
    elif experiment is not None and experiment.backbone.quantization != "none":
        yield Finding("fail", "GPU: none, and backbone.quantization needs one", "set it to none, or run on a machine with a GPU")
    elif driver:
        advice = "install torch for CUDA, and see whether CUDA_VISIBLE_DEVICES hides the GPU"
        yield Finding("warn", f"GPU: driver {driver} is there, and torch {torch.__version__} finds none", advice)
    else:
        yield Finding("ok", "GPU: none; all steps run on the CPU")


def _driver() -> str:
    """Return the version of NVIDIA's driver; "" where there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (found.stdout.split() or [""])[0]


def settings(config: Sequence[Path]) -> tuple[Experiment | None, list[Finding]]:
    """Look at the configuration and at the raw files that it names; return the experiment, if it is one."""
    named = ", ".join(map(str, config))
    try:
        experiment = load_layers(config)
    except InputError as error:
        return None, [Finding("fail", f"configuration: {error}", "correct it")]
    found = [Finding("ok", f"configuration: {named}, experiment {experiment.experiment}")]
    try:
        check_files(experiment)
        found.append(Finding("ok", "raw files: there" if named_files(experiment) else "raw files: none are needed"))
    except InputError as error:
        found.append(Finding("fail", str(error).removeprefix("configuration: ")))
    if hub := [source.path for source in experiment.data.sources if source.kind == "hub"]:
        found.append(Finding("ok", f"data of the hub: {', '.join(hub)}; taken from the local cache, or got by the first run"))
    return experiment, found


def backbone(settings: Backbone) -> Iterator[Finding]:
    """Look whether a backbone of the hub is in the local cache or, if it is not, whether the hub answers; nothing for others."""
    if settings.source != "hub" or Path(settings.name or "").is_dir():
        return
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    what, hub = f"backbone: {settings.name}", constants.ENDPOINT
    try:
        cached = try_to_load_from_cache(settings.name or "", "config.json")
    except HFValidationError as error:
        yield Finding("fail", f"{what} is no name of the hub ({said(error)})", "correct backbone.name")
        return
    if isinstance(cached, str) and any(Path(cached).parent.glob("*.safetensors")):
        yield Finding("ok", f"{what} is in the local cache of the hub")
        return
    missing = f"{what} is not in the local cache of the hub"
    advice = f"run `hf download {settings.name}` where there is a network, and set HF_HOME to its cache"
    if constants.HF_HUB_OFFLINE:
        yield Finding("fail", f"{missing}, and HF_HUB_OFFLINE keeps from it", f"unset it, or {advice}")
        return
    try:
        # An error of the server's is an answer, too.
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(hub, timeout=SECONDS):
            pass
    except (OSError, ValueError, http.client.HTTPException) as error:
        yield Finding("fail", f"{missing}, and {hub} does not answer ({said(error)})", advice)
        return
    yield Finding("ok", f"{missing}; the first run gets it from {hub}")


def profile_in(profile: Path) -> Finding:
    """Look at a Snakemake profile, a file or its folder."""
    path = profile if profile.is_file() else profile / "config.yaml"
    try:
        found = read_yaml(path)[0]
    except InputError as error:
        return Finding("fail", f"profile: {error}", "name a profile, or its folder, with --profile")
    if not isinstance(found, dict):
        return Finding("fail", f"profile: {path}: is no mapping of options", "see workflow/profiles/default")
    return Finding("ok", f"profile: {profile}")


def tracking(experiment: Experiment) -> Finding:
    """Look whether the tracking store can be reached. Nothing waits for it, so it is no failure if not."""
    # Name and password are left out of the request, too: a port that cannot be read is quoted in the error.
    uri = without_userinfo(os.environ.get("MLFLOW_TRACKING_URI") or experiment.tracking.uri)
    waits = "runs go on, and `make ui` sends their records later"
    if not experiment.tracking.enabled:
        return Finding("ok", "tracking: off")
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
        try:
            if path.exists():
                with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=SECONDS)) as connection:
                    connection.execute("pragma schema_version")
            elif not os.access(path.parent, os.W_OK):
                return Finding("warn", f"tracking: {path.parent} cannot be written to", waits)
        except sqlite3.Error as error:
            return Finding("warn", f"tracking: {path}: {error}", f"move it away; {waits}")
        return Finding("ok", f"tracking: {path}" + ("" if path.exists() else ", made by the first run"))
    try:
        if urlsplit(uri).scheme not in ("http", "https"):
            return Finding("ok", f"tracking: {uri} is not looked at")
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=SECONDS):
            return Finding("ok", f"tracking: {uri} answers")
    except (OSError, ValueError, http.client.HTTPException) as error:
        what = f"tracking: {uri} does not answer ({said(error)})"
        return Finding("warn", what, f"start the server, or correct tracking.uri; {waits}")


def doctor_step(config: Sequence[Path] | None = None, profile: Path | None = None) -> None:
    """Print what is right and what is not about this machine, the installed packages and the configuration.

    `config` are files laid one over the other, as for `rlphf plan`. Each line says ok, warn or fail, what, and what to do. Ends
    with status 1 if anything failed. No model is loaded.
    """
    experiment, about = settings(config or [CONFIG])
    found = [*machine(), *packages(), *device(experiment), *about]
    found += backbone(experiment.backbone) if experiment is not None else []
    found.append(profile_in(profile or PROFILE))
    found += [tracking(experiment)] if experiment is not None else []
    width = max((len(finding.what) for finding in found if finding.advice), default=0)
    for finding in found:
        what = finding.what.ljust(width) if finding.advice else finding.what
        print(f"{finding.status:<4}  {what}  {finding.advice}".rstrip())
    if any(finding.status == "fail" for finding in found):
        sys.exit(1)

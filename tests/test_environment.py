"""Claims about the pinned packages: three files say the same, and it is what the tests run with."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PIN = re.compile(r"([a-z0-9._-]+)==([0-9][0-9a-z.]*)", re.IGNORECASE)


def pins(lines: list[str]) -> dict[str, str]:
    """Return {package: version} of lines that are each an exact pin; names as the index compares them."""
    found: dict[str, str] = {}
    for line in lines:
        match = PIN.fullmatch(line)
        assert match, f"{line!r} is no exact pin"
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        assert name not in found, f"{name} is pinned twice"
        found[name] = match[2]
    return found


def project() -> dict[str, str]:
    """Return the pins of pyproject.toml, those for tests and for SLURM included."""
    extras = PROJECT["project"]["optional-dependencies"]
    return pins([*PROJECT["project"]["dependencies"], *extras["test"], *extras["slurm"]])


def test_lock_pins_all_that_the_project_pins_at_the_same_version():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    lock = pins([line for line in lines if line and not line.startswith("#")])
    assert {name: lock.get(name) for name in project()} == project()
    assert len(lock) > len(project())


def test_conda_environment_is_the_pins_of_the_project_and_the_project_itself():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *plain, nested = environment["dependencies"]
    *packages, own = nested["pip"]
    assert environment["name"] == PROJECT["project"]["name"]
    assert plain == ["python=3.11", "pip"] and own == "--editable ."
    assert pins(packages) == project()


def test_all_three_ask_for_the_same_python():
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.12"
    assert PROJECT["tool"]["mypy"]["python_version"] == "3.11"
    assert "PYTHON ?= python3.11\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_build_tool_is_pinned_too():
    assert pins(PROJECT["build-system"]["requires"])


def test_tests_run_with_the_pinned_packages():
    assert {name: version(name).partition("+")[0] for name in project()} == project()


def test_snakefile_asks_for_the_pinned_snakemake():
    asked = re.search(r'min_version\("([^"]+)"\)', (ROOT / "Snakefile").read_text(encoding="utf-8"))
    assert asked and project()["snakemake"].startswith(asked[1])

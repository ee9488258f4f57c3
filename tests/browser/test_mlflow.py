"""Claims about what a person sees who opens MLflow on a finished run: a real server, in Chromium without a network."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from benchmarks.server import Server
from tests.browser.chromium import Chromium
from tests.workflow.conftest import copy_to, environment, run_to_the_end

# The run takes a minute and more.
pytestmark = [pytest.mark.browser, pytest.mark.workflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def address(browser: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that holds a finished run of the smallest experiment."""
    folder = run_to_the_end(copy_to(tmp_path_factory.mktemp("finished") / "rlphf"))
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    try:
        command = [sys.executable, "-m", "rlphf.cli", "track", "sync", "--results", "results/ci"]
        own = environment(folder) | {"MLFLOW_TRACKING_URI": server.uri}
        done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True)
        assert "0 records wait, 0 are broken" in done.stdout, done.stdout + done.stderr
        yield server.uri
    finally:
        server.kill()


@pytest.fixture
def opened(browser: Chromium, address: str) -> Iterator[Chromium]:
    """The list of experiments, with the choice for model training made, which a browser keeps."""
    browser.window(1500, 1000)
    browser.visit(f"{address}/#/experiments")
    click(browser, "span", "Model training")
    yield browser
    elsewhere = [request for request in browser.requests if not request.startswith((address, "data:", "blob:"))]
    assert elsewhere == []


def click(browser: Chromium, selector: str, text: str) -> None:
    """Click the first element of a kind that says `text`, once it is there."""
    found = f"[...document.querySelectorAll({json.dumps(selector)})].find(e => e.textContent.trim() === {json.dumps(text)})"
    browser.until(f"Boolean({found})")
    # Tabs take the press of the button, everything else the click.
    browser.run(f"(e => {{ e.dispatchEvent(new MouseEvent('mousedown', {{bubbles: true, button: 0}})); e.click(); }})({found})")


def shows(browser: Chromium, *texts: str) -> None:
    """Wait until the page shows each text."""
    for text in texts:
        browser.until(f"document.body.innerText.includes({json.dumps(text)})")


def test_the_run_of_a_soup_is_three_clicks_away(opened: Chromium) -> None:
    names = "[...document.querySelectorAll('[role=gridcell] a[href*=\"/runs/\"]')].map(a => a.textContent)"
    # 1. The experiment: one run for its one start.
    click(opened, "a", "ci")
    (parent,) = opened.until(names)
    assert parent.startswith("ci · 20")
    # 2. Its steps.
    opened.run("document.querySelector('[role=gridcell] button').click()")
    opened.until(f"{names}.length > 20")
    assert {"soups", "ppo P1A", "ppo P2A", "reward P1A", "generate psoups", "tables"} <= set(opened.run(names))
    # 3. The soups.
    click(opened, "[role=gridcell] a", "soups")
    shows(opened, "Finished", parent, "Registered models", "soup-P1A-P2A", "Merges policies into one adapter per combination")
    shows(opened, "results/ci/seed-1103/soups/P1A-P2A", "delta_relative_error/P1A-P2A", "svd_rank")
    click(opened, "[role=tab]", "Artifacts")
    shows(opened, "record.json", "P1A-P2A")


def test_a_policy_is_found_by_its_name_with_its_card_and_leads_to_its_run(opened: Chromium) -> None:
    click(opened, "a", "Model registry")
    names = "[...document.querySelectorAll('a[href^=\"#/models/\"]')].map(a => a.textContent)"
    opened.until(f"{names}.length > 5")
    assert {"P1A", "P2A", "mt", "reward-P1A", "soup-P1A-P2A"} <= set(opened.run(names))
    click(opened, "a", "P1A")
    shows(opened, "for preference P1A (expertise)", "best", "ci-1103")
    click(opened, "a", "Version 1")
    shows(opened, "Source Run", "best", "ci-1103", "sha256", "config_hash")
    shows(opened, "A policy: a LoRA on a frozen backbone, for preference P1A (expertise)", "AutoPeftModelForCausalLM")
    # The run opens with the adapter's files.
    click(opened, "a", "ppo P1A")
    shows(opened, "adapter_model.safetensors", "README.md", "samples.jsonl")
    click(opened, "[role=tab]", "Overview")
    shows(opened, "Trains a policy, a LoRA, on a reward model or a text rule.", "learning_rate", "value_loss", "Backbone")

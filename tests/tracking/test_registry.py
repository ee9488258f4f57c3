"""Claims about MLflow's model registry: every adapter of a seed is a version once, and aliases say which is the newest."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from rlphf.cards import joined_card
from rlphf.files import read_json, sha256
from rlphf.tracking import registry
from rlphf.tracking import sync as syncing
from rlphf.tracking.entries import entries
from rlphf.tracking.record import RECORD, SENT, step
from rlphf.tracking.steps import end_workflow, start_workflow
from rlphf.tracking.store import Store
from rlphf.tracking.sync import sync

pytest.importorskip("mlflow")

URI = "sqlite:///mlflow.db"
RESULTS = Path("results/demo")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "URI", f"sqlite:///{tmp_path}/mlflow.db")
    shutil.copy(empty_store, "mlflow.db")


def put(folder: Path, weights: str, card: str) -> Path:
    """Write the files of an adapter, and one that no adapter has."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_text(weights)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.bin").write_text("a pickle")
    (folder / "README.md").write_text(joined_card({"license": "other"}, f"\n# A card\n\n{card}\n"))
    return folder


def train(
    name: str = "ppo", place: str = "ppo/P1A", weights: str = "1", card: str = "For P1A.", seed: int = 7, results: Path = RESULTS
) -> Path:
    """Run a step that makes an adapter; return its folder."""
    folder = results / f"seed-{seed}" / place
    with step(name, folder, tags={"seed": seed}) as run:
        run.output(put(folder / "adapter", weights, card))
    return folder


def merge(*soups: str) -> None:
    with step("soups", RESULTS / "seed-7/soups") as run:
        for soup in soups:
            run.output(put(run.folder / soup, soup, f"Soup {soup}."))


def client():
    return Store(URI, "other").client


def versions() -> dict[str, list[str]]:
    """{registered model: digests of its versions' weights, from the first on}."""
    found = client().search_model_versions("")
    names = sorted({version.name for version in found})
    return {
        name: [v.tags["sha256"] for v in sorted((v for v in found if v.name == name), key=lambda v: int(v.version))]
        for name in names
    }


def aliases(name: str) -> dict[str, str]:
    return {alias: str(version) for alias, version in client().get_registered_model(name).aliases.items()}


def test_a_policy_is_a_version_with_its_run_card_and_aliases(tmp_path: Path) -> None:
    folder = train(card="For preference P1A.")
    counts = sync(RESULTS, URI, "demo")
    assert (counts.models, counts.problems, counts.waiting) == (1, [], 0)
    (version,) = client().search_model_versions("")
    run = client().get_run(version.run_id)
    assert (version.name, str(version.version), run.info.run_name) == ("P1A", "1", "ppo")
    assert version.description == "# A card\n\nFor preference P1A."
    assert {name: version.tags[name] for name in ("experiment", "seed", "path", "sha256")} == {
        "experiment": "demo",
        "seed": "7",
        "path": "results/demo/seed-7/ppo/P1A/adapter",
        "sha256": sha256(folder / "adapter/adapter_model.safetensors"),
    }
    assert aliases("P1A") == {"best": "1", "demo-7": "1"}
    described = client().get_registered_model("P1A").description
    assert described.startswith("For preference P1A.") and "Alias `best` is the newest of all experiments" in described
    assert "Registered as `P1A`.\n\n# A card\n\nFor preference P1A." in run.data.tags["mlflow.note.content"]
    from mlflow.artifacts import download_artifacts

    got = Path(download_artifacts("models:/P1A@best", dst_path=str(tmp_path / "got"), tracking_uri=URI, registry_uri=URI))
    # Nothing that would have to be unpickled goes along.
    assert sorted(path.name for path in got.iterdir() if path.name != "registered_model_meta") == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert (got / "adapter_model.safetensors").read_text() == "1"


def test_names_say_what_a_model_is_and_only_a_seeds_own_are_registered() -> None:
    train("reward", "reward/P1A")
    train("mt", "sft/mt")
    train("dpo", "users/models/dpo")
    train("ppo", "mistakes/factor_merge/ppo/P1A")
    train("ppo", "ablations/dpo.alpha-1/ppo/P1A")
    merge("P1A-P2A", "P1B-P2A", "front/0.500")
    assert sync(RESULTS, URI, "demo").models == 4
    assert list(versions()) == ["mt", "reward-P1A", "soup-P1A-P2A", "soup-P1B-P2A"]
    (version,) = client().search_model_versions("name = 'soup-P1A-P2A'")
    run = client().get_run(version.run_id)
    assert run.info.run_name == "soups" and "| `soup-P1A-P2A` | `P1A-P2A` |" in run.data.tags["mlflow.note.content"]


def test_a_step_run_again_is_a_new_version_that_has_the_aliases() -> None:
    digests = []
    for weights in ("1", "2"):
        digests.append(sha256(train(weights=weights) / "adapter/adapter_model.safetensors"))
        sync(RESULTS, URI, "demo")
    assert sync(RESULTS, URI, "demo").models == 0
    assert versions() == {"P1A": digests}
    assert aliases("P1A") == {"best": "2", "demo-7": "2"}


def test_seeds_and_experiments_have_aliases_of_their_own_and_the_newest_run_is_best_whenever_it_is_sent() -> None:
    train(seed=7)
    train(seed=8)
    train(seed=7, results=Path("results/ci"))
    sync(Path("results/ci"), URI, "ci")
    assert aliases("P1A") == {"best": "1", "ci-7": "1"}
    # What is sent later was made before.
    assert sync(RESULTS, URI, "demo").models == 2
    assert aliases("P1A") == {"best": "1", "ci-7": "1", "demo-7": "2", "demo-8": "3"}
    train(seed=8, weights="2")
    sync(RESULTS, URI, "demo")
    assert aliases("P1A") == {"best": "4", "ci-7": "1", "demo-7": "2", "demo-8": "4"}


@pytest.mark.parametrize(
    "call", ["create_registered_model", "create_model_version", "set_registered_model_alias", "search_registered_models"]
)
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_sender_that_stops_around_any_call_makes_no_second_version(
    monkeypatch: pytest.MonkeyPatch, call: str, done: bool
) -> None:
    from mlflow import MlflowClient

    real = getattr(MlflowClient, call)

    def stop(self, *given, **named):
        if done:
            real(self, *given, **named)
        # Unlike an error of the registry, a kill is not noticed.
        raise KeyboardInterrupt

    train()
    train("reward", "reward/P1A")
    monkeypatch.setattr(MlflowClient, call, stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            sync(RESULTS, URI, "demo")
    monkeypatch.setattr(MlflowClient, call, real)
    assert sync(RESULTS, URI, "demo").waiting == 0
    assert {name: len(found) for name, found in versions().items()} == {"P1A": 1, "reward-P1A": 1}
    assert aliases("P1A") == aliases("reward-P1A") == {"best": "1", "demo-7": "1"}
    # Even with all knowledge of what was sent gone.
    for path in RESULTS.rglob(SENT):
        path.unlink()
    assert sync(RESULTS, URI, "demo").models == 0 and len(versions()["P1A"]) == 1


def test_a_registry_that_refuses_is_one_line_and_gets_its_models_later(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    start_workflow(RESULTS, "demo", "abc")
    train()
    train("reward", "reward/P1A")
    end_workflow(RESULTS, "finished")
    search = MlflowClient.search_model_versions
    asked = []

    def refuse(self, *_, **__):
        asked.append(1)
        raise RuntimeError("no registry here")

    monkeypatch.setattr(MlflowClient, "search_model_versions", refuse)
    counts = sync(RESULTS, URI, "demo")
    assert len(asked) == len(counts.problems) == 1 and "the model registry refuses" in counts.problems[0]
    assert (counts.runs, counts.waiting, counts.broken) == (3, 2, 0)
    client_ = client()
    experiment = client_.get_experiment_by_name("demo").experiment_id
    assert {run.info.status for run in client_.search_runs([experiment])} == {"FINISHED"}
    monkeypatch.setattr(MlflowClient, "search_model_versions", search)
    counts = sync(RESULTS, URI, "demo")
    assert (counts.runs, counts.artifacts, counts.models, counts.waiting, counts.problems) == (0, 0, 2, 0, [])


def test_weights_are_hashed_once_by_a_sender_whose_registry_keeps_refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    hashed = []
    folder, sender = train(), syncing.Sender(RESULTS, URI, "demo")
    with monkeypatch.context() as refusing:
        refusing.setattr(registry, "sha256", lambda path: hashed.append(path) or sha256(path))
        refusing.setattr(MlflowClient, "search_model_versions", lambda *_, **__: 1 / 0)
        assert sender.send().waiting == 1 and hashed
        before = len(hashed)
        assert sender.send().waiting == 1 and len(hashed) == before
    # What the step makes when it is run again is another record's.
    train(weights="2")
    assert sender.send().models == 1
    assert versions() == {"P1A": [sha256(folder / "adapter/adapter_model.safetensors")]}


def test_what_is_no_longer_what_its_step_wrote_is_not_registered() -> None:
    folder = train()
    (folder / "adapter/adapter_model.safetensors").write_text("something else")
    gone = train("reward", "reward/P1A")
    shutil.rmtree(gone / "adapter")
    counts = sync(RESULTS, URI, "demo")
    assert (counts.models, counts.waiting, versions()) == (0, 0, {})
    assert len(counts.problems) == 1 and "results/demo/seed-7/ppo/P1A/adapter: has changed" in counts.problems[0]


def test_an_adapter_that_is_a_link_out_of_the_results_is_not_sent(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "secret", "Of another.")
    folder = RESULTS / "seed-7/ppo/P1A"
    with step("ppo", folder) as run:
        os.symlink(tmp_path / "elsewhere", folder / "adapter")
        run.output(folder / "adapter")
    assert sync(RESULTS, URI, "demo").models == 0
    assert not list(Path("mlartifacts").rglob("*.safetensors"))


def test_weights_that_are_too_large_stay_where_they_are_and_a_long_card_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "LARGEST_WEIGHTS", 1000)
    train(weights="w" * 1001, card="long " * 2000)
    sync(RESULTS, URI, "demo")
    (version,) = client().search_model_versions("")
    assert version.tags["weights"].startswith("too large") and not list(Path("mlartifacts").rglob("*.safetensors"))
    assert len(version.description) == registry.DESCRIPTION and version.description.endswith(
        "README.md among the run's artifacts."
    )


def test_a_step_that_did_not_finish_registers_nothing() -> None:
    with pytest.raises(ValueError, match="broken"), step("ppo", RESULTS / "seed-7/ppo/P1A") as run:
        run.output(put(run.folder / "adapter", "1", "Half trained."))
        raise ValueError("broken")
    with step("reward", RESULTS / "seed-7/reward/P1A") as run:
        run.output(put(run.folder / "adapter", "1", "Half trained."))
        assert syncing.sync(RESULTS, URI, "demo").models == 0
    assert list(versions()) == []


def test_a_step_that_finished_after_its_record_was_read_has_no_models_yet():
    folder, problems = train(), []
    (entry,) = entries(RESULTS)
    record = read_json(folder / RECORD)
    assert registry.models(entry, record | {"status": "running", "outputs": {}}, "demo", problems) == []
    assert [model.name for model in registry.models(entry, record, "demo", problems)] == ["P1A"] and not problems

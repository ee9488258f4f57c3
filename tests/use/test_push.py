"""What goes to the hub: the folder with its card, as one commit, by a backbone that others have; and never the token."""

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import ModelCard

from rlphf.cards import joined_card
from rlphf.cli import main

LOCAL = "results/demo/seed-1/backbone/model"
SECRET = "hf_averysecrettoken"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list:
    """Stand in for the hub; yields what it was sent."""
    calls: list = []

    class Api:
        def __init__(self, token: str):
            calls.append(("token", token))

        def create_repo(self, repo: str, private: bool, exist_ok: bool) -> SimpleNamespace:
            assert exist_ok
            calls.append(("repo", repo, private))
            return SimpleNamespace(repo_id=repo)

        def repo_info(self, repo: str) -> SimpleNamespace:
            return SimpleNamespace(private=repo != "me/public")

        def create_commit(self, repo: str, operations: list, commit_message: str) -> None:
            calls.append(("commit", repo, {o.path_in_repo: bytes_of(o.path_or_fileobj) for o in operations}))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return calls


def bytes_of(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else Path(content).read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A soup's folder, with a record and a hidden file beside its files."""
    folder = tmp_path / "soup"
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": LOCAL}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text(
        joined_card({"base_model": LOCAL, "license": "apache-2.0"}, f'\n# Soup\n\nload("{LOCAL}")\n')
    )
    for name in ("record.json", "metrics.jsonl", ".sync.json"):
        (folder / name).write_text("{}")
    return folder


def push(folder: Path, *arguments: str) -> int:
    return main(["hub", "push", "--folder", str(folder), "--repo", "me/soup", *arguments])


def test_a_soup_goes_with_its_card_to_a_backbone_that_others_have(folder, hub, capsys):
    assert push(folder, "--base-model", "me/backbone", "--private") == 0
    assert hub[:2] == [("token", SECRET), ("repo", "me/soup", True)]
    ((_, repo, sent),) = hub[2:]
    assert repo == "me/soup" and sorted(sent) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert json.loads(sent["adapter_config.json"])["base_model_name_or_path"] == "me/backbone"
    card = ModelCard(sent["README.md"].decode())
    assert card.data.base_model == "me/backbone" and 'load("me/backbone")' in card.text and LOCAL not in card.content
    assert sent["adapter_model.safetensors"] == b"weights"
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err
    # What lies here stays as it is.
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == LOCAL


def test_nothing_goes_to_a_public_repository_that_was_to_be_private(folder, hub, capsys):
    # The hub leaves a repository that is there as it is, whatever is asked for.
    given = ["hub", "push", "--folder", str(folder), "--repo", "me/public", "--base-model", "me/backbone"]
    assert main([*given, "--private"]) == 2
    assert capsys.readouterr().err.startswith("rlphf: error: me/public: is there already and public; make it private")
    assert [call[0] for call in hub] == ["token", "repo"]
    assert main(given) == 0 and hub[-1][0] == "commit"


def test_a_dry_run_lists_the_files_and_needs_no_token(folder, hub, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert push(folder, "--base-model", "me/backbone", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[:-1]] == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert lines[-1] == "nothing was sent to me/soup" and hub == []


def test_a_backbone_of_the_hub_is_named_by_the_card(folder, hub):
    (folder / "README.md").write_text(joined_card({"base_model": "someone/model"}, "\n# Soup\n"))
    assert push(folder) == 0
    assert json.loads(hub[-1][2]["adapter_config.json"])["base_model_name_or_path"] == "someone/model"


def test_a_backbone_is_sent_as_it_is(tmp_path, hub):
    (tmp_path / "model").mkdir()
    names = ["config.json", "model.safetensors", "tokenizer.json"]
    for name in names:
        (tmp_path / "model" / name).write_text("{}")
    assert push(tmp_path / "model") == 0 and hub[-1][2] == dict.fromkeys(names, b"{}")


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_with_some_configuration_is_no_backbone(tmp_path, hub, capsys, lacking):
    (tmp_path / "sub").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "notes.md"):
        (tmp_path / "sub" / name if name == lacking else tmp_path / name).write_text("{}")
    wanted = "name the folder that has adapter_config.json, or config.json with *.safetensors and a tokenizer"
    assert refused(tmp_path, capsys) == f"rlphf: error: {tmp_path}: holds no adapter and no backbone; {wanted}\n"
    assert hub == []


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert push(folder, *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("rlphf: error: ") and said.count("\n") == 1
    return said


def test_what_cannot_be_sent_is_refused_before_anything_is(folder, hub, capsys, monkeypatch, tmp_path):
    assert "is on this machine alone; send the backbone's folder first" in refused(folder, capsys)
    assert "--base-model a/b/c: " in refused(folder, capsys, "--base-model", "a/b/c")
    assert main(["hub", "push", "--folder", str(folder), "--repo", "a/b/c"]) == 2
    assert "--repo a/b/c: " in capsys.readouterr().err
    assert "there is no such folder" in refused(tmp_path / "none", capsys)
    assert "holds no adapter and no backbone" in refused(tmp_path, capsys)
    (folder / "extra.json").symlink_to("/etc/hostname")
    assert "is a link" in refused(folder, capsys, "--base-model", "me/backbone")
    (folder / "extra.json").unlink()
    monkeypatch.delenv("HF_TOKEN")
    assert "HF_TOKEN: is not set" in refused(folder, capsys, "--base-model", "me/backbone")
    (folder / "README.md").unlink()
    assert "has no README.md" in refused(folder, capsys, "--base-model", "me/backbone")
    assert hub == []


def test_a_refusal_of_the_hub_is_one_line_without_the_token(folder, hub, capsys, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"401: token {SECRET}\nis invalid")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", fail)
    said = refused(folder, capsys, "--base-model", "me/backbone")
    assert "the hub did not take it (401: token *** is invalid)" in said and SECRET not in said

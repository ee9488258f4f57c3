"""Files that settings name: what a workflow reads of a folder, and names that it cannot read."""

import pytest

from rlphf.config import Experiment
from rlphf.errors import InputError
from rlphf.given import check_files, files_of, named_files
from rlphf.settings import Annotator, Backbone
from rlphf.settings_data import Data, Source

KINDS = ("simulated", "reward_model")


def test_a_folder_is_its_files_but_for_hidden_ones(tmp_path):
    # The folder itself may lie in a hidden one.
    tmp_path = tmp_path / ".raw"
    for name in ("b.json", "a/c.json", ".hidden", ".git/index", "a/.cache/d/e.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert files_of(str(tmp_path)) == [f"{tmp_path}/a/c.json", f"{tmp_path}/b.json"]
    assert files_of(f"{tmp_path}/b.json") == [f"{tmp_path}/b.json"]


def test_braces_in_a_name_are_refused_before_snakemake_reads_them(tmp_path):
    (tmp_path / "pairs{1}.json").write_text("[]")
    experiment = Experiment(experiment="test", data=Data(sources=[Source(kind="hh_rlhf", path=str(tmp_path))]))
    with pytest.raises(
        InputError, match=r"data.sources.0.path: .*/pairs\{1\}.json: Snakemake takes braces in a name for its own"
    ):
        check_files(experiment)
    (tmp_path / "pairs{1}.json").rename(tmp_path / "pairs.json")
    check_files(experiment)


def test_a_reward_model_counts_where_it_annotates(tmp_path):
    named = {kind: named_files(Experiment(experiment="test", annotator=Annotator(kind=kind, model="m"))) for kind in KINDS}
    assert named == {"simulated": {}, "reward_model": {"annotator.model": "m"}}


def test_all_that_is_missing_is_named_at_once(tmp_path):
    (tmp_path / "there.json").write_text("[]")
    paths = {name: str(tmp_path / name) for name in ("a", "there.json", "b")}
    data = Data(sources=[Source(kind="hh_rlhf", path=path) for path in paths.values()])
    found = rf"data.sources.0.path: {paths['a']}, data.sources.2.path: {paths['b']} are not there; see docs/real-text.md"
    with pytest.raises(InputError, match=found):
        check_files(Experiment(experiment="test", data=data))
    with pytest.raises(InputError, match="backbone.name: /nowhere is not there; name where the model lies"):
        check_files(Experiment(experiment="test", backbone=Backbone(source="path", name="/nowhere")))

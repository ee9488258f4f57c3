"""Finished runs are found or named as missing; soups are read as people write them, and refused in one line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlphf.errors import InputError
from rlphf.use.finished import finished_run, parse_soup, soup_text

KNOWN = ["P1A", "P1B", "P2A", "P2B", "P3A", "P3B"]


def run(folder: Path, policies: list[str] = KNOWN) -> Path:
    """Write what a finished run's folder is known by."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"{{experiment: demo, preferences: {KNOWN}}}".replace("'", ""))
    (folder / "backbone" / "model").mkdir(parents=True)
    for name in policies:
        (folder / "ppo" / name / "adapter").mkdir(parents=True)
    return folder


def test_a_run_is_found_by_its_experiment_or_by_its_seed(tmp_path):
    seed = run(tmp_path / "demo" / "seed-7")
    for folder in (tmp_path / "demo", seed):
        found = finished_run(folder)
        assert found.folder == seed and found.experiment.experiment == "demo"
        assert found.policy("P1A").is_dir() and found.backbone.is_dir()


def test_without_a_finished_run_the_line_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match="holds no finished run; run `make demo` first"):
        finished_run(tmp_path / "demo")
    folder = run(tmp_path / "demo" / "seed-7", [])
    with pytest.raises(InputError, match="seed-7/ppo: holds no policy; let experiment demo run to its end first"):
        finished_run(tmp_path / "demo")
    (folder / "backbone" / "model").rmdir()
    with pytest.raises(InputError, match="backbone/model: is not there; let experiment demo"):
        finished_run(tmp_path / "demo")


def test_an_experiment_about_users_alone_is_not_waited_for(tmp_path):
    folder = run(tmp_path / "personas" / "seed-7", [])
    users = "experiment: personas\nbackbone: {source: package}\nuser_data: {source: persona, path: raw}\n"
    (folder / "config.yaml").write_text(users)
    with pytest.raises(InputError, match="experiment personas is about users alone and has no policy; name another run"):
        finished_run(tmp_path / "personas")


def test_policies_serve_while_another_preference_of_the_experiment_has_none_yet(tmp_path):
    found = finished_run(run(tmp_path / "demo" / "seed-7", ["P2A", "P1A"]))
    assert found.preferences == ["P1A", "P2A"]
    with pytest.raises(InputError, match="this run has no policy of 'P1B'; choose from P1A, P2A, or plain"):
        parse_soup("P1B=1", found.preferences)


def test_of_several_runs_one_has_to_be_named(tmp_path):
    for seed in (7, 8):
        run(tmp_path / "demo" / f"seed-{seed}")
    with pytest.raises(InputError, match="has several runs; name one, such as --results .*seed-7"):
        finished_run(tmp_path / "demo")
    assert finished_run(tmp_path / "demo" / "seed-8").folder.name == "seed-8"


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("P1A=1", {"P1A": 1.0}),
        ("P1A=0.5, P2B=0.3 ,P3A=0.2", {"P1A": 0.5, "P2B": 0.3, "P3A": 0.2}),
        ("P1A=0.25,P1B=0.75", {"P1A": 0.25, "P1B": 0.75}),
        ("P1A=0.33,P2A=0.33,P3A=0.33", {"P1A": 0.33, "P2A": 0.33, "P3A": 0.33}),
        ("P1A=1,P2A=0", {"P1A": 1.0, "P2A": 0.0}),
        ("plain", {}),
    ],
)
def test_a_soup_is_weights_of_preferences(text, weights):
    assert parse_soup(text, KNOWN) == weights


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "this run has no policy of ''"),
        ("P9Z=1", "this run has no policy of 'P9Z'; choose from P1A, P1B"),
        ("P3D=1", "no policy of 'P3D'"),
        ("P1A=0.5,P1A=0.5", "P1A is named twice"),
        ("P1A", "expected a weight of 0 or more"),
        ("P1A=", "expected a weight"),
        ("P1A=x", "expected a weight"),
        ("P1A=-0.5,P2A=1.5", "P1A: expected a weight of 0 or more"),
        ("P1A=nan", "expected a weight"),
        ("P1A=inf", "expected a weight"),
        ("P1A=0.5,P2A=0.3", "the weights sum to 0.8; give weights that sum to 1"),
        ("P1A=0.5,,P2A=0.5", "no policy of ''"),
    ],
)
def test_what_is_no_soup_is_refused_in_one_line(text, fault):
    with pytest.raises(InputError, match=fault):
        parse_soup(text, KNOWN)


@given(st.lists(st.sampled_from(KNOWN), min_size=1, unique=True))
def test_a_soup_is_written_as_it_is_read(ids):
    weights = {name: 1 / len(ids) for name in ids}
    assert parse_soup(soup_text(weights), KNOWN) == pytest.approx(weights, abs=1e-5)
    assert soup_text({}) == "plain"

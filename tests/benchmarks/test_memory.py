"""What jobs took of memory is told by rule, and every rule that has a benchmark is known."""

import re
from pathlib import Path

import pytest
from benchmarks import memory
from benchmarks.memory import RULES, granted, measured, patterns, table

from rlphf.errors import InputError
from rlphf.files import write_json, write_text

HEAD = "s\th:m:s\tmax_rss\tmax_vms\n"
PROFILE = """
default-resources: [mem_mb=1000]
set-resources: {mt: {mem_mb: 2500}, reward: {gpu: 1}}
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A run with jobs of four rules, one of which Snakemake could not measure."""
    folder = tmp_path / "results"
    peaks = {"generate/vb": 500, "generate/mod": 900, "ppo/P1A+P2A": 1400, "ppo/pmorl": 1100, "sft/mt": "NA"}
    for name, peak in peaks.items():
        write_text(folder / "seed-7" / "benchmarks" / f"{name}.tsv", f"{HEAD}1.0\t0:00:01\t{peak}\t1\n")
    records = {"responses/mod": 950.5, "responses/vb": 400.0, "ppo/P1A": 1450.0, "sft/mt": 2000.0}
    for name, peak in records.items():
        write_json(folder / "seed-7" / name / "record.json", {"peak_mb": peak})
    write_text(tmp_path / "profile" / "config.yaml", PROFILE)
    return folder


def test_a_rules_peak_is_the_largest_of_its_jobs_by_either_measurement(results: Path) -> None:
    assert table(results, results.parent / "profile") == [
        ("mt", 1, 2000.0, 2500),
        ("ppo_P1A_P2A", 1, 1450.0, 1000.0),
        ("ppo", 1, 1100.0, 1000.0),
        ("generate", 2, 950.5, 1000.0),
    ]


def test_a_benchmark_that_no_rule_makes_is_an_error_in_one_line(results: Path) -> None:
    write_text(results / "seed-7" / "benchmarks" / "unknown.tsv", HEAD)
    with pytest.raises(InputError, match="no rule makes it"):
        list(measured(results))


def test_a_profile_for_slurm_is_read_as_at_the_first_attempt(results: Path, monkeypatch, capsys) -> None:
    profile = results.parent / "profile"
    write_text(profile / "config.yaml", 'set-resources: {mt: {mem_mb: 2000 * attempt}, generate: {mem_mb: "1000*attempt"}}')
    assert granted(profile) == (None, {"mt": 2000.0, "generate": 1000.0})
    monkeypatch.setattr("sys.argv", ["memory", str(results), "--profile", str(profile)])
    assert memory.main() == 0 and "too little" in capsys.readouterr().out
    write_text(profile / "config.yaml", "set-resources: {mt: {mem_mb: input.size_mb}}")
    assert memory.main() == 2
    assert capsys.readouterr().err == (
        f"benchmarks: error: {profile}/config.yaml: mem_mb 'input.size_mb' is neither a number nor one times attempt\n"
    )


def test_every_benchmark_of_the_rules_is_known_and_of_one_rule() -> None:
    text = "\n".join(path.read_text() for path in RULES.glob("*.smk"))
    named = patterns()
    # Policies that train together are made by a rule without a name of its own, in the folder of those that train alone.
    assert len(named) == len(re.findall(r"^ +benchmark:$", text, re.MULTILINE)) - 1 > 15
    for name in ("reward/P1A", "users/models/dpo", "users/pairs", "judge/gold", "mt", "backbone", "ppo/P1A+P2A"):
        assert sum(bool(pattern.fullmatch(name)) for pattern in named.values()) == (name != "mt"), name


def test_the_default_profile_names_rules_that_there_are() -> None:
    default, own = granted(Path(__file__).parent.parent.parent / "workflow" / "profiles" / "default")
    text = "\n".join(path.read_text() for path in RULES.glob("*.smk"))
    assert default is not None and own
    assert set(own) <= set(re.findall(r"^rule (\w+):", text, re.MULTILINE))

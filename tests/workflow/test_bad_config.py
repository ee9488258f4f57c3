"""Claims about configurations that no job may ever see: Snakemake ends before there is a DAG."""

import pytest

pytestmark = pytest.mark.workflow

BAD = {
    "unknown key": ("ppo: {learning_rat: 1}", "ppo.learning_rat: unknown key; remove it or see config/config.yaml"),
    "wrong type": ("ppo: {updates: many}", "ppo.updates: Input should be a valid integer"),
    "unknown preference": ("preferences: [P1A, P7C]", "preferences: preference 'P7C' is unknown; choose from P1A"),
    "no adapter": ("preferences: [P1A, P2A]", "combination_preferences: P1B is not among preferences"),
    "no soup": ("soup: {weights: {P3D: 1.0}}", "soup.weights: P3D is not among combination_preferences"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_setting_ends_snakemake_with_2_and_one_line(clean, snakemake, tmp_path, name):
    text, message = BAD[name]
    (tmp_path / "bad.yaml").write_text(text)
    done = snakemake(clean, "--configfile", str(tmp_path / "bad.yaml"))
    said = [line for line in (done.stdout + done.stderr).splitlines() if "error" in line.lower()]
    assert done.returncode == 2
    assert len(said) == 1 and said[0].startswith(f"rlphf: error: configuration: {message}")
    assert "Traceback" not in done.stderr and "Building DAG" not in done.stderr
    assert not (clean / "results").exists()


def test_bad_setting_on_the_command_line_is_refused_alike(clean, snakemake):
    done = snakemake(clean, "--config", "seed=soon")
    assert done.returncode == 2
    assert "rlphf: error: configuration: seed: Input should be a valid integer" in done.stderr

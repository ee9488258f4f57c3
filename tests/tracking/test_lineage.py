import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rlphf.cli import main
from rlphf.errors import InputError
from rlphf.files import sha256, write_json
from rlphf.soup.adapter import CONFIG, WEIGHTS
from rlphf.soup.recipe import make_recipe, write_recipe
from rlphf.tracking.lineage import lineage, walk
from rlphf.tracking.record import METRICS, RECORD, step
from rlphf.tracking.steps import end_workflow, start_workflow

RESULTS = Path("results/small")
FIGURE = RESULTS / "figures/methods.png"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small experiment: raw pairs, a reward model, two policies, a soup that the notebook does not draw, a table, a figure."""
    monkeypatch.chdir(tmp_path)
    raw, notebook = write(Path("raw/pairs.jsonl"), "{}\n"), write(Path("notebooks/results.ipynb"), "{}")
    start_workflow(RESULTS, "small", "abc")
    seed = RESULTS / "seed-7"
    config = write(seed / "config.yaml", "seed: 7\n")
    with step("data", seed / "data", inputs={"raw/pairs.jsonl": raw}) as run:
        run.output(write(seed / "data/pairs.parquet", "pairs"))
    for name in ("P1A", "P2A"):
        with step("ppo", seed / "ppo" / name, inputs={"pairs": seed / "data/pairs.parquet"}) as run:
            write(seed / "ppo" / name / "adapter/adapter_config.json", "{}")
            write(seed / "ppo" / name / "adapter/adapter_model.safetensors", name)
            run.log({"kl": 1.0}, step=1)
            run.output(seed / "ppo" / name / "adapter")
    policies = {name: seed / "ppo" / name / "adapter" for name in ("P1A", "P2A")}
    with step("soups", seed / "soups", inputs=policies) as run:
        run.output(write(seed / "soups/P1A-P2A/adapter_model.safetensors", "soup").parent)
    with step("tables", RESULTS / "tables", inputs={"ppo/P1A": seed / f"ppo/P1A/{METRICS}", **policies, "config": config}) as run:
        run.output(write(RESULTS / "tables/methods.csv", "1\n"))
    with step(
        "figures results", RESULTS / "figures/results", inputs={"notebook": notebook, "methods": RESULTS / "tables/methods.csv"}
    ) as run:
        run.output(write(FIGURE, "picture"))
    end_workflow(RESULTS, "finished")
    return tmp_path


def tree(path: Path | str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["track", "lineage", str(path)]) == 0
    return capsys.readouterr().out.splitlines()


def short(path: Path | str) -> str:
    return sha256(path)[:12]


def test_a_figure_is_traced_to_the_raw_files(capsys):
    data, policy = RESULTS / "seed-7/data/pairs.parquet", RESULTS / "seed-7/ppo"
    metrics, adapters = policy / "P1A" / METRICS, {name: policy / name / "adapter" for name in ("P1A", "P2A")}
    assert tree(FIGURE, capsys) == [
        f"figures results  {FIGURE}  {short(FIGURE)}  same",
        f"  tables  results/small/tables/methods.csv  {short(RESULTS / 'tables/methods.csv')}  same",
        f"    ppo  {adapters['P1A']}  {short(adapters['P1A'])}  same",
        f"      data  {data}  {short(data)}  same",
        f"        raw  raw/pairs.jsonl  {short('raw/pairs.jsonl')}  same",
        f"    ppo  {adapters['P2A']}  {short(adapters['P2A'])}  same",
        f"      data  {data}  {short(data)}  same  (see above)",
        f"    no record  results/small/seed-7/config.yaml  {short(RESULTS / 'seed-7/config.yaml')}  same",
        f"    ppo  {metrics}  {short(metrics)}  same  (see above)",
        f"  raw  notebooks/results.ipynb  {short('notebooks/results.ipynb')}  same",
        "5 steps, 2 raw; files and folders: 9 same, 0 changed, 0 missing",
    ]


def test_it_says_what_has_changed_and_what_is_gone(capsys):
    write(Path("raw/pairs.jsonl"), "{} \n")
    (RESULTS / "seed-7/ppo/P2A/adapter/adapter_config.json").write_text("{ }")
    shutil.rmtree(RESULTS / "seed-7/ppo/P1A/adapter")
    found = {line.split()[-3]: line.split()[-1] for line in tree(FIGURE, capsys)[:-1] if "see above" not in line}
    changed = {path for path, state in found.items() if state == "changed"}
    assert changed == {"raw/pairs.jsonl", "results/small/seed-7/ppo/P2A/adapter"}
    assert {path for path, state in found.items() if state == "missing"} == {"results/small/seed-7/ppo/P1A/adapter"}
    FIGURE.unlink()
    assert tree(FIGURE, capsys)[0].endswith("  missing")


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("seed-7/soups/P1A-P2A", "soups  results/small/seed-7/soups/P1A-P2A"),
        ("seed-7/ppo/P1A/adapter/adapter_model.safetensors", "ppo  results/small/seed-7/ppo/P1A/adapter"),
        ("seed-7/ppo/P1A", "ppo  results/small/seed-7/ppo/P1A/adapter"),
        (f"seed-7/ppo/P1A/{METRICS}", "ppo  results/small/seed-7/ppo/P1A/adapter"),
        ("tables", "tables  results/small/tables/methods.csv"),
        ("figures", "figures results  results/small/figures/methods.png"),
        ("seed-7", "data  results/small/seed-7/data/pairs.parquet"),
    ],
)
def test_any_output_and_any_folder_of_outputs_has_a_lineage(path, first, capsys):
    lines = tree(RESULTS / path, capsys)
    assert lines[0].startswith(f"{first}  ")
    assert any(line.split()[:2] == ["raw", "raw/pairs.jsonl"] for line in lines)


def test_results_that_were_moved_are_traced_where_they_are_now(results, monkeypatch, capsys):
    before = tree(FIGURE, capsys)
    shutil.move(results, results.with_name("moved"))
    monkeypatch.chdir(results.with_name("moved") / "notebooks")
    after = tree(Path("..") / FIGURE, capsys)
    assert [line.split()[-2:] for line in after] == [line.split()[-2:] for line in before]
    results.with_name("moved").rename(results)


def test_a_later_start_that_did_not_finish_leaves_the_lineage_of_the_files_that_are_there(capsys):
    before = tree(FIGURE, capsys)
    with pytest.raises(RuntimeError), step("ppo", RESULTS / "seed-7/ppo/P1A"):
        raise RuntimeError
    assert [line for line in tree(FIGURE, capsys) if METRICS not in line] == [line for line in before if METRICS not in line][
        :-1
    ] + ["5 steps, 2 raw; files and folders: 8 same, 1 changed, 0 missing"]


def test_a_step_outside_of_an_experiment_is_traced_into_it(capsys):
    with step("fit soup", "mine", inputs={"ppo/P1A": RESULTS / "seed-7/ppo/P1A/adapter"}) as run:
        run.output(write(Path("mine/adapter_model.safetensors"), "mine"))
    kinds = [line.split("  ")[-3 - ("above" in line)] for line in tree("mine/adapter_model.safetensors", capsys)[:-1]]
    assert [Path(kind).name for kind in kinds] == ["adapter_model.safetensors", "adapter", "pairs.parquet", "pairs.jsonl"]


def test_a_soup_of_ones_own_is_traced_to_its_adapters_raw_files(capsys):
    policies = {name: RESULTS / f"seed-7/ppo/{name}/adapter" for name in ("P1A", "P2A")}
    for folder in policies.values():
        with step("ppo", folder.parent, inputs={"pairs": RESULTS / "seed-7/data/pairs.parquet"}) as run:
            state = {f"base_model.model.q_proj.lora_{factor}.weight": torch.ones(2, 2) for factor in "AB"}
            save_file(state, folder / WEIGHTS)
            lora = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
            write_json(folder / CONFIG, lora | {"base_model_name_or_path": "backbone"})
            run.output(folder)
    write_recipe(make_recipe(dict.fromkeys(policies, 0.5), {name: str(path) for name, path in policies.items()}), ".")
    assert main(["soup", "merge", "--recipe", "recipe.yaml", "--out", "mine"]) == 0
    lines = tree("mine/adapter_model.safetensors", capsys)
    parts = [line.strip().split("  ") for line in lines[:-1] if "see above" not in line]
    assert [(kind, Path(path).name) for kind, path, *_ in parts] == [
        ("soup merge", "adapter_model.safetensors"),
        *(("ppo", "adapter"), ("data", "pairs.parquet"), ("raw", "pairs.jsonl"), ("ppo", "adapter")),
        ("raw", "recipe.yaml"),
    ]
    assert lines[-1].endswith("0 changed, 0 missing")


def test_json_has_all_of_it(capsys):
    assert main(["track", "lineage", str(FIGURE), "--json", "out/lineage.json"]) == 0
    found = json.loads(Path("out/lineage.json").read_text())
    assert found["path"] == str(FIGURE)
    (figure,) = found["outputs"]
    assert (figure["sha256"], figure["state"]) == (sha256(FIGURE), "same")
    assert sorted(made["step"] for made in found["steps"].values()) == ["data", "figures results", "ppo", "ppo", "tables"]
    drawn = found["steps"][figure["made_by"]]
    assert drawn["record"] == "results/small/figures/results/record.json"
    table = drawn["inputs"]["methods"]
    assert found["steps"][table["made_by"]]["outputs"] == [table]
    assert drawn["inputs"]["notebook"]["made_by"] is None
    assert found["others"]["raw/pairs.jsonl"] == {"sha256": sha256("raw/pairs.jsonl"), "state": "same", "kind": "raw"}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("raw/pairs.jsonl", "raw/pairs.jsonl: no record of a finished step names it as an output"),
        ("results/small/seed-7/config.yaml", "results/small/seed-7/config.yaml: no record of a finished step names it"),
        ("nowhere/methods.csv", "nowhere/methods.csv: no such file, and no record names it"),
    ],
)
def test_what_no_record_knows_ends_with_2_and_one_line(path, line, capsys):
    assert main(["track", "lineage", path, "--json", "lineage.json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith(f"rlphf: error: {line}") and shown.err.count("\n") == 1
    assert not Path("lineage.json").exists()


@pytest.mark.parametrize(
    "record",
    ["{", "[]", '{"id": 1, "step": 2, "status": "finished", "inputs": [], "outputs": {"results/small/tables/methods.csv": {}}}'],
)
def test_a_broken_record_leaves_a_gap_and_nothing_else(record, capsys):
    (RESULTS / "tables" / RECORD).write_text(record)
    lines = tree(FIGURE, capsys)
    assert lines[1].startswith("  no record  results/small/tables/methods.csv")
    assert len(lines) == 4


def test_records_that_name_each_other_end():
    for name, other in (("a", "b"), ("b", "a")):
        with step(name, RESULTS / name) as run:
            run.output(write(RESULTS / name / "out", name))
        record = json.loads((RESULTS / name / RECORD).read_text())
        record["inputs"] = {"it": {"path": f"{RESULTS}/{other}/out", "sha256": "0"}}
        (RESULTS / name / RECORD).write_text(json.dumps(record))
    assert [node.kind for node in walk(lineage(RESULTS / "a/out"))] == ["a", "b", "a"]


def test_a_pipe_is_not_read():
    with step("a", RESULTS / "a", inputs={"raw": Path("raw/pairs.jsonl")}) as run:
        run.output(write(RESULTS / "a/out", "a"))
    Path("raw/pairs.jsonl").unlink()
    os.mkfifo("raw/pairs.jsonl")
    assert [node.state for node in walk(lineage(RESULTS / "a/out"))] == ["same", "missing"]
    with pytest.raises(InputError):
        lineage(Path("raw/pairs.jsonl"))

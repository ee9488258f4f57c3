"""A person's own soup, from a file of pairs to a folder that PEFT loads; and the lines that bad files end with."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file

from rlphf.cli import main
from rlphf.files import read_json, sha256, write_json
from rlphf.lm.adapters import add_policy, write_policy
from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.seeds import derive
from rlphf.settings import Lora
from rlphf.soup.merge import merge
from rlphf.soup.recipe import read_recipe
from rlphf.users import weights as w
from rlphf.users.differences import differences

NAMES = ["P1A", "P1B", "P3A"]
ANSWERS = ["Yes, bees do it.", "No.", "Cats are tired. They sleep.", "Some do, and some do not.", "Rivers run to the sea."]
PROMPTS = ["Bees?", "Why do cats sleep?", "Tell me about rivers.", "What is rain?", "Explain salt."]
FILES = {"adapter_model.safetensors", "adapter_config.json", "adapter.json", "recipe.yaml", "weights.json", "README.md"}


@pytest.fixture(scope="module")
def models(tiny_backbone: Path, make_reward: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seed's folder with reward models and policies of three preferences."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES):
        shutil.copytree(make_reward(seed=seed, preference=name), folder / "reward" / name / "adapter")
        policy = add_policy(load_backbone(tiny_backbone)[0], Lora(rank=2, alpha=4), seed=1)
        torch.manual_seed(seed)
        for key, parameter in policy.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.3)
        about = {"preference": name, "backbone_sha256": backbone_sha256(tiny_backbone)}
        write_policy(policy, folder / "ppo" / name / "adapter", str(tiny_backbone), about)
    return folder


@pytest.fixture
def rows(models: Path, tiny_backbone: Path) -> list[dict]:
    """Twenty pairs of a person who decides by P3A alone."""
    pairs = [
        {"prompt": prompt, "chosen": one, "rejected": other}
        for prompt in PROMPTS
        for one, other in zip(ANSWERS[:4], ANSWERS[1:], strict=True)
    ]
    wanted = differences(pairs, {"P3A": models / "reward" / "P3A" / "adapter"}, tiny_backbone)[:, 0] > 0
    turned = [{"prompt": p["prompt"], "chosen": p["rejected"], "rejected": p["chosen"]} for p in pairs]
    return [pair if right else other for pair, other, right in zip(pairs, turned, wanted, strict=True)]


@pytest.fixture
def workplace(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the models and a configuration."""
    shutil.copytree(models, tmp_path / "models")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(**soup) -> dict:
    return {"experiment": "tiny", "preferences": NAMES, "combination_preferences": NAMES, "soup": soup}


def fitted(backbone: Path, rows: list[dict] | str, out: str = "mine", name: str = "mine.jsonl") -> int:
    """Run the command on a file of `rows`; return its exit status."""
    Path(name).write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
    command = ["users", "fit-soup", "--pairs", name, "--config", "config.yaml", "--backbone", str(backbone)]
    return main([*command, "--models", "models", "--out", out])


def test_the_soup_leans_to_what_the_person_chose_by(workplace: Path, tiny_backbone: Path, rows: list[dict], capsys) -> None:
    assert fitted(tiny_backbone, rows) == 0
    assert capsys.readouterr().out == ""
    recipe, known = read_recipe("mine/recipe.yaml"), read_json("mine/weights.json")
    assert known["n"] == 20 and "P3A" in known["asked"] and set(known["preferences"]) == set(NAMES)
    share = {name: row["share"] for name, row in known["preferences"].items()}
    assert share["P3A"] > 0.5 and sum(share.values()) == pytest.approx(1)
    kept = {name: value for name, value in share.items() if value >= 0.01}
    assert recipe.weights == pytest.approx({name: value / sum(kept.values()) for name, value in kept.items()})
    assert sum(recipe.weights.values()) == pytest.approx(1, abs=1e-12)
    assert recipe.rule == "delta" and recipe.paths["P3A"] == "models/ppo/P3A/adapter"


def test_weights_are_those_of_the_formulas(workplace: Path, tiny_backbone: Path, rows: list[dict]) -> None:
    fitted(tiny_backbone, rows)
    rewards = {name: Path("models/reward", name, "adapter") for name in NAMES}
    posterior = w.fit(differences(rows, rewards, tiny_backbone), NAMES, 0.5)
    draws = posterior.draws(w.DRAWS, derive(1103, "fit soup"))
    known = read_json("mine/weights.json")
    for name, row in w.described(posterior, draws).items():
        assert known["preferences"][name] == pytest.approx(row, abs=1e-9)
    assert known["asked"] == w.asked(posterior, draws)


def test_the_folder_is_a_soup_that_its_recipe_makes_and_peft_loads(workplace: Path, tiny_backbone: Path, rows) -> None:
    fitted(tiny_backbone, rows)
    assert {path.name for path in Path("mine").iterdir()} == FILES | {"record.json", "metrics.jsonl"}
    assert read_json("mine/adapter.json") == {"kind": "soup", "backbone_sha256": backbone_sha256(tiny_backbone)}
    again, state = merge(read_recipe("mine/recipe.yaml")), load_file("mine/adapter_model.safetensors")
    for module, (a, b) in again.modules.items():
        assert torch.equal(state[f"{module}.lora_A.weight"], a) and torch.equal(state[f"{module}.lora_B.weight"], b)
    tokens = torch.arange(3, 11)[None]
    base = load_backbone(tiny_backbone)[0]
    with torch.no_grad():
        plain = base(tokens).logits
        moved = PeftModel.from_pretrained(base, "mine")(tokens).logits
    assert (moved - plain).abs().max() > 1e-3
    record = read_json("mine/record.json")
    assert record["status"] == "finished" and {Path(path).name for path in record["outputs"]} == FILES
    assert record["inputs"].keys() >= {"pairs", "backbone", "reward/P1A", "ppo/P3A"} and record["params"]["prior"] == 0.5


def test_rule_and_rank_are_the_configurations(workplace: Path, tiny_backbone: Path, rows: list[dict]) -> None:
    Path("config.yaml").write_text(yaml.safe_dump(settings(svd_rank=2)))
    fitted(tiny_backbone, rows)
    assert read_recipe("mine/recipe.yaml").svd_rank == 2 and read_json("mine/adapter_config.json")["r"] == 2


def test_the_same_pairs_give_the_same_bytes_and_replace_an_older_soup(workplace: Path, tiny_backbone: Path, rows) -> None:
    fitted(tiny_backbone, rows, "one")
    fitted(tiny_backbone, rows[:3], "two")
    assert sha256("one/weights.json") != sha256("two/weights.json")
    fitted(tiny_backbone, rows, "two")
    assert all(sha256(f"one/{name}") == sha256(f"two/{name}") for name in FILES)


def test_a_table_of_pairs_may_be_csv_and_have_other_columns(workplace: Path, tiny_backbone: Path) -> None:
    text = "user,prompt,chosen,rejected\nanna,Bees?,Yes.,No.\nanna,Rain?,No.,Yes.\n"
    assert fitted(tiny_backbone, text, name="mine.csv") == 0
    assert read_json("mine/weights.json")["n"] == 2


def refused(capsys, backbone: Path, rows: list[dict] | str) -> str:
    """The one line that the command ends with, having written nothing."""
    assert fitted(backbone, rows) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not Path("mine").exists()
    return line.removeprefix("rlphf: error: ")


SYSTEM = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Bees?"}]
GOOD = {"prompt": "Bees?", "chosen": "Yes.", "rejected": "No."}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"rejected": " Yes. "}, ", field rejected: is the same text as chosen; correct it"),
        ({"chosen": " "}, ", field chosen: is empty; correct it"),
        ({"prompt": ""}, ", field prompt: is empty; correct it"),
        ({"rejected": None}, ", field rejected: expected text, got null; correct it"),
        ({"prompt": SYSTEM}, ": has a system message, which prompts do not hold; correct it"),
    ],
)
def test_a_bad_pair_is_named_by_file_line_and_field(workplace: Path, tiny_backbone: Path, capsys, second, message) -> None:
    assert refused(capsys, tiny_backbone, [GOOD, GOOD | second]) == f"mine.jsonl, line 2{message}"


def test_a_file_that_is_empty_broken_or_not_there_is_named(workplace: Path, tiny_backbone: Path, capsys) -> None:
    empty = "mine.jsonl: holds no pairs; write one per line, with prompt, chosen and rejected"
    assert refused(capsys, tiny_backbone, "") == empty
    assert refused(capsys, tiny_backbone, '{"prompt": \n').startswith("mine.jsonl, line 1: is not JSON")
    os.remove("mine.jsonl")
    command = ["users", "fit-soup", "--pairs", "none.jsonl", "--config", "config.yaml", "--backbone", str(tiny_backbone)]
    assert main([*command, "--models", "models", "--out", "mine"]) == 2
    assert "none.jsonl: no such file" in capsys.readouterr().err and not Path("mine").exists()


def test_models_that_do_not_fit_are_refused_before_anything_is_written(workplace: Path, tiny_backbone: Path, capsys) -> None:
    about = Path("models/reward/P3A/adapter/adapter.json")
    write_json(about, read_json(about) | {"backbone_sha256": "other"})
    assert "models/reward/P3A/adapter: made for another backbone" in refused(capsys, tiny_backbone, [GOOD])
    shutil.rmtree("models/ppo/P1B")
    assert "models/ppo/P1B/adapter: there is no such adapter folder" in refused(capsys, tiny_backbone, [GOOD])


def test_a_folder_that_is_no_soup_is_left_alone(workplace: Path, tiny_backbone: Path, capsys) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    assert fitted(tiny_backbone, [GOOD]) == 2
    assert "mine: exists and is no soup; choose another folder, or remove it" in capsys.readouterr().err
    assert fitted(tiny_backbone, [GOOD], out="models/ppo/P1A/adapter") == 2
    assert "is the folder of adapter P1A" in capsys.readouterr().err
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]


def test_a_start_that_failed_can_be_repeated(workplace: Path, tiny_backbone: Path, monkeypatch) -> None:
    from rlphf.users import fit_soup

    def broken(*_):
        raise RuntimeError("broken on purpose")

    with monkeypatch.context() as patched:
        patched.setattr(fit_soup, "fit", broken)
        with pytest.raises(RuntimeError):
            fitted(tiny_backbone, [GOOD])
    assert {path.name for path in Path("mine").iterdir()} == {"record.json", "metrics.jsonl"}
    assert fitted(tiny_backbone, [GOOD]) == 0
    assert FILES <= {path.name for path in Path("mine").iterdir()}

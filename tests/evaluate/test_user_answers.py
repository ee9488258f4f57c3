"""What each method answers users, and how it tells their pairs, against plain passes on one text after the other."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from peft import PeftModel
from tests.users.serving import PEOPLE, chosen, gap, greedy, questions

from rlphf.cli import main
from rlphf.data.people import PEOPLE as COLUMNS
from rlphf.data.records import PAIRS, PROMPTS
from rlphf.errors import InputError
from rlphf.evaluate.user_answers import Served, answers_step, histories, servings, spread
from rlphf.evaluate.users import ordered_correctly
from rlphf.files import read_json, read_parquet, sha256, write_json, write_parquet
from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.preferences import instruction
from rlphf.users.model import load_user_model
from rlphf.users.records import ANSWERS, SCORED
from rlphf.users.soups import user_soups_step

TEXTS = {row["id"]: row["text"] for row in PEOPLE}
HELD = [row for row in chosen() if row["split"] == "test"]
# Two of the five test prompts, evenly spread.
ASKED = [questions()[2], questions()[4]]


@pytest.fixture(scope="module")
def backbone(seed_folder: Path) -> Path:
    return seed_folder / "backbone" / "model"


@pytest.fixture(scope="module")
def answered(seed_folder: Path, backbone: Path, user_models, tmp_path_factory) -> Callable[..., Path]:
    """Return the folder in which a method has answered, with the models of `model`, or the backbone."""
    made: dict[str, Path] = {}

    def answer(method: str, model: str | None = None) -> Path:
        if method not in made:
            made[method] = tmp_path_factory.mktemp(method) / "out"
            answers_step(*inputs(seed_folder, method), backbone, user_models(model) if model else None, made[method])
        return made[method]

    return answer


def inputs(folder: Path, method: str) -> tuple[Path, str, Path, Path, Path]:
    pairs = folder / "users" / "pairs"
    return (
        folder / "config.yaml",
        method,
        folder / "prompts" / "prompts.parquet",
        pairs / "users.parquet",
        pairs / "pairs.parquet",
    )


def responses(folder: Path) -> dict[int, list[str]]:
    """What each user was answered, prompt by prompt; two greedy samples are alike."""
    rows = read_parquet(folder / "answers.parquet", ANSWERS).to_pylist()
    assert [(row["user"], row["prompt_id"], row["sample"]) for row in sorted(rows, key=lambda row: row["user"])] == [
        (user, row["id"], sample) for user in TEXTS for row in ASKED for sample in range(2)
    ]
    found = {user: [row["response"] for row in rows if row["user"] == user] for user in TEXTS}
    assert all(texts[::2] == texts[1::2] for texts in found.values())
    return {user: texts[::2] for user, texts in found.items()}


def margins(folder: Path, column: str = "own") -> list[float]:
    rows = read_parquet(folder / "scores.parquet", SCORED).to_pylist()
    assert [(row["id"], row["user"], row["split"]) for row in rows] == [(row["id"], row["user"], "test") for row in HELD]
    return [row[column] for row in rows]


# Who is answered by what.


def test_a_user_is_answered_by_what_the_method_has_for_all_or_for_the_user(tmp_path: Path) -> None:
    users = [1, 2, 3]
    assert servings("sft_prompted", users, tmp_path) == [Served(users, None, None)]
    assert servings("pooled", users, tmp_path) == [Served(users, tmp_path / "adapter", None)]
    assert servings("pdpo_both", users, tmp_path) == [Served(users, tmp_path / "adapter", tmp_path)]
    assert servings("psoups_declared", users, tmp_path) == [Served([user], tmp_path / str(user), None) for user in users]
    for user in (2, 3):
        (tmp_path / "adapters" / str(user)).mkdir(parents=True)
    # Nothing was trained for user 1.
    own = [Served([user], tmp_path / "adapters" / str(user), None) for user in (2, 3)]
    assert servings("per_user", users, tmp_path) == [*own, Served([1], None, None)]
    assert servings("per_user", [2, 3], tmp_path) == own


def test_prompts_are_spread_evenly_or_all_taken() -> None:
    rows = [{"id": i} for i in range(10)]
    assert [row["id"] for row in spread(rows, 4)] == [0, 2, 5, 7]
    assert spread(rows, 10) == spread(rows, 99) == rows and spread(rows, 0) == []


def test_a_history_shows_a_users_own_first_training_pairs_and_no_others() -> None:
    told = {"prompt": "Q", "chosen": "Y", "rejected": "N"}
    rows = [
        {**told, "user": 1, "split": "test"},
        *({**told, "prompt": f"Q{i}", "user": i % 2, "split": "train"} for i in range(6)),
    ]
    wanted = [f"I asked: Q{i} I liked: Y I did not like: N" for i in range(6)]
    assert histories(rows, 2) == {1: f"{wanted[1]} {wanted[3]}", 0: f"{wanted[0]} {wanted[2]}"}


# What it answers, and how it orders pairs.


def test_the_backbone_told_of_no_one_prefers_nothing_and_answers_all_alike(answered, backbone: Path) -> None:
    assert margins(answered("sft")) == margins(answered("sft"), "generic") == [0.0] * len(HELD)
    rows = read_parquet(answered("sft") / "scores.parquet", SCORED).to_pylist()
    told = ordered_correctly(rows, {row["id"]: row["prompt"] for row in HELD}, {row["id"]: row["group"] for row in PEOPLE})
    assert {pair[0] for pair in told.values()} == {0.5} and len(told) == len(HELD)
    base, tokenizer = load_backbone(backbone)
    wanted = [greedy(base, tokenizer, row["prompt"]) for row in ASKED]
    assert responses(answered("sft")) == dict.fromkeys(TEXTS, wanted)


@pytest.mark.parametrize(("method", "model"), [("sft_prompted", None), ("in_context", None), ("dpo_prompted", "dpo")])
def test_a_prompt_that_tells_of_the_user_is_measured_against_the_bare_one(
    answered, user_models, backbone: Path, method: str, model: str | None
) -> None:
    base, tokenizer = load_backbone(backbone)
    texts = histories(chosen(), 2) if method == "in_context" else TEXTS
    told = [f"{texts[row['user']]} {row['prompt']}" if texts.get(row["user"]) else row["prompt"] for row in HELD]
    bare = [gap(base, tokenizer, row["prompt"], row) for row in HELD]
    policy = PeftModel.from_pretrained(base, user_models(model) / "adapter").eval() if model else base
    own = [gap(policy, tokenizer, prompt, row) for prompt, row in zip(told, HELD, strict=True)]
    wanted = [a - b for a, b in zip(own, bare, strict=True)]
    assert margins(answered(method, model)) == pytest.approx(wanted, abs=1e-3)
    assert max(map(abs, wanted)) > 0.05
    # Of whom nothing is told, the backbone prefers nothing, and no rounding says otherwise.
    untold = [k for k, (row, prompt) in enumerate(zip(HELD, told, strict=True)) if prompt == row["prompt"]]
    if model is None:
        assert [margins(answered(method, model))[k] for k in untold] == [0.0] * len(untold)
        assert untold or method == "sft_prompted"
    found = responses(answered(method, model))
    assert found[2] == [greedy(policy, tokenizer, f"{texts[2]} {row['prompt']}") for row in ASKED]
    # User 3 has nothing to say.
    assert found[3] == [greedy(policy, tokenizer, row["prompt"]) for row in ASKED]


def test_a_user_model_answers_with_soft_tokens_and_has_told_pairs_in_training(answered, user_models, backbone: Path) -> None:
    folder = user_models("individual")
    out = answered("pdpo_individual", "individual")
    trained = {row["id"]: row for row in read_parquet(folder / "scores.parquet", SCORED).to_pylist()}
    for column in ("own", "generic"):
        assert margins(out, column) == [trained[row["id"]][column] for row in HELD]
    base, tokenizer = load_backbone(backbone)
    users = load_user_model(folder, backbone_sha256(backbone))
    policy = PeftModel.from_pretrained(base, folder / "adapter").eval()
    found = responses(out)
    for user, texts in found.items():
        assert texts == [greedy(policy, tokenizer, row["prompt"], users([user])[0].detach()) for row in ASKED]
    # Opposite users are answered differently, and whoever was not trained as the generic user.
    assert found[1] != found[2] and found[3] == found[8] == found[9]


def test_who_has_an_adapter_is_answered_by_it_and_others_by_the_backbone(answered, user_models, backbone: Path) -> None:
    folder, out = user_models("per_user"), answered("per_user", "per_user")
    assert margins(out) == [row["own"] for row in read_parquet(folder / "scores.parquet", SCORED).to_pylist()]
    base, tokenizer = load_backbone(backbone)
    wanted = [greedy(base, tokenizer, row["prompt"]) for row in ASKED]
    found = responses(out)
    assert found[3] == found[8] == found[9] == wanted
    policy = PeftModel.from_pretrained(base, folder / "adapters" / "2").eval()
    assert found[2] == [greedy(policy, tokenizer, row["prompt"]) for row in ASKED] != wanted


def test_a_reward_model_tells_pairs_and_answers_nothing(answered, user_models) -> None:
    out = answered("prm", "prm")
    assert len(read_parquet(out / "answers.parquet", ANSWERS)) == 0
    assert margins(out) == [row["own"] for row in read_parquet(user_models("prm") / "scores.parquet", SCORED).to_pylist()]


@pytest.fixture
def soups(seed_folder: Path, backbone: Path, tmp_path: Path, monkeypatch) -> Path:
    """The folder of all users' declared soups."""
    monkeypatch.chdir(seed_folder)
    config, _, _, users, pairs = inputs(seed_folder, "")
    user_soups_step(config, users, pairs, backbone, seed_folder, tmp_path / "soups")
    return tmp_path / "soups" / "declared"


def test_a_soup_is_asked_for_its_preferences_as_its_policies_were(seed_folder, soups: Path, backbone: Path, tmp_path) -> None:
    answers_step(*inputs(seed_folder, "psoups_declared"), backbone, soups, tmp_path / "out")
    assert margins(tmp_path / "out") == [row["own"] for row in read_parquet(soups / "scores.parquet", SCORED).to_pylist()]
    base, tokenizer = load_backbone(backbone)
    policy = PeftModel.from_pretrained(base, soups / "2").eval()
    wanted = [greedy(policy, tokenizer, instruction(row["prompt"], ["P1B", "P3A"])) for row in ASKED]
    assert responses(tmp_path / "out")[2] == wanted


# The step.


def test_a_user_who_was_not_trained_is_an_error_where_the_settings_say_so(
    seed_folder: Path, backbone: Path, user_models, tmp_path: Path
) -> None:
    settings = yaml.safe_load((seed_folder / "config.yaml").read_text())
    settings["users"] = {**settings.get("users", {}), "unknown": "error"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    _, *others = inputs(seed_folder, "pdpo_individual")
    with pytest.raises(InputError, match="user 3 was not trained"):
        answers_step(tmp_path / "config.yaml", *others, backbone, user_models("individual"), tmp_path / "out")
    assert not (tmp_path / "out" / "answers.parquet").exists()


def test_without_prompts_pairs_alone_are_told(seed_folder: Path, backbone: Path, user_models, tmp_path: Path) -> None:
    text = (seed_folder / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("prompts: 2", "prompts: 0"))
    _, *others = inputs(seed_folder, "pdpo_individual")
    answers_step(tmp_path / "config.yaml", *others, backbone, user_models("individual"), tmp_path / "out")
    assert len(read_parquet(tmp_path / "out" / "answers.parquet", ANSWERS)) == 0 and len(margins(tmp_path / "out")) == len(HELD)


def test_the_same_step_gives_the_same_bytes(seed_folder: Path, answered, user_models, backbone: Path, tmp_path: Path) -> None:
    first = answered("dpo_prompted", "dpo")
    answers_step(*inputs(seed_folder, "dpo_prompted"), backbone, user_models("dpo"), tmp_path / "out")
    for name in ("answers.parquet", "scores.parquet"):
        assert sha256(first / name) == sha256(tmp_path / "out" / name)
    record = read_json(first / "record.json")
    assert record["status"] == "finished" and len(record["outputs"]) == 2 and record["inputs"].keys() >= {"models", "backbone"}


@pytest.fixture
def refused(seed_folder: Path, backbone: Path, tmp_path: Path, capsys) -> Callable[..., str]:
    """Return the one line that the step ends with, having written nothing but its record; `changed` are other files."""

    def line(method: str, models: Path | None = None, **changed: Path) -> str:
        config, _, prompts, users, pairs = inputs(seed_folder, method)
        files = {"config": config, "prompts": prompts, "users": users, "pairs": pairs, "backbone": backbone} | changed
        files |= {"models": models} if models else {}
        options = [part for name, path in files.items() for part in (f"--{name}", str(path))]
        capsys.readouterr()
        assert main(["users", "answer", "--method", method, *options, "--out", str(tmp_path / "refused")]) == 2
        *_, found = capsys.readouterr().err.splitlines()
        assert not list((tmp_path / "refused").glob("*.parquet"))
        return found.removeprefix("rlphf: error: ")

    return line


def test_models_that_are_not_there_or_of_another_backbone_are_refused(refused, user_models, soups: Path, tmp_path: Path) -> None:
    assert refused("dpo2").startswith("method 'dpo2' is unknown; choose from sft, ")
    assert "method 'dpo' does not answer by the backbone alone; give the folder" in refused("dpo")
    folder = tmp_path / "dpo"
    shutil.copytree(user_models("dpo"), folder)
    write_json(folder / "adapter" / "adapter.json", read_json(folder / "adapter" / "adapter.json") | {"backbone_sha256": "other"})
    assert refused("dpo", folder).startswith(f"{folder}/adapter: made for another backbone; train it again on this one, or")
    # A user without a soup is no one to pass over.
    shutil.rmtree(soups / "3")
    assert f"{soups}/3/adapter.json: cannot be read" in refused("psoups_declared", soups)


def test_tables_that_do_not_fit_are_refused(refused, user_models, seed_folder: Path, tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row for row in questions() if row["split"] == "train"], PROMPTS)
    write_parquet(tmp_path / "train.parquet", table)
    assert "the split 'test' is empty; nothing to evaluate on" in refused("sft", prompts=tmp_path / "train.parquet")
    write_parquet(tmp_path / "more.parquet", pa.Table.from_pylist([*chosen(), HELD[0] | {"id": "x"}], PAIRS))
    message = f"scores.parquet: pair x of {tmp_path}/more.parquet is not scored; train again"
    assert message in refused("dpo", user_models("dpo"), pairs=tmp_path / "more.parquet")
    write_parquet(tmp_path / "users.parquet", pa.Table.from_pylist([PEOPLE[0] | {"id": -1}], COLUMNS))
    assert "users.parquet: row 1, column id: is no user id" in refused("sft", users=tmp_path / "users.parquet")

"""What steps need: more for more rows, less in 4 bits, and settings that make a step fit are named."""

from inspect import signature
from typing import Any

import pytest
from transformers import LlamaConfig

from rlphf.config import Experiment, parse
from rlphf.derived import users_alone
from rlphf.errors import InputError
from rlphf.lm import reward_model
from rlphf.plan.memory import Shape, shape_of
from rlphf.plan.steps import REFERRED, SCORED, Need, Place, changed, fitting, needs
from rlphf.train import users as user_training

GPU, CPU = Place(on_gpu=True, prompt=64), Place(on_gpu=False, prompt=64)
RAW: dict[str, Any] = {"experiment": "test", "backbone": {"source": "path", "name": "some/model"}}
EVERYTHING = {"methods": ["vb", "rlhf", "pp", "mt", "pmorl", "psoups", "mod"], "judges": ["oracle", "gold"]}


@pytest.fixture(scope="module")
def shape() -> Shape:
    return shape_of(LlamaConfig(vocab_size=1000, hidden_size=512, intermediate_size=1376, num_hidden_layers=8))


def experiment(**more: Any) -> Experiment:
    return parse({**RAW, **more})


def need(experiment: Experiment, shape: Shape, place: Place, step: str) -> Need:
    (found,) = [one for one in needs(experiment, shape, place) if one.step == step]
    return found


def test_texts_and_pairs_of_a_pass_are_those_of_the_steps() -> None:
    assert (signature(reward_model.score).parameters["batch_size"].default, user_training.REFERRED) == (SCORED, REFERRED)


def test_every_step_with_a_model_is_there(shape: Shape) -> None:
    users = {"methods": ["sft", "pooled", "dpo", "pdpo_individual", "prm"]}
    found = [one.step for one in needs(experiment(evaluation=EVERYTHING, user_evaluation=users), shape, GPU)]
    assert found == [
        *("backbone", "rollouts", "reward per preference", "ppo per preference", "ppo pmorl", "mt", "generate", "judge gold"),
        *("users pooled", "users dpo", "users prm", "users answer"),
    ]
    assert "ppo pmorl" not in [one.step for one in needs(experiment(evaluation={"methods": ["vb"]}), shape, GPU)]


def test_where_rules_reward_no_pairs_are_made_and_no_reward_model_is_trained_or_lies_on_the_backbone(shape: Shape) -> None:
    six = ["P1A", "P1B", "P2A", "P2B", "P3A", "P3B"]
    apart = {"preferences": six, "user_evaluation": {"methods": []}, "evaluation": {"methods": ["vb", "psoups"], "front": []}}
    found = {one.step: one for one in needs(experiment(ppo={"reward": "rule"}, **apart), shape, GPU)}
    assert list(found) == ["backbone", "ppo per preference", "generate"]
    assert found["ppo per preference"].weights < need(experiment(**apart), shape, GPU, "ppo per preference").weights


def test_soups_of_users_and_new_users_are_there_where_the_workflow_has_them(shape: Shape) -> None:
    both = {"methods": ["pdpo_individual", "psoups_declared", "psoups_inferred"]}
    found = {one.step: one for one in needs(experiment(user_evaluation=both), shape, GPU)}
    assert list(found)[-4:] == ["users dpo", "users soups", "users answer", "users cold-start"]
    # All preferences' reward models lie on the backbone at once, and it is not trained in half precision.
    soups, cold = found["users soups"], found["users cold-start"]
    assert soups.weights == cold.weights > 4 * shape.parameters
    assert soups.weights - 4 * shape.parameters == 8 * (found["reward per preference"].trained // 4 - 4 * shape.width)
    assert cold.cache == found["users answer"].cache and cold.activations >= soups.activations
    less = changed(experiment(user_evaluation=both), "dpo.micro_batch_size", 4)
    assert need(less, shape, GPU, "users cold-start").total < cold.total
    for more in ({"population": {"unseen": 0}}, {"user_evaluation": {"methods": ["psoups_declared"]}}):
        steps = [one.step for one in needs(experiment(**{"user_evaluation": both, **more}), shape, GPU)]
        assert "users soups" in steps and "users cold-start" not in steps


def test_the_backbone_takes_room_in_a_mixture_that_it_is_part_of(shape: Shape) -> None:
    whole, part = (
        need(experiment(evaluation=EVERYTHING, soup={"weights": weights}), shape, GPU, "generate")
        for weights in ({}, {"P1A": 0.7})
    )
    assert part.cache == pytest.approx(whole.cache * 4 / 3)


def test_an_experiment_about_users_alone_is_its_models_and_answers(shape: Shape) -> None:
    users = {"user_data": {"source": "tldr", "path": "raw/tldr"}, "user_evaluation": {"methods": ["sft", "dpo"]}}
    lora = {"lora": {"targets": ["not_there"]}}
    alone = experiment(**users, backbone={"source": "hub", "name": "some/model"}, ppo=lora)
    assert users_alone(alone)
    assert [one.step for one in needs(alone, shape, GPU)] == ["backbone", "users dpo", "users answer"]


@pytest.mark.parametrize(
    "more",
    [
        # A backbone that may know the testbed's language, and a published one that is asked real questions.
        {"backbone": {"source": "path", "name": "some/model"}},
        {
            "backbone": {"source": "hub", "name": "some/model"},
            "prompts": {"source": "questions"},
            "annotator": {"kind": "reward_model", "model": "some/annotator"},
            "evaluation": {"judges": ["gold"]},
        },
    ],
)
def test_users_of_raw_data_beside_preferences_leave_these_in(shape: Shape, more: dict[str, Any]) -> None:
    users = {"user_data": {"source": "tldr", "path": "raw/tldr"}, "user_evaluation": {"methods": ["sft", "dpo"]}}
    steps = [one.step for one in needs(experiment(**users, **more), shape, GPU)]
    assert {"rollouts", "reward per preference", "ppo per preference", "generate", "users dpo"} <= set(steps)


@pytest.mark.parametrize("place", [GPU, CPU])
def test_reward_models_score_where_they_are_trained(shape: Shape, place: Place) -> None:
    scored = {"annotator": {"kind": "reward_model", "model": "some/annotator"}, "evaluation": EVERYTHING}
    chosen = experiment(**scored)
    for step in ("judge gold", "annotate"):
        found = need(chosen, shape, place, step)
        assert found.on_gpu == place.on_gpu
        # Its weights are float32's on a GPU, too.
        assert found.weights > 4 * shape.parameters and found.activations > 0
        # What a text has beyond the models' longest is cut, so it takes no memory.
        cut = need(experiment(**scored, reward={"max_length": 16}), shape, place, step)
        assert cut.activations < found.activations
    assert "annotate" not in [one.step for one in needs(experiment(evaluation=EVERYTHING), shape, place)]


@pytest.mark.parametrize(
    ("step", "setting"),
    [
        ("rollouts", "rollouts.decoding.batch_size"),
        ("rollouts", "rollouts.decoding.max_new_tokens"),
        ("reward per preference", "reward.batch_size"),
        ("ppo per preference", "ppo.batch_size"),
        ("ppo per preference", "ppo.mini_batch_size"),
        ("mt", "mt.batch_size"),
        ("generate", "evaluation.decoding.batch_size"),
        ("users dpo", "dpo.micro_batch_size"),
    ],
)
def test_more_rows_never_need_less_and_many_more_need_more(shape: Shape, step: str, setting: str) -> None:
    base = experiment(evaluation=EVERYTHING, user_evaluation={"methods": ["dpo", "pdpo_individual"]})
    totals = [need(changed(base, setting, size), shape, GPU, step).total for size in (1, 2, 8, 64, 512)]
    assert totals == sorted(totals) and totals[-1] > totals[0]


def test_four_bits_need_less_and_a_gpu(shape: Shape) -> None:
    full, small = experiment(), changed(experiment(), "backbone.quantization", "4bit")
    for step in ("rollouts", "reward per preference", "ppo per preference"):
        assert need(small, shape, GPU, step).weights < need(full, shape, GPU, step).weights / 2
    with pytest.raises(InputError, match="backbone.quantization: 4bit needs a CUDA device; name its memory with --gpu-gb"):
        needs(small, shape, CPU)


def test_micro_batches_and_gpus_share_a_reward_models_pairs(shape: Shape) -> None:
    step, base = "reward per preference", experiment()
    half = need(changed(base, "reward.micro_batch_size", 4), shape, GPU, step).activations
    assert half < need(base, shape, GPU, step).activations
    assert need(base, shape, Place(True, 64, gpus=2), step).activations == half


def test_what_would_fit_is_named_and_does_fit(shape: Shape) -> None:
    base, step = experiment(ppo={"mini_batch_size": 64}), "ppo per preference"
    whole = need(base, shape, GPU, step)
    target = need(changed(base, "ppo.mini_batch_size", 16), shape, GPU, step).total
    assert target < whole.total
    assert fitting(base, shape, GPU, whole, target) == "lower ppo.mini_batch_size from 64 to 16"
    assert fitting(base, shape, GPU, whole, 0) == "no setting of it is enough; take a larger GPU or a smaller backbone"
    answers = need(base, shape, GPU, "generate")
    quantized = need(changed(base, "backbone.quantization", "4bit"), shape, GPU, "generate").total
    assert fitting(base, shape, GPU, answers, quantized).endswith(", or set backbone.quantization to 4bit")
    own = experiment(backbone={"source": "train"})
    assert "4bit" not in fitting(own, shape, GPU, need(own, shape, GPU, "generate"), quantized)


def test_batches_of_rloo_are_lowered_no_further_than_they_divide(shape: Shape) -> None:
    chosen = experiment(ppo={"algorithm": "rloo", "batch_size": 8, "mini_batch_size": 8})
    step = need(chosen, shape, GPU, "ppo per preference")
    assert fitting(chosen, shape, GPU, step, 0).startswith("no setting of it is enough")
    smallest = changed(chosen, "ppo.mini_batch_size", 1)
    target = need(changed(smallest, "ppo.batch_size", 4), shape, GPU, "ppo per preference").total
    assert fitting(chosen, shape, GPU, step, target).startswith("lower ppo.mini_batch_size from 8 to ")

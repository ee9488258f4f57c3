"""Which steps an arm repeats, and that configuration and arms name the same mistakes."""

import pytest

from rlphf.config import parse
from rlphf.errors import InputError
from rlphf.mistakes import ARMS, arm_runs, run_of, split_run
from rlphf.settings_run import Mistakes

ALL_METHODS = {"methods": ["vb", "pp", "pmorl", "psoups"]}


def test_every_mistake_is_a_switch_that_is_off_and_has_an_arm():
    assert list(Mistakes.model_fields) == list(ARMS)
    assert not any(dict(Mistakes()).values())


def test_an_arm_works_with_its_own_output_of_what_its_mistake_changes_and_with_the_seeds_of_all_else():
    run = "7/mistakes/duplicated_pairs"
    assert split_run(run) == ("7", "duplicated_pairs") and split_run("7") == ("7", None)
    own = [step for step in ("prompts", "backbone", "annotate", "reward", "ppo", "soups", "generate") if run_of(run, step) == run]
    assert own == ["reward", "ppo", "soups", "generate"]
    assert all(run_of(run, step) == "7" for step in ("prompts", "backbone", "annotate"))
    assert all(run_of("7", step) == "7" for step in ("prompts", "ppo", "generate"))
    assert arm_runs(7, ["factor_merge"]) == ["7/mistakes/factor_merge"]


def test_an_arm_is_the_experiment_with_one_switch_on():
    experiment = parse({"experiment": "x", "priced": ["factor_merge", "other_starts"], "evaluation": ALL_METHODS})
    arm = experiment.making("factor_merge")
    assert [name for name, on in arm.mistakes if on] == ["factor_merge"] and not arm.priced
    assert not any(on for _, on in experiment.mistakes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"priced": ["test_selection"]}, "needs ppo.keep: best"),
        ({"mistakes": {"test_selection": True}}, "needs ppo.keep: best"),
        ({"ppo": {"keep": "best", "algorithm": "rloo"}}, "needs algorithm: ppo"),
        ({"priced": ["reward_without_response"], "evaluation": {"methods": ["pp"]}}, "needs pmorl among evaluation.methods"),
        ({"priced": ["typo"]}, "priced"),
    ],
)
def test_a_mistake_that_could_not_be_made_or_compared_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        parse({"experiment": "x", **settings})

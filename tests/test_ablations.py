"""Which runs vary a setting, what they make themselves, and with which configuration."""

import pytest

from rlphf.ablations import ABLATIONS, run_of, runs, split_run
from rlphf.config import parse
from rlphf.errors import InputError
from rlphf.settings_users import UserEvaluation

STEPS = ("prompts", "backbone", "rollouts", "user_pairs", "user_model", "user_answers", "user_soups")


def test_each_value_of_a_setting_is_a_run_of_its_own():
    assert runs(7, {"dpo.alpha": [0, 0.5], "users.init": ["uniform"]}) == {
        "7/ablations/dpo.alpha-0": ("dpo.alpha", 0),
        "7/ablations/dpo.alpha-0.5": ("dpo.alpha", 0.5),
        "7/ablations/users.init-uniform": ("users.init", "uniform"),
    }
    assert runs(7, {}) == {}
    assert split_run("7/ablations/dpo.alpha-0.5") == ("7", "dpo.alpha-0.5") and split_run("7") == ("7", None)


def test_a_variation_trains_and_tells_by_itself_and_draws_pairs_only_where_it_is_one_of_the_population():
    alpha, pairs = "7/ablations/dpo.alpha-0.5", "7/ablations/population.train_pairs-5"
    assert [step for step in STEPS if run_of(alpha, step) == alpha] == ["user_model", "user_answers"]
    assert [step for step in STEPS if run_of(pairs, step) == pairs] == ["user_pairs", "user_model", "user_answers"]
    assert {run_of(run, step) for run in (alpha, pairs) for step in ("prompts", "backbone", "rollouts")} == {"7"}


def test_other_runs_work_with_what_they_did():
    assert {run_of("7", step) for step in STEPS} == {"7"}
    arm = "7/mistakes/duplicated_pairs"
    assert run_of(arm, "reward") == arm and run_of(arm, "backbone") == run_of(arm, "user_model") == "7"


def test_settings_that_are_varied_are_there_and_their_methods_known():
    values = {"dpo.alpha": 0.25, "users.tokens": 3, "users.clusters": 4, "users.init": "uniform"}
    values |= {"population.users": 6, "population.train_pairs": 9}
    assert set(values) == set(ABLATIONS)
    asked = {"methods": ["sft", "dpo"], "prompts": 12}
    raw = {"experiment": "x", "seed": 3, "user_evaluation": asked, "ablations": {"dpo.alpha": [0, 1]}, "dpo": {"epochs": 5}}
    raw |= {"priced": ["factor_merge"], "evaluation": {"methods": ["pp", "psoups"]}}
    experiment = parse(raw)
    for setting, value in values.items():
        section, name = setting.split(".")
        varied = experiment.varied(setting, value)
        assert getattr(getattr(varied, section), name) == value
        assert varied.user_evaluation.methods == list(ABLATIONS[setting]) and varied.user_evaluation.prompts == 0
        # The value apart, and what is compared, it is the experiment.
        same = {section: getattr(experiment, section), "user_evaluation": experiment.user_evaluation}
        same |= {"ablations": experiment.ablations, "priced": experiment.priced}
        assert varied.model_copy(update=same) == experiment and not varied.ablations and not varied.priced
        assert getattr(varied, section).model_copy(update={name: getattr(same[section], name)}) == same[section]
    assert UserEvaluation().methods == [] and experiment.varied("dpo.alpha", 1).dpo.epochs == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ablations": {"dpo.beta": [1]}}, "ablations: 'dpo.beta' cannot be varied; choose from dpo.alpha, users.tokens"),
        ({"ablations": {"dpo.alpha": [0.5, 2]}}, "ablations: dpo.alpha: 2: dpo.alpha: Input should be less than or equal to 1"),
        ({"ablations": {"users.init": ["zeros"]}}, "ablations: users.init: zeros: users.init: Input should be 'vocabulary' or"),
        ({"ablations": {"dpo.alpha": 1}}, "ablations.dpo.alpha: Input should be a valid list"),
    ],
)
def test_what_cannot_be_varied_is_one_line_with_the_file(settings, message):
    with pytest.raises(InputError) as caught:
        parse({"experiment": "x", **settings}, "some.yaml")
    assert str(caught.value).startswith(f"some.yaml: {message}") and "\n" not in str(caught.value)

"""Which soups an experiment asks for."""

import pytest

from rlphf.config import Experiment
from rlphf.derived import combinations_of
from rlphf.settings_evaluation import Evaluation
from rlphf.settings_soup import Merging, Soup
from rlphf.soup.wanted import combination_weights, front_weights, soup_weights, wanted


def test_a_combination_weighs_its_preferences_alike_unless_told() -> None:
    experiment = Experiment(experiment="test", soup=Soup(weights={"P1A": 0.6}))
    assert combination_weights(experiment, "P1A-P2B-P3A") == {"P1A": 0.6, "P2B": 1 / 3, "P3A": 1 / 3}


def test_scale_multiplies_the_weights_of_soups_and_not_those_of_a_mixture() -> None:
    experiment = Experiment(experiment="test", soup=Soup(weights={"P1A": 0.6}, scale=1.5, compared={"half": Merging(scale=0.5)}))
    assert soup_weights(experiment, "P1A-P2B-P3A") == pytest.approx({"P1A": 0.9, "P2B": 0.5, "P3A": 0.5})
    assert soup_weights(experiment, "P1A-P2B-P3A", "half") == pytest.approx({"P1A": 0.3, "P2B": 1 / 6, "P3A": 1 / 6})
    assert combination_weights(experiment, "P1A-P2B-P3A") == {"P1A": 0.6, "P2B": 1 / 3, "P3A": 1 / 3}


def test_a_front_goes_from_one_policy_to_the_other() -> None:
    front = front_weights(Experiment(experiment="test", evaluation=Evaluation(front=["P1A", "P1B"], front_points=3)))
    assert front == {"0.000": {"P1A": 1, "P1B": 0}, "0.500": {"P1A": 0.5, "P1B": 0.5}, "1.000": {"P1A": 0, "P1B": 1}}
    assert front_weights(Experiment(experiment="test", evaluation=Evaluation(front=[]))) == {}


def test_wanted_are_all_combinations_and_the_front() -> None:
    experiment = Experiment(experiment="test", evaluation=Evaluation(front=["P1A", "P1B"], front_points=3))
    found = wanted(experiment)
    assert list(found) == [*combinations_of(experiment), "front/0.000", "front/0.500", "front/1.000"]
    compared = experiment.model_copy(update={"soup": Soup(compared={"ties": Merging(rule="ties")})})
    assert list(wanted(compared, "ties")) == combinations_of(experiment) and wanted(compared) == found
    assert found["P1A-P2A-P3A"] == dict.fromkeys(("P1A", "P2A", "P3A"), 1 / 3)

"""Claims about the configuration: its file, its schema, the experiments on top of it, and what a bad one says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlphf.config import Experiment, config_hash, load, load_layers, parse, save
from rlphf.config_file import commented, schema, write_step
from rlphf.derived import combinations_of
from rlphf.errors import InputError
from rlphf.preferences import PREFERENCES
from rlphf.settings import Section

CONFIG = Path(__file__).parent.parent / "config"
EXPERIMENTS = sorted((CONFIG / "experiments").glob("*.yaml"))


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `change` laid over it key by key, as Snakemake lays one configuration file over another."""
    both = dict(base)
    for key, value in change.items():
        both[key] = merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return both


def base(**change: Any) -> dict[str, Any]:
    """Return config.yaml as a mapping, with `change` on top."""
    return merged(yaml.safe_load((CONFIG / "config.yaml").read_text(encoding="utf-8")), change)


def sections(model: type[Section], name: str = "config") -> Iterator[tuple[str, type[Section]]]:
    """Yield (name, model) of a section and of all sections in it."""
    yield name, model
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from sections(field.annotation, f"{name}.{key}")


def test_config_file_is_what_config_write_makes_of_it(tmp_path):
    write_step(CONFIG / "config.yaml", tmp_path / "config.yaml")
    assert (tmp_path / "config.yaml").read_text() == (CONFIG / "config.yaml").read_text()


def test_schema_is_in_step_with_the_models(tmp_path):
    write_step(CONFIG / "config.yaml", tmp_path / "config.yaml")
    assert (tmp_path / "schema.json").read_text() == (CONFIG / "schema.json").read_text()
    assert json.loads((CONFIG / "schema.json").read_text()) == schema()


def test_every_key_is_in_the_config_file():
    given = base()
    for name, model in sections(Experiment):
        here = given
        for part in name.split(".")[1:]:
            here = here[part]
        assert list(here) == list(model.model_fields), name


def test_every_key_of_the_config_file_has_a_comment_above_it():
    lines = (CONFIG / "config.yaml").read_text().splitlines()
    keys = [i for i, line in enumerate(lines) if not line.lstrip().startswith("#")]
    bare = [lines[i] for i in keys if not lines[i - 1].lstrip().startswith("#")]
    assert keys and not bare


def test_every_setting_is_described():
    bare = [f"{name}.{key}" for name, m in sections(Experiment) for key, f in m.model_fields.items() if not f.description]
    assert not bare


def test_written_configuration_reads_back_as_it_was():
    experiment = parse(base(seed=7, soup={"weights": {"P1A": -0.5}, "svd_rank": 4}, ppo={"max_grad_norm": None}))
    assert parse(yaml.safe_load(commented(experiment))) == experiment


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiment_is_valid_on_top_of_the_config_file_and_named_as_its_file(path):
    experiment = parse(merged(base(), yaml.safe_load(path.read_text(encoding="utf-8"))), str(path))
    assert experiment.experiment == path.stem


def test_demo_is_the_config_file_as_it_is():
    assert merged(base(), yaml.safe_load((CONFIG / "experiments" / "demo.yaml").read_text())) == base()


# An experiment on real text that is in order, and that a single change spoils.
REAL = {
    "preferences": ["P1A", "P2A"],
    "combination_preferences": ["P1A", "P2A"],
    "prompts": {"source": "questions"},
    "annotator": {"kind": "rule"},
    "data": {"sources": [{"kind": "alpaca_eval", "path": "raw"}]},
    "user_evaluation": {"methods": []},
    "evaluation": {"judges": ["gold"], "methods": ["vb", "psoups"], "gold_raw": ["general"], "front": []},
}
RULED = {
    "preferences": ["P1A", "P2A"],
    "combination_preferences": ["P1A", "P2A"],
    "ppo": {"reward": "rule"},
    "user_evaluation": {"methods": []},
    "evaluation": {"front": []},
}
PAIRED = {"data": {"sources": [{"kind": "table", "path": "pairs.jsonl"}]}}
RLOO = {"algorithm": "rloo", "together": 1}
BAD = [
    ({"learning_rat": 1}, "learning_rat: unknown key; remove it or see config/config.yaml"),
    ({"ppo": {"learning_rat": 1}}, "ppo.learning_rat: unknown key"),
    ({"ppo": {"lora": {"rang": 8}}}, "ppo.lora.rang: unknown key"),
    ({"ppo": {"updates": "many"}}, "ppo.updates: Input should be a valid integer"),
    ({"ppo": {"updates": 0}}, "ppo.updates: Input should be greater than 0"),
    ({"ppo": 3}, "ppo: Input should be"),
    ({"ppo": {"together": 2, "algorithm": "rloo"}}, "ppo: together: algorithm rloo trains one policy at a time"),
    ({"ppo": RLOO | {"batch_size": 30}}, "ppo: batch_size: 30 with algorithm rloo has to be a multiple of 4"),
    ({"ppo": RLOO | {"mini_batch_size": 12}}, "ppo: batch_size: 64 with algorithm rloo has to be a multiple of 4"),
    ({"ppo": RLOO | {"min_new_tokens": 2}}, "ppo: min_new_tokens: algorithm rloo has one length limit for all batches"),
    ({"ppo": RLOO | {"micro_batch_tokens": 9}}, "ppo: micro_batch_tokens: algorithm rloo takes a mini-batch at once"),
    ({"ppo": RLOO | {"kl_coefficient": 0, "max_kl": 5.0}}, "ppo: max_kl: algorithm rloo measures no KL without a penalty"),
    ({"ppo": {"min_new_tokens": 97}}, "ppo: min_new_tokens: 97 is above max_new_tokens (96); lower it"),
    ({"ppo": {"score_scaling": False, "score_clip": 1.0}}, "ppo: score_clip: clips scaled scores, and score_scaling is false"),
    ({"ppo": {"lora": {"targets": []}}}, "ppo.lora.targets: List should have at least 1 item"),
    ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
    ({"experiment": "../elsewhere"}, "experiment: String should match pattern"),
    ({"preferences": "P1A"}, "preferences: Input should be a valid list"),
    ({"preferences": ["P1A", "P9Z"]}, "preferences: preference 'P9Z' is unknown; choose from P1A"),
    ({"preferences": ["P1A", "P1A"]}, "preferences: name at least one preference, and each only once"),
    ({"combination_preferences": []}, "combination_preferences: name at least one preference"),
    ({"preferences": ["P1A"]}, "combination_preferences: P1B is not among preferences"),
    ({"backbone": {"hidden": 100, "heads": 3}}, "backbone.hidden: each head has to have an even width"),
    ({"backbone": {"hidden": 12, "heads": 4}}, "backbone.hidden: each head has to have an even width"),
    ({"backbone": {"source": "random"}}, "backbone.source: Input should be 'train', 'path', 'hub' or 'package'"),
    ({"dpo": {"alpha": 1.5}}, "dpo.alpha: Input should be less than or equal to 1"),
    ({"dpo": {"loss": "kto"}}, "dpo.loss: Input should be 'sigmoid', 'ipo' or 'hinge'"),
    ({"prm": {"beta": 0.1}}, "prm.beta: unknown key"),
    ({"users": {"init": "zeros"}}, "users.init: Input should be 'vocabulary' or 'uniform'"),
    ({"cold_start": {"pairs": []}}, "cold_start.pairs: List should have at least 1 item"),
    ({"population": {"users": 1}}, "population.users: Input should be greater than or equal to 2"),
    ({"user_data": {"source": "prism"}}, "user_data: path: needed for source prism"),
    (
        {"user_data": {"source": "prism", "path": "x", "columns": {"user": "id"}}},
        "user_data: columns: are not read for source prism, only for table",
    ),
    ({"user_data": {"source": "tldr", "path": "x", "unseen": 0.1}}, "user_data: unseen: is no share for source tldr"),
    ({"user_data": {"validation": 0.5, "test": 0.5}}, "user_data: validation and test together leave nothing to train on"),
    ({"user_data": {"source": "reddit"}}, "user_data.source: Input should be 'testbed', 'tldr'"),
    ({"user_evaluation": {"methods": ["dpo", "ppo"]}}, "user_evaluation.methods.1: Input should be 'sft', 'sft_prompted'"),
    ({"user_evaluation": {"methods": ["dpo", "dpo"]}}, "user_evaluation.methods: name each only once"),
    (
        {"user_data": {"source": "persona", "path": "x"}, "user_evaluation": {"methods": ["dpo", "psoups_inferred"]}},
        "user_evaluation.methods: psoups_inferred is about the testbed's users, and user_data names others",
    ),
    (
        {
            "user_data": {"source": "persona", "path": "x"},
            "user_evaluation": {"methods": []},
            "ablations": {"population.users": [4]},
        },
        "ablations: population.users is about the testbed's users, and user_data names others",
    ),
    ({"soup": {"rule": "mean"}}, "soup.rule: Input should be 'delta', 'factor', 'ties' or 'dare'"),
    ({"soup": {"rule": "factor", "svd_rank": 8}}, "soup: svd_rank: truncates no soup of rule factor"),
    ({"soup": {"weights": {"P3D": 1.0}}}, "soup.weights: P3D is not among combination_preferences"),
    ({"evaluation": {"methods": ["vb", "rlhf2"]}}, "evaluation.methods.1: Input should be"),
    ({"evaluation": {"methods": ["vb", "vb"]}}, "evaluation.methods: name at least one, and each only once"),
    ({"evaluation": {"judges": []}}, "evaluation.judges: name at least one, and each only once"),
    ({"evaluation": {"judges": ["gold", "oracle"]}}, "evaluation: judges: name oracle first"),
    ({"evaluation": {"judges": ["gold"], "methods": ["pp"]}}, "evaluation: judges: gold first needs vb among methods"),
    ({"evaluation": {"judges": ["gold"], "front": ["P2A", "P2B"]}}, "evaluation: front: needs the judge oracle"),
    ({"prompts": {"source": "file"}}, "prompts.path: a file is needed for source file, and for no other"),
    ({"prompts": {"path": "mine.txt"}}, "prompts.path: a file is needed for source file, and for no other"),
    ({"prompts": {"test_path": "koala.json"}}, "prompts.test_path: needs source questions or file"),
    ({"prompts": {"source": "questions"}}, "evaluation.judges: the oracle reads the testbed alone"),
    (REAL | {"annotator": {"kind": "simulated"}}, "annotator.kind: the simulated annotator reads the testbed alone"),
    (REAL | {"user_evaluation": {}}, "user_evaluation.methods: the testbed's users need its prompts"),
    (REAL | {"priced": ["factor_merge"]}, "priced: mistakes are priced by the oracle"),
    (REAL | {"preferences": ["P1A", "P3C"], "combination_preferences": ["P1A"]}, "preferences: P3C has no text rule"),
    (REAL | {"evaluation": REAL["evaluation"] | {"methods": ["vb", "rlhf"]}}, "evaluation.methods: rlhf needs general pairs"),
    (REAL | {"evaluation": REAL["evaluation"] | {"gold_raw": []}}, "evaluation.gold_raw: name general"),
    (REAL | {"evaluation": REAL["evaluation"] | {"gold_epochs": 0}}, "evaluation.gold_epochs: 0 would leave a drawn head"),
    (REAL | {"data": {}}, "data.sources: evaluation.gold_raw, data.reward_models and reward.raw need"),
    ({"ppo": {"keep_by": "gold"}}, "ppo.keep_by: gold needs keep: best"),
    ({"ppo": {"reward": "rule"}}, "ppo.reward: rule: P3C has no text rule that could reward its policy"),
    (RULED | {"priced": ["random_reward_head"]}, "mistakes.random_reward_head: is made in the preferences' reward models"),
    (RULED | {"mistakes": {"duplicated_pairs": True}}, "mistakes.duplicated_pairs: is made in the preferences' reward models"),
    (RULED | {"user_evaluation": {}}, "user_evaluation.methods: psoups_declared needs the preferences' reward models"),
    ({"evaluation": {"judges": ["rules"], "methods": ["pp"]}}, "evaluation: judges: rules first needs vb among methods"),
    ({"evaluation": {"judges": ["rules"], "front": ["P2A", "P2B"]}}, "evaluation: front: needs the judge oracle"),
    (
        {"ppo": {"algorithm": "rloo", "together": 1}, "priced": ["random_reward_head"]},
        "mistakes.random_reward_head: is made in our PPO alone",
    ),
    (
        {"ppo": {"algorithm": "rloo", "together": 1}, "mistakes": {"reward_without_response": True}},
        "mistakes.reward_without_response: is made in our PPO alone",
    ),
    (
        {"evaluation": {"judges": ["oracle", "people"], "ratings": "mine.csv"}, "seeds": [1103, 2]},
        "evaluation.judges: people rated the responses of one seed",
    ),
    ({"evaluation": {"decoding": {"top_p": 0}}}, "evaluation.decoding.top_p: Input should be greater than 0"),
    ({"annotator": {"kind": "rule", "noise": 0.5}}, "annotator.noise: Input should be less than 0.5"),
    ({"evaluation": {"judges": ["oracle", "people"]}}, "evaluation: ratings: needed for the judge people"),
    ({"evaluation": {"ratings": "mine.parquet"}}, "evaluation: ratings: are read by the judge people alone"),
    (
        {"evaluation": {"judges": ["oracle", "gold"], "methods": ["psoups", "mod"], "front": []}},
        "evaluation: judges: gold compares the paper's methods; name two or more of vb, rlhf",
    ),
    ({"evaluation": {"judges": ["oracle", "llm"], "methods": ["mod"]}}, "evaluation: judges: llm compares"),
    (
        {"evaluation": {"judges": ["oracle", "people"], "ratings": "mine.parquet", "methods": ["psoups"]}},
        "evaluation: judges: people compares",
    ),
    ({"evaluation": {"llm": {"base_url": "localhost:8000"}}}, "evaluation.llm.base_url: expected an address such as"),
    ({"evaluation": {"llm": {"base_url": "http://me:secret@host/v1"}}}, "evaluation.llm.base_url: name host and path alone"),
    ({"evaluation": {"llm": {"key_variable": "sk-123"}}}, "evaluation.llm.key_variable: String should match pattern"),
    ({"evaluation": {"llm": {"max_cost": 1.0}}}, "evaluation.llm: max_cost: needs price_in or price_out"),
    ({"data": {"validation": 0.5, "test": 0.5}}, "data: validation and test together leave nothing to train on"),
    ({"data": {"sources": [{"kind": "csv", "path": "x"}]}}, "data.sources.0.kind: Input should be"),
    (
        {"data": {"sources": [{"kind": "hh_rlhf", "path": "x", "columns": {"chosen": "better"}}]}},
        "data.sources.0: columns: is not read for kind hh_rlhf, only for table, hub",
    ),
    ({"data": {"sources": [{"kind": "koala", "path": "x", "preference": "P2A"}]}}, "data.sources.0: preference: is not read for"),
    (
        {"data": {"sources": [{"kind": "table", "path": "x", "split": "test"}]}},
        "data.sources.0: split: is not read for kind table",
    ),
    ({"data": {"sources": [{"kind": "koala", "path": ""}]}}, "data.sources.0.path: String should have at least 1 character"),
    (
        {"data": {"sources": [{"kind": "table", "path": "x", "preference": " "}]}},
        "data.sources.0.preference: String should match pattern",
    ),
    ({"data": {"reward_models": ["P2A", "P2A"]}}, "data.reward_models: name each only once"),
    ({"data": {"reward_models": ["two words"]}}, "data.reward_models.0: String should match pattern"),
    ({"evaluation": {"gold_raw": ["P2A", "P2A"]}}, "evaluation.gold_raw: name each only once"),
    ({"mt": {"lora": {"targets": ["q_proj", "q_proj"]}}}, "mt.lora.targets: name each only once"),
    ({"priced": ["factor_merge", "factor_merge"]}, "priced: name each only once"),
    ({"ablations": {"users.tokens": [4, 4]}}, "ablations.users.tokens: name each only once"),
    ({"backbone": {"source": "hub"}}, "backbone.name: needed for source hub"),
    ({"backbone": {"source": "package", "name": "model.bin"}}, "backbone.name: for source package a file that ends in .whl or"),
    ({"backbone": {"package": "--pre"}}, "backbone.package: String should match pattern"),
    ({"backbone": {"package_sha256": "abc"}}, "backbone.package_sha256: String should match pattern"),
    ({"annotator": {"kind": "reward_model"}}, "annotator.model: needed for kind reward_model"),
    ({"reward": {"raw": ["P2A"]}}, "data.sources: evaluation.gold_raw, data.reward_models and reward.raw need raw pairs"),
    (
        PAIRED | {"reward": {"raw": ["general"]}, "evaluation": {"judges": ["oracle"], "methods": ["psoups"], "front": []}},
        "reward.raw: no policy is trained for general; choose from P1A",
    ),
    (PAIRED | {"reward": {"raw": ["P2A", "P2A"]}}, "reward.raw: name each only once"),
    (
        REAL | PAIRED | {"reward": {"raw": ["P2A"]}, "ppo": {"reward": "rule"}},
        "reward.raw: the preferences have no reward",
    ),
    ({"soup": {"compared": {"Ties": {"rule": "ties"}}}}, "soup.compared.Ties.[key]: String should match pattern"),
    ({"soup": {"compared": {"ties": {"weights": {}}}}}, "soup.compared.ties.weights: "),
    ({"soup": {"compared": {"front": {"scale": 2}}}}, "soup.compared: front: other soups have this name; choose another"),
    ({"soup": {"compared": {"dare": {"rule": "ties"}}}}, "soup.compared: dare: is a rule, and these are merged by ties"),
    (
        {"soup": {"compared": {"cut": {"rule": "factor", "svd_rank": 2}}}},
        "soup.compared.cut: svd_rank: truncates no soup of",
    ),
    ({"soup": {"scale": 0}}, "soup.scale: Input should be greater than 0"),
    ({"evaluation": {"bootstrap": 1}}, "evaluation.bootstrap: Input should be greater than or equal to 20"),
    ({"cold_start": {"prior": 1e-200}}, "cold_start.prior: Input should be greater than or equal to 0.000001"),
    ({"cold_start": {"prior": 1e200}}, "cold_start.prior: Input should be less than or equal to 1000000"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message.split(":")[0] + f" {i}" for i, (_, message) in enumerate(BAD)])
def test_bad_setting_is_one_line_with_file_key_and_reason(change, message):
    with pytest.raises(InputError) as caught:
        parse(base(**change), "some.yaml")
    text = str(caught.value)
    assert text.startswith(f"some.yaml: {message}") and "\n" not in text


WARM = {"axis": "style", "name": "warm", "prompt": "Answer with warmth."}


def test_what_raw_pairs_teach_needs_no_rule_unless_something_else_reads_it():
    named = {"preferences": ["P1A", "P3C", "P3E"], "combination_preferences": ["P1A", "P3E"], "own_preferences": {"P3E": WARM}}
    learned = REAL | named | {"reward": {"raw": ["P3C", "P3E"]}}
    judged = {"evaluation": REAL["evaluation"] | {"gold_raw": ["general", "P3C", "P3E"]}}
    assert parse(base(**(learned | judged))).reward.raw == ["P3C", "P3E"]
    # The judge would learn P3C from rollouts, which no rule labels.
    with pytest.raises(InputError, match="preferences: P3C has no text rule, so annotator.kind: rule cannot serve it"):
        parse(base(**(learned | {"evaluation": REAL["evaluation"] | {"gold_raw": ["general", "P3E"]}})))
    with pytest.raises(InputError, match="own_preferences.P3E.rule: needed, because the first judge, rules, scores by it"):
        parse(base(**(learned | {"evaluation": REAL["evaluation"] | {"judges": ["rules"], "gold_raw": []}})))


def test_general_pairs_that_are_raw_let_rlhf_do_without_an_annotator_of_them():
    several = REAL["evaluation"] | {"methods": ["vb", "rlhf", "psoups"]}
    with pytest.raises(InputError, match="rlhf needs general pairs"):
        parse(base(**(REAL | {"evaluation": several})))
    assert parse(base(**(REAL | {"evaluation": several, "reward": {"raw": ["general"]}}))).reward.raw == ["general"]


def test_a_gold_model_that_is_the_first_judge_needs_one_method():
    assert parse(base(**REAL | {"evaluation": REAL["evaluation"] | {"methods": ["vb"]}})).evaluation.methods == ["vb"]


def test_an_experiment_on_real_text_needs_no_oracle():
    assert parse(base(**REAL)).evaluation.judges == ["gold"]


@pytest.mark.parametrize("raw", [None, [], "experiment: demo", 3])
def test_what_is_no_mapping_is_refused(raw):
    with pytest.raises(InputError, match="expected a mapping of settings"):
        parse(raw)


def test_settings_cannot_be_changed_after_they_were_checked():
    with pytest.raises(ValueError, match="frozen"):
        parse(base()).ppo.updates = 3


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\x00"])
def test_file_that_is_no_plain_yaml_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=r"x\.yaml: cannot be read as YAML") as caught:
        load(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value)


def test_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"x\.yaml: cannot be read as YAML"):
        load(tmp_path / "x.yaml")


def test_saved_configuration_is_whole_and_left_alone_when_nothing_changed(tmp_path):
    experiment, path = parse(base(seed=7)), tmp_path / "config.yaml"
    save(experiment, path)
    before = path.stat()
    save(experiment, path)
    assert load(path) == experiment
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    save(parse(base(seed=8)), path)
    assert load(path).seed == 8


def test_config_hash_is_that_of_the_values():
    turned = dict(reversed(base().items()))
    assert config_hash(parse(base())) == config_hash(parse(turned))
    assert config_hash(parse(base())) != config_hash(parse(base(ppo={"learning_rate": 0.5})))


@pytest.mark.parametrize("where", ["testbed", "ppo"])
@pytest.mark.parametrize("weights", [[0, 0, 0], [1, 1], [1, -1, 1]])
def test_weights_of_what_is_asked_are_three_and_not_all_zero(where, weights):
    with pytest.raises(InputError, match=f"{where}.asked"):
        parse(base(**{where: {"asked": weights}}))


@pytest.mark.parametrize("source", ["train", "package"])
def test_only_a_model_that_is_taken_as_it_is_can_be_quantized(source):
    with pytest.raises(InputError, match=f"backbone.quantization: a model of source {source} is not quantized; set none"):
        parse(base(backbone={"source": source, "quantization": "4bit"}))


@pytest.mark.parametrize("change", [{"mistakes": {"low_precision_baselines": True}}, {"priced": ["low_precision_baselines"]}])
def test_quantized_weights_are_not_rounded(change):
    with pytest.raises(InputError, match="mistakes.low_precision_baselines: rounds weights, and those of 4 bits cannot be"):
        parse(base(backbone={"source": "hub", "name": "a/b", "quantization": "4bit"}, **change))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_files_are_laid_over_each_other_as_snakemake_does(path):
    assert load_layers([CONFIG / "config.yaml", path]) == parse(merged(base(), yaml.safe_load(path.read_text(encoding="utf-8"))))


def test_a_layer_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(InputError, match="expected a mapping of settings, got list"):
        load_layers([CONFIG / "config.yaml", tmp_path / "list.yaml"])


def test_personalized_soups_at_the_papers_scale_has_the_releases_settings():
    experiment = load_layers([CONFIG / "config.yaml", CONFIG / "experiments" / "psoups-7b.yaml"])
    released = type(experiment.ppo)().model_dump()
    chosen = {"lora", "mini_batch_size", "micro_batch_tokens", "max_new_tokens", "min_new_tokens"}
    assert {k: v for k, v in experiment.ppo.model_dump().items() if k not in chosen} == {
        k: v for k, v in released.items() if k not in chosen
    }
    assert (experiment.ppo.lora.rank, experiment.ppo.lora.alpha, experiment.ppo.lora.dropout) == (16, 32, 0.05)
    assert (experiment.reward.lora.rank, experiment.reward.lora.alpha, experiment.reward.lora.dropout) == (8, 32, 0.1)
    assert experiment.reward.batch_size == 8 and experiment.mt.batch_size == 64 and experiment.mt.learning_rate == 1e-5
    assert len(combinations_of(experiment)) == 8 and experiment.rollouts.train_pairs == 1


def test_what_only_the_testbed_can_be_read_by_is_refused_for_a_published_model():
    settings = base()
    settings["backbone"] |= {"source": "hub", "name": "some/model"}
    with pytest.raises(InputError, match="prompts.source: no model of source hub writes the testbed's language; set questions"):
        parse(settings)


@given(
    seed=st.integers(0, 2**31 - 1),
    rate=st.floats(1e-9, 10, allow_nan=False),
    updates=st.integers(1, 10**6),
    chosen=st.lists(st.sampled_from(sorted(PREFERENCES)), min_size=1, unique=True),
    weights=st.lists(st.floats(-2, 2, allow_nan=False), min_size=8, max_size=8),
)
@settings(max_examples=30, deadline=None)
def test_a_saved_configuration_reads_back_equal(tmp_path_factory, seed, rate, updates, chosen, weights):
    weighted = dict(zip(chosen, weights, strict=False))
    raw = {"experiment": "mine", "seed": seed, "preferences": chosen, "combination_preferences": chosen}
    whole = parse(raw | {"ppo": {"learning_rate": rate, "updates": updates}, "soup": {"weights": weighted}})
    path = tmp_path_factory.getbasetemp() / "saved.yaml"
    save(whole, path)
    assert load(path) == whole and parse(whole.model_dump(mode="json")) == whole


@pytest.mark.parametrize(("name", "section"), list(sections(Experiment)))
@settings(max_examples=10, deadline=None)
@given(key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_a_key_that_no_section_has_is_refused(name, section, key):
    assume(key not in section.model_fields)
    change: Any = {key: 1}
    for part in reversed(name.split(".")[1:]):
        change = {part: change}
    with pytest.raises(InputError, match="unknown key"):
        parse(merged(base(), change))


@pytest.mark.parametrize(
    "change", [{"seeds": [True]}, {"testbed": {"asked": [True, 1, 1]}}, {"soup": {"weights": {"P1A": True}}}], ids=str
)
def test_a_switch_is_no_number_in_a_list_or_mapping_either(change):
    with pytest.raises(InputError, match="expected no switch, got true"):
        parse(base(**change))


def test_a_switch_is_no_value_of_a_number_that_is_varied():
    with pytest.raises(InputError, match="expected no switch, got true"):
        parse(base(ablations={"users.tokens": [4, True]}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, -1, 2**31, "many"])
def test_a_number_that_is_none_is_refused(value):
    with pytest.raises(InputError, match="ppo.updates"):
        parse(base(ppo={"updates": value}))


def bounded(schema: Any) -> Iterator[bool]:
    """Yield for every number in a JSON schema whether it says how large, and how small, it may be."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number"):
            yield {"minimum", "exclusiveMinimum"} & schema.keys() and {"maximum", "exclusiveMaximum"} & schema.keys()
        schema = schema.values()
    for part in schema if not isinstance(schema, str | int | float | None) else ():
        yield from bounded(part)


@pytest.mark.parametrize(("name", "section"), list(sections(Experiment)))
def test_every_number_has_bounds_beyond_which_nothing_can_be_computed(name, section):
    # Values of `ablations` are checked as those of the settings that they vary.
    described = {key: value for key, value in section.model_json_schema()["properties"].items() if key != "ablations"}
    assert all(bounded(described))


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": {"learning_rate": 1e200}},
        {"dpo": {"weight_decay": 1e200}},
        {"soup": {"weights": {"P1A": -1e200}}},
        {"ppo": {"missing_eos_penalty": -1e200}},
        {"population": {"users": 10**30}},
        {"population": {"clusters": 2**31}},
        {"evaluation": {"front_points": 2**31}},
        {"evaluation": {"llm": {"timeout": 1e10}}},
        {"reward": {"max_length": 10**30}},
    ],
    ids=str,
)
def test_a_number_beyond_what_can_be_computed_with_is_refused(change):
    with pytest.raises(InputError, match="Input should be (less|greater) than"):
        parse(base(**change))


def test_a_number_may_be_written_as_text():
    # YAML 1.1, and so PyYAML, takes 1e-5 for text.
    assert parse(yaml.safe_load("{experiment: mine, reward: {learning_rate: 1e-5}}")).reward.learning_rate == 1e-5


@pytest.mark.parametrize(
    "text", ["a: &b [*b]", "a: !!str b", "a: !!python/object/apply:os.getcwd []", "seed: 1\nseed: 2", "a: {b: 1, b: 2}"]
)
def test_endless_aliases_tags_and_keys_named_twice_are_not_read(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match="in what it names|not read|named twice"):
        load(tmp_path / "mine.yaml")


@pytest.mark.parametrize("uri", ["http://me:secret@host:5000", "https://secret@host", "postgresql://me:se?cret#@host/runs"])
def test_a_tracking_address_holds_no_password(uri):
    with pytest.raises(InputError, match="tracking.uri: .*MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as refused:
        parse({"experiment": "x", "tracking": {"uri": uri}})
    assert "cret" not in str(refused.value)
    assert all(parse({"experiment": "x", "tracking": {"uri": kept}}) for kept in ("http://host/a@b", "sqlite:////a@b.db", "runs"))

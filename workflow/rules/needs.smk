# What jobs need: the files that they read, and the settings whose change repeats them.
from snakemake.io import report as shown_in_report

from rlphf.ablations import ABLATIONS, run_of
from rlphf.data.learned import rewarding
from rlphf.data.learned import sources as learned_from
from rlphf.derived import PAPER_METHODS, compared_as
from rlphf.mistakes import ARMS, split_run
from rlphf.users.methods import BACKBONE, MODELS, PRM, SOUPS
from rlphf.users.methods import METHODS as SERVING

# {model of users: the sections of the configuration that it is trained with, if not P-DPO's}.
TRAINED_WITH = {"prm": ["prm"], "pooled": ["mt", "dpo.max_prompt", "dpo.max_length"]}
# {kind of a user model: the settings of its soft tokens}.
SOFT_TOKENS = {
    "uniform": [],
    "individual": ["users.tokens", "users.init", "users.start", "users.unknown"],
    "cluster": ["users.tokens", "users.clusters", "users.init", "users.cluster_start", "users.unknown"],
}
# What reward models are trained with; whose pairs each learns from is its own (`learned_from`).
TRAINED_BY = [f"reward.{name}" for name in type(EXPERIMENT.reward).model_fields if name != "raw"] + ["mistakes.duplicated_pairs"]
# Mistakes that decide what a policy is trained to, and how policies are merged.
TRAINED_WRONG = [
    f"mistakes.{name}" for name in ("random_reward_head", "reward_without_response", "other_starts", "test_selection")
]
MERGED_BY = [f"soup.{name}" for name in ("rule", "weights", "svd_rank", "density", "scale")]
MERGED_BY += [f"mistakes.{name}" for name in ("factor_merge", "other_starts")]
# {what a method's prompts say of the user: the settings that say how}.
TOLD_BY = {"said": ["users.text_place"], "history": ["users.text_place", "user_evaluation.history"]}


def settings(*names, experiment=EXPERIMENT):
    """Return what a job reads of the configuration ("ppo", "evaluation.split"), besides the seed: a change repeats the job."""
    values = {}
    for name in names:
        value = experiment.model_dump(mode="json")
        for key in name.split("."):
            value = value[key]
        values[name] = value
    return values


def own_settings(field, *names):
    """Return what a job reads of the experiment's own preferences among `names`: a field of each; nothing of the paper's."""
    found = settings("own_preferences")["own_preferences"]
    return {f"own_preferences.{name}.{field}": found[name][field] for name in names if name in found}


def output_of(step, output, **fixed):
    """Return what gives a job the `output` of a step: its own run's, or its seed's where the run's mistake leaves that as it is."""

    def find(wildcards):
        values = {**dict(wildcards.items()), **fixed}
        return expand(output, **{**values, "seed": run_of(wildcards.seed, step)})

    return find


def answer_settings(method):
    """Return what responses of a method depend on, besides its models."""
    special = {
        "vb": [],
        "rlhf": [],
        "adapters": ["preferences"],
        "front": ["evaluation.front", "evaluation.front_points"],
        "mod": ["combination_preferences", "soup.weights"],
    }
    sections = special.get(method, ["combination_preferences"])
    mistakes = ["mistakes.low_precision_baselines"]
    read = settings("evaluation.split", "evaluation.samples", "evaluation.decoding", *mistakes, *sections)
    asked = {"preferences": PREFERENCES, "combination_preferences": COMBINED, "evaluation.front": EXPERIMENT.evaluation.front}
    return read | own_settings("prompt", *(name for section in sections for name in asked.get(section, [])))


def needed_models(wildcards):
    """Return what the responses of a method are made with, besides the backbone."""
    policies = {"adapters": PREFERENCES, "mod": COMBINED, "rlhf": [GENERAL], "pmorl": [PMORL]}
    method = wildcards.method
    if method in policies:
        return output_of("ppo", rules.ppo.output, preference=policies[method])(wildcards)
    if method == "mt":
        return output_of("mt", rules.mt.output)(wildcards)
    if compared := compared_as(method, EXPERIMENT):
        return expand(rules.compared_soups.output.soups, seed=wildcards.seed, compared=compared)
    return [] if method in ("vb", "pp") else output_of("soups", rules.soups.output.soups)(wildcards)


def models_folder(wildcards):
    """Return the folder of the run that made the policies and soups of a method."""
    step = "ppo" if wildcards.method in ("adapters", "mod", "rlhf", "pmorl") else "soups"
    return f"{RESULTS}/seed-{run_of(wildcards.seed, step)}"


def answered(wildcards):
    """Return the responses that are judged: of all methods, or of those that an arm's mistake touches."""
    mistake = split_run(wildcards.seed)[1]
    methods = ARMS[mistake].methods if mistake else [*METHODS, *OTHERS]
    return output_of("generate", rules.generate.output, method=methods)(wildcards)


def compared(wildcards):
    """Return the responses that judges besides the first see: of the paper's methods."""
    methods = [name for name in METHODS if name in PAPER_METHODS]
    return output_of("generate", rules.generate.output, method=methods)(wildcards)


def seen_by_gold(wildcards):
    """Return the responses that the judge gold scores: all, where it is the first judge."""
    return answered(wildcards) if JUDGES[0] == "gold" else compared(wildcards)


def verdicts(seed):
    """Return what the judges of an experiment say, in the order of the configuration."""
    scored = {"oracle": rules.oracle.output, "rules": rules.text_rules.output}
    scored |= {"gold": rules.gold.output, "llm": rules.llm.output}
    found = [expand(scored[name], seed=seed) for name in JUDGES if name in scored]
    return [path for paths in found for path in paths] + ([EXPERIMENT.evaluation.ratings] if "people" in JUDGES else [])


# What tables and claims read of the configuration.
MEASURED = (
    *(f"evaluation.{name}" for name in ("methods", "judges", "ratings", "split", "bootstrap")),
    *("evaluation.front", "evaluation.front_points", "evaluation.gold_raw"),
    *("preferences", "combination_preferences", "ppo.batch_size", "priced", "soup.compared"),
)
# What the verdicts of a language model depend on: neither where it is, nor how fast it may be asked and for how much.
ASKED = ("model", "prompts", "temperature", "max_tokens", "attempts", "max_malformed", "cache")


def measured(wildcards=None, seed=EXPERIMENT.seed):
    """Return what the tables of a seed are made from."""
    return {
        "counts": expand(rules.data.output.counts, seed=seed),
        "judged": verdicts(seed),
        "merges": expand(rules.soups.output.merges, seed=seed)
        + expand(rules.compared_soups.output.merges, seed=seed, compared=EXPERIMENT.soup.compared),
        "scores": expand(rules.reward.output.scores, preference=REWARDS, seed=seed),
        "adapters": expand(rules.ppo.output, preference=PREFERENCES, seed=seed),
        "arms": expand(rules.oracle.output, seed=arm_runs(seed, EXPERIMENT.priced)),
    }


def learned_pairs(name):
    """Return a function that gives the pairs that a reward model, or MT, learns from: those of rollouts, and raw ones."""
    own, raw = learned_from(name, EXPERIMENT)
    labelled, given = output_of("annotate", rules.annotate.output, preference=own), output_of("data", rules.data.output.pairs)
    return lambda wildcards: labelled(wildcards) + (given(wildcards) if raw else [])


def rewards_of(names):
    """Return a function that gives the reward models that policies are trained against, none where rules reward them."""
    models = [model for name in names for model in rewarding(name, EXPERIMENT)]
    return output_of("reward", rules.reward.output.adapter, preference=models)


def ruled(names):
    """Return what policies that rules reward read of the experiment's own preferences; models know their words by pairs."""
    own = [name for name in names if not rewarding(name, EXPERIMENT)]
    return own_settings("rule", *own) | own_settings("prompt", *own)


def scored_as(name):
    """Return what a reward model reads of the experiment's own preferences: it knows those of its pairs by their prompts."""
    rollouts, raw = learned_from(name, EXPERIMENT)
    return own_settings("prompt", *rollouts, *raw)


def shown_of_own():
    """Return what an explorer shows of the experiment's own preferences: of all that are declared."""
    names = EXPERIMENT.own_preferences
    return own_settings("name", *names) | own_settings("prompt", *names)


def kept_apart(name):
    """Return a function that gives the experiment's own prompts, which raw pairs must not ask; nothing where none are learned."""
    own = output_of("prompts", rules.prompts.output)
    return lambda wildcards: own(wildcards) if learned_from(name, EXPERIMENT)[1] else []


def varied(run, *names):
    """Return what a job of a run reads of its configuration: of the experiment's, or of a variation's."""
    found = variations(run.partition("/")[0], EXPERIMENT.ablations)
    return settings(*names, experiment=EXPERIMENT.varied(*found[run]) if run in found else EXPERIMENT)


def training_settings(model):
    """Return the names of the settings that a model of users is trained with."""
    kind, text = MODELS[model]
    return [*TRAINED_WITH.get(model, ["dpo"]), *SOFT_TOKENS[kind], *([] if text == "implicit" else ["users.text_place"])]


def users_of(wildcards):
    """Return the users that a run is about, their pairs, and the prompts that they may be answered."""
    if RAW_USERS:
        found = rules.user_import.output
        return {
            name: expand(getattr(found, name), seed=run_of(wildcards.seed, "user_import"))
            for name in ("users", "pairs", "prompts")
        }
    own = output_of("user_pairs", [rules.user_pairs.output.users, rules.user_pairs.output.pairs])(wildcards)
    return {"users": own[0], "pairs": own[1], "prompts": output_of("prompts", rules.prompts.output)(wildcards)}


def answering(wildcards):
    """Return what shows that the models of a method of users are there."""
    model = SERVING[wildcards.user_method].model
    if model == BACKBONE:
        return []
    if model == SOUPS:
        kind = wildcards.user_method.removeprefix("psoups_")
        return output_of("user_soups", rules.user_soups.output[kind])(wildcards)
    return output_of("user_model", rules.user_model.output, model=model)(wildcards)


def user_answer_settings(wildcards):
    """Return what a method's answers to users depend on, besides its models: on decoding only where anything is decoded."""
    method = SERVING[wildcards.user_method]
    read = ["evaluation.split", *TOLD_BY.get(method.told, [])]
    # A reward model answers nothing, and nor does a variation, whose methods are measured on pairs alone.
    if method.model != PRM and varied(wildcards.seed, "user_evaluation.prompts")["user_evaluation.prompts"]:
        read += ["evaluation.samples", "evaluation.decoding", "user_evaluation.prompts"]
    return varied(wildcards.seed, *read)


def users_answered():
    """Return whether any method answers users, so that there is something to read: P-RM, a reward model, does not."""
    return EXPERIMENT.user_evaluation.prompts > 0 and any(SERVING[name].model != PRM for name in USER_METHODS)


def user_results(wildcards=None, seed=EXPERIMENT.seed):
    """Return what the tables about the users of a seed are made from; nothing without methods."""
    if not USER_METHODS:
        return []
    found = expand(rules.user_answers.output, seed=seed, user_method=USER_METHODS)
    for run, (setting, _) in variations(seed, EXPERIMENT.ablations).items():
        found += expand(rules.user_answers.output, seed=run, user_method=ABLATIONS[setting])
    found += expand(rules.user_scores.output, seed=seed) if users_judged(EXPERIMENT) else []
    found += expand(rules.cold_start.output, seed=seed) if users_cold_started(EXPERIMENT) else []
    return found


def reported(what, folder, names, *kinds):
    """Return the files of `names` in `folder` of all `kinds`, which Snakemake's report lists in its category `what`."""
    return [
        shown_in_report(
            f"{folder}/{name}.{kind}",
            caption=f"../report/{what.lower()}.rst",
            category=what,
            labels={what.removesuffix("s"): name.replace("_", " ")} | ({"Format": kind} if len(kinds) > 1 else {}),
        )
        for kind in kinds
        for name in names
    ]


def users_shown(seed=EXPERIMENT.seed):
    """Return what an explorer shows of a seed's users: who they are, prompts, what they were answered, their soups and scores."""
    if not USER_METHODS:
        return []
    drawn = [*rules.prompts.output, rules.user_pairs.output.users, *rules.user_scores.output]
    shown = [rules.user_import.output.prompts, rules.user_import.output.users] if RAW_USERS else drawn
    shown += [rules.user_soups.output.inferred] if "psoups_inferred" in USER_METHODS else []
    return expand([*shown, rules.user_answers.output[0]], seed=seed, user_method=USER_METHODS)

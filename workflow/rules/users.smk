# Users: their pairs, models that are trained on them, soups of their own; answers to them, judged, tables and figures.
from rlphf.ablations import ABLATIONS
from rlphf.evaluate.schemas import USER_TABLES
from rlphf.users.methods import BACKBONE, SOUPS
from rlphf.users.methods import METHODS as SERVING

USER_FIGURES = "users_accuracy users_win_rates users_length users_map cold_start user_ablations".split()
USER_METHODS = EXPERIMENT.user_evaluation.methods
RAW_USERS = EXPERIMENT.user_data.source != "testbed"
# {model of users: the sections of the configuration that it is trained with, if not P-DPO's}.
TRAINED_WITH = {"prm": ["prm"], "pooled": ["mt", "dpo.max_prompt", "dpo.max_length"]}


def varied(run, *names):
    """Return what a job of a run reads of its configuration: of the experiment's, or of a variation's."""
    found = variations(run.partition("/")[0], EXPERIMENT.ablations)
    return settings(*names, experiment=EXPERIMENT.varied(*found[run]) if run in found else EXPERIMENT)


def users_of(wildcards):
    """Return the users that a run is about, their pairs, and the prompts that they may be answered."""
    if RAW_USERS:
        found = rules.user_import.output
        return {
            name: expand(getattr(found, name), seed=run_of(wildcards.seed, "user_import"))
            for name in ("users", "pairs", "prompts")
        }
    own = made("user_pairs", [rules.user_pairs.output.users, rules.user_pairs.output.pairs])(wildcards)
    return {"users": own[0], "pairs": own[1], "prompts": made("prompts", rules.prompts.output)(wildcards)}


def answering(wildcards):
    """Return what shows that the models of a method of users are there."""
    model = SERVING[wildcards.user_method].model
    if model == BACKBONE:
        return []
    if model == SOUPS:
        kind = wildcards.user_method.removeprefix("psoups_")
        return made("user_soups", rules.user_soups.output[kind])(wildcards)
    return made("user_model", rules.user_model.output, model=model)(wildcards)


def user_results(wildcards=None, seed=EXPERIMENT.seed):
    """Return what the tables about the users of a seed are made from; nothing without methods."""
    if not USER_METHODS:
        return []
    found = expand(rules.user_answers.output, seed=seed, user_method=USER_METHODS)
    for run, (setting, _) in variations(seed, EXPERIMENT.ablations).items():
        found += expand(rules.user_answers.output, seed=run, user_method=ABLATIONS[setting])
    if not RAW_USERS:
        found += expand(rules.user_scores.output, seed=seed)
        if EXPERIMENT.population.unseen and {"pdpo_individual", "psoups_inferred"} <= set(USER_METHODS):
            found += expand(rules.cold_start.output, seed=seed)
    return found


rule user_pairs:
    input:
        prompts=made("prompts", rules.prompts.output),
        responses=made("rollouts", rules.rollouts.output, preference=PREFERENCES),
    output:
        users=f"{SEED}/users/pairs/users.parquet",
        pairs=f"{SEED}/users/pairs/pairs.parquet",
        new=f"{SEED}/users/pairs/new_pairs.parquet",
    log:
        f"{SEED}/logs/users/pairs.log",
    benchmark:
        f"{SEED}/benchmarks/users/pairs.tsv"
    params:
        settings=lambda wildcards: varied(wildcards.seed, "population", "annotator", "preferences", "cold_start.pairs"),
        source=source_digest("users pairs"),
        config=CONFIG,
        folder=subpath(output.pairs, parent=True),
    shell:
        "rlphf users pairs --config {params.config:q} --prompts {input.prompts:q} --responses {input.responses:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule user_import:
    input:
        EXPERIMENT.user_data.path or [],
    output:
        users=f"{SEED}/users/raw/users.parquet",
        pairs=f"{SEED}/users/raw/pairs.parquet",
        prompts=f"{SEED}/users/raw/prompts.parquet",
    log:
        f"{SEED}/logs/users/raw.log",
    benchmark:
        f"{SEED}/benchmarks/users/raw.tsv"
    params:
        settings=settings("user_data", "data.on_bad_record"),
        source=source_digest("users import"),
        config=CONFIG,
        folder=subpath(output.pairs, parent=True),
    shell:
        "rlphf users import --config {params.config:q} --out {params.folder:q} > {log:q} 2>&1"


rule user_model:
    input:
        unpack(users_of),
        backbone=made("backbone", rules.backbone.output),
    output:
        f"{SEED}/users/models/{{model}}/scores.parquet",
    log:
        f"{SEED}/logs/users/models/{{model}}.log",
    benchmark:
        f"{SEED}/benchmarks/users/models/{{model}}.tsv"
    params:
        settings=lambda wildcards: varied(wildcards.seed, "users", *TRAINED_WITH.get(wildcards.model, ["dpo"])),
        source=source_digest("users train"),
        config=CONFIG,
        folder=subpath(output[0], parent=True),
    shell:
        "rlphf users train --config {params.config:q} --model {wildcards.model:q} --pairs {input.pairs:q}"
        " --backbone {input.backbone:q} --users {input.users:q} --out {params.folder:q} > {log:q} 2>&1"


rule user_soups:
    input:
        unpack(users_of),
        backbone=rules.backbone.output,
        rewards=expand(rules.reward.output.adapter, preference=PREFERENCES, allow_missing=True),
        policies=expand(rules.ppo.output, preference=PREFERENCES, allow_missing=True),
    output:
        declared=f"{SEED}/users/soups/declared/scores.parquet",
        inferred=f"{SEED}/users/soups/inferred/scores.parquet",
    log:
        f"{SEED}/logs/users/soups.log",
    benchmark:
        f"{SEED}/benchmarks/users/soups.tsv"
    params:
        settings=settings("soup", "preferences", "user_evaluation.inferred_from", "cold_start.prior", "evaluation.split"),
        source=source_digest("users soups"),
        config=CONFIG,
        models=SEED,
        folder=subpath(output.declared, ancestor=2),
    shell:
        "rlphf users soups --config {params.config:q} --users {input.users:q} --pairs {input.pairs:q} --backbone {input.backbone:q}"
        " --models {params.models:q} --out {params.folder:q} > {log:q} 2>&1"


rule user_answers:
    input:
        unpack(users_of),
        backbone=made("backbone", rules.backbone.output),
        models=answering,
    output:
        f"{SEED}/users/answers/{{user_method}}/answers.parquet",
        f"{SEED}/users/answers/{{user_method}}/scores.parquet",
    log:
        f"{SEED}/logs/users/answers/{{user_method}}.log",
    benchmark:
        f"{SEED}/benchmarks/users/answers/{{user_method}}.tsv"
    params:
        settings=lambda wildcards: varied(
            wildcards.seed, "evaluation.split", "evaluation.samples", "evaluation.decoding", "users.text_place"
        )
        | settings("user_evaluation.prompts", "user_evaluation.history"),
        source=source_digest("users answer"),
        config=CONFIG,
        models=lambda wildcards, input: ["--models", str(Path(input.models[0]).parent)] if input.models else [],
        folder=subpath(output[0], parent=True),
    shell:
        "rlphf users answer --config {params.config:q} --method {wildcards.user_method:q} --prompts {input.prompts:q}"
        " --users {input.users:q} --pairs {input.pairs:q} --backbone {input.backbone:q} {params.models:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule user_scores:
    input:
        unpack(users_of),
        answers=expand(rules.user_answers.output[0], user_method=USER_METHODS, allow_missing=True),
    output:
        f"{SEED}/users/judge/oracle/scores.parquet",
    log:
        f"{SEED}/logs/users/judge.log",
    benchmark:
        f"{SEED}/benchmarks/users/judge.tsv"
    params:
        source=source_digest("judge users"),
        config=CONFIG,
    shell:
        "rlphf judge users --config {params.config:q} --prompts {input.prompts:q} --users {input.users:q}"
        " --answers {input.answers:q} --out {output:q} > {log:q} 2>&1"


rule cold_start:
    input:
        unpack(users_of),
        new=rules.user_pairs.output.new,
        backbone=rules.backbone.output,
        rewards=expand(rules.reward.output.adapter, preference=PREFERENCES, allow_missing=True),
        policies=expand(rules.ppo.output, preference=PREFERENCES, allow_missing=True),
        model=expand(rules.user_model.output, model="individual", allow_missing=True),
    output:
        f"{SEED}/users/cold_start/scores.parquet",
    log:
        f"{SEED}/logs/users/cold_start.log",
    benchmark:
        f"{SEED}/benchmarks/users/cold_start.tsv"
    params:
        settings=settings("cold_start", "soup", "preferences", "user_evaluation.prompts", "evaluation"),
        source=source_digest("users cold-start"),
        config=CONFIG,
        models=SEED,
        folder=subpath(output[0], parent=True),
    shell:
        "rlphf users cold-start --config {params.config:q} --prompts {input.prompts:q} --users {input.users:q}"
        " --pairs {input.new:q} --backbone {input.backbone:q} --models {params.models:q} --out {params.folder:q} > {log:q} 2>&1"


rule user_tables:
    input:
        user_results,
    output:
        expand(f"{TABLES}/{{table}}.{{kind}}", table=USER_TABLES, kind=["parquet", "csv", "md"]),
    log:
        f"{OWN}/logs/user_tables.log",
    params:
        settings=settings("user_evaluation", "evaluation.bootstrap", "ablations"),
        source=source_digest("users tables"),
        config=f"{OWN}/config.yaml",
        run=OWN,
        folder=subpath(output[0], parent=True),
    shell:
        "rlphf users tables --config {params.config:q} --seed-folder {params.run:q} --out {params.folder:q} > {log:q} 2>&1"


rule user_figures:
    input:
        tables=rules.user_tables.output,
        notebook="notebooks/users.ipynb",
    output:
        expand(f"{FIGURES}/{{figure}}.{{kind}}", figure=USER_FIGURES, kind=["png", "pdf"]),
        notebook=f"{FIGURES}/users.ipynb",
    log:
        f"{OWN}/logs/user_figures.log",
    params:
        source=source_digest("figures"),
        tables=subpath(input[0], parent=True),
        folder=subpath(output.notebook, parent=True),
    shell:
        "rlphf figures --notebook {input.notebook:q} --tables {params.tables:q} --out {params.folder:q} > {log:q} 2>&1"


rule users:
    # The part about users alone, for experiments that have no preferences to merge.
    input:
        rules.user_tables.output,
        rules.user_figures.output,

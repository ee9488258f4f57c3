# Users: their pairs, models that are trained on them, soups of their own; answers to them, judged, tables and figures.
from rlphf.evaluate.schemas import USER_TABLES

USER_FIGURES = "users_accuracy users_win_rates users_length users_map cold_start user_ablations".split()


rule user_pairs:
    input:
        prompts=output_of("prompts", rules.prompts.output),
        responses=output_of("rollouts", rules.rollouts.output, preference=SHARED),
    output:
        users=f"{SEED}/users/pairs/users.parquet",
        pairs=f"{SEED}/users/pairs/pairs.parquet",
        new=f"{SEED}/users/pairs/new_pairs.parquet",
    log:
        f"{SEED}/logs/users/pairs.log",
    benchmark:
        f"{SEED}/benchmarks/users/pairs.tsv"
    params:
        # Of new users as many pairs are drawn as are ever known; how many of them when is a matter of the cold start.
        settings=lambda wildcards: varied(wildcards.seed, "population", "annotator")
        | {"preferences": SHARED, "new_pairs": max(EXPERIMENT.cold_start.pairs)},
        source=source_digest("users pairs"),
        config=CONFIG,
        folder=subpath(output.pairs, parent=True),
    shell:
        "rlphf users pairs --config {params.config:q} --prompts {input.prompts:q} --responses {input.responses:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule user_import:
    input:
        files_of(EXPERIMENT.user_data.path) if EXPERIMENT.user_data.path else [],
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
        backbone=output_of("backbone", rules.backbone.output),
    output:
        f"{SEED}/users/models/{{model}}/scores.parquet",
    log:
        f"{SEED}/logs/users/models/{{model}}.log",
    benchmark:
        f"{SEED}/benchmarks/users/models/{{model}}.tsv"
    resources:
        gpu=GPU,
    params:
        settings=lambda wildcards: varied(wildcards.seed, *training_settings(wildcards.model)),
        source=source_digest("users train"),
        config=CONFIG,
        folder=subpath(output[0], parent=True),
    shell:
        "rlphf --processes {resources.gpu:q} users train --config {params.config:q} --model {wildcards.model:q}"
        " --pairs {input.pairs:q} --backbone {input.backbone:q} --users {input.users:q} --out {params.folder:q} > {log:q} 2>&1"


rule user_soups:
    input:
        unpack(users_of),
        backbone=rules.backbone.output,
        rewards=expand(rules.reward.output.adapter, preference=SHARED, allow_missing=True),
        policies=expand(rules.ppo.output, preference=SHARED, allow_missing=True),
    output:
        declared=f"{SEED}/users/soups/declared/scores.parquet",
        inferred=f"{SEED}/users/soups/inferred/scores.parquet",
    log:
        f"{SEED}/logs/users/soups.log",
    benchmark:
        f"{SEED}/benchmarks/users/soups.tsv"
    params:
        settings=settings(*MERGED_BY, "user_evaluation.inferred_from", "cold_start.prior", "evaluation.split")
        | {"preferences": SHARED},
        source=source_digest("users soups"),
        config=CONFIG,
        models=subpath(output.declared, ancestor=4),
        folder=subpath(output.declared, ancestor=2),
    shell:
        "rlphf users soups --config {params.config:q} --users {input.users:q} --pairs {input.pairs:q} --backbone {input.backbone:q}"
        " --models {params.models:q} --out {params.folder:q} > {log:q} 2>&1"


rule user_answers:
    input:
        unpack(users_of),
        backbone=output_of("backbone", rules.backbone.output),
        models=answering,
    output:
        f"{SEED}/users/answers/{{user_method}}/answers.parquet",
        f"{SEED}/users/answers/{{user_method}}/scores.parquet",
    log:
        f"{SEED}/logs/users/answers/{{user_method}}.log",
    benchmark:
        f"{SEED}/benchmarks/users/answers/{{user_method}}.tsv"
    params:
        settings=user_answer_settings,
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
        rewards=expand(rules.reward.output.adapter, preference=SHARED, allow_missing=True),
        policies=expand(rules.ppo.output, preference=SHARED, allow_missing=True),
        model=expand(rules.user_model.output, model="individual", allow_missing=True),
    output:
        f"{SEED}/users/cold_start/scores.parquet",
    log:
        f"{SEED}/logs/users/cold_start.log",
    benchmark:
        f"{SEED}/benchmarks/users/cold_start.tsv"
    params:
        settings=settings(
            *("cold_start", *MERGED_BY, "user_evaluation.prompts"),
            *("evaluation.split", "evaluation.samples", "evaluation.decoding"),
        )
        | {"preferences": SHARED},
        source=source_digest("users cold-start"),
        config=CONFIG,
        models=subpath(output[0], ancestor=3),
        folder=subpath(output[0], parent=True),
    shell:
        "rlphf users cold-start --config {params.config:q} --prompts {input.prompts:q} --users {input.users:q}"
        " --pairs {input.new:q} --backbone {input.backbone:q} --models {params.models:q} --out {params.folder:q} > {log:q} 2>&1"


rule user_tables:
    input:
        user_results,
    output:
        expand(f"{TABLES}/{{table}}.parquet", table=USER_TABLES),
        reported("Tables", TABLES, USER_TABLES, "csv", "md"),
    log:
        f"{OWN}/logs/user_tables.log",
    params:
        settings=settings("user_evaluation.methods", "evaluation.bootstrap", "ablations"),
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
        reported("Figures", FIGURES, USER_FIGURES, "png"),
        expand(f"{FIGURES}/{{figure}}.pdf", figure=USER_FIGURES),
        notebook=f"{FIGURES}/users.ipynb",
    log:
        f"{OWN}/logs/user_figures.log",
    params:
        source=source_digest("figures"),
        tables=subpath(input[0], parent=True),
        folder=subpath(output.notebook, parent=True),
    shell:
        "rlphf figures --notebook {input.notebook:q} --tables {params.tables:q} --out {params.folder:q} > {log:q} 2>&1"


rule user_explorer:
    input:
        lambda wildcards: users_shown(),
    output:
        f"{RESULTS}/users.html",
    log:
        f"{OWN}/logs/user_explorer.log",
    params:
        settings=settings(
            *("evaluation.split", "user_evaluation.methods", "user_data.source"),
            # The axes by which the page sets weights of soups.
            "combination_preferences",
        )
        | shown_of_own(),
        source=source_digest("explorer"),
        results=subpath(output[0], parent=True),
        run=OWN,
    shell:
        "rlphf explorer --users --results {params.results:q} --seed-folder {params.run:q} --out {output:q} > {log:q} 2>&1"


rule users:
    # The part about users alone, for experiments that have no preferences to merge.
    input:
        rules.user_tables.output,
        rules.user_figures.output,
        rules.user_explorer.output if users_answered() else [],

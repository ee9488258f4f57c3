# Responses of every method, judged; tables, figures, and the summary that ends a run.
from rlphf.evaluate.schemas import RUN_TABLES


rule generate:
    input:
        prompts=output_of("prompts", rules.prompts.output),
        backbone=output_of("backbone", rules.backbone.output),
        models=needed_models,
    output:
        f"{SEED}/responses/{{method}}/responses.parquet",
    log:
        f"{SEED}/logs/generate/{{method}}.log",
    benchmark:
        f"{SEED}/benchmarks/generate/{{method}}.tsv"
    params:
        settings=lambda wildcards: answer_settings(wildcards.method),
        source=source_digest("generate"),
        config=CONFIG,
        models=models_folder,
    shell:
        "rlphf generate --config {params.config:q} --method {wildcards.method:q} --prompts {input.prompts:q}"
        " --backbone {input.backbone:q} --models {params.models:q} --out {output:q} > {log:q} 2>&1"


rule oracle:
    input:
        prompts=output_of("prompts", rules.prompts.output),
        responses=answered,
    output:
        f"{SEED}/judge/oracle/scores.parquet",
    log:
        f"{SEED}/logs/judge/oracle.log",
    benchmark:
        f"{SEED}/benchmarks/judge/oracle.tsv"
    params:
        settings=own_settings("rule", *PREFERENCES),
        source=source_digest("judge oracle"),
        config=CONFIG,
    shell:
        "rlphf judge oracle --config {params.config:q} --prompts {input.prompts:q} --responses {input.responses:q}"
        " --out {output:q} > {log:q} 2>&1"


rule text_rules:
    input:
        prompts=rules.prompts.output,
        responses=answered,
    output:
        f"{SEED}/judge/rules/scores.parquet",
    log:
        f"{SEED}/logs/judge/rules.log",
    benchmark:
        f"{SEED}/benchmarks/judge/rules.tsv"
    params:
        settings={"methods": METHODS, "first": JUDGES[0] == "rules"} | own_settings("rule", *PREFERENCES),
        source=source_digest("judge rules"),
        config=CONFIG,
    shell:
        "rlphf judge rules --config {params.config:q} --prompts {input.prompts:q} --responses {input.responses:q}"
        " --out {output:q} > {log:q} 2>&1"


rule gold:
    input:
        prompts=rules.prompts.output,
        responses=seen_by_gold,
        backbone=rules.backbone.output,
        reward=expand(rules.reward.output.adapter, preference=GOLD, allow_missing=True),
    output:
        f"{SEED}/judge/gold/scores.parquet",
    log:
        f"{SEED}/logs/judge/gold.log",
    benchmark:
        f"{SEED}/benchmarks/judge/gold.tsv"
    params:
        settings=settings("combination_preferences")
        | {"first": JUDGES[0] == "gold"}
        | own_settings("prompt", *COMBINED, *(PREFERENCES if JUDGES[0] == "gold" else [])),
        source=source_digest("judge gold"),
        config=CONFIG,
    shell:
        "rlphf judge gold --config {params.config:q} --prompts {input.prompts:q} --responses {input.responses:q}"
        " --backbone {input.backbone:q} --reward {input.reward:q} --out {output:q} > {log:q} 2>&1"


rule llm:
    input:
        prompts=rules.prompts.output,
        responses=compared,
    output:
        f"{SEED}/judge/llm/comparisons.parquet",
    log:
        f"{SEED}/logs/judge/llm.log",
    benchmark:
        f"{SEED}/benchmarks/judge/llm.tsv"
    params:
        settings=settings("combination_preferences", *(f"evaluation.llm.{name}" for name in ASKED))
        | own_settings("judge", *COMBINED),
        source=source_digest("judge llm"),
        config=CONFIG,
    shell:
        "rlphf judge llm --config {params.config:q} --prompts {input.prompts:q} --responses {input.responses:q}"
        " --out {output:q} > {log:q} 2>&1"


rule tables:
    input:
        unpack(measured),
    output:
        expand(f"{TABLES}/{{table}}.parquet", table=RUN_TABLES),
        reported("Tables", TABLES, RUN_TABLES, "csv", "md"),
    log:
        f"{OWN}/logs/tables.log",
    params:
        settings=settings(*MEASURED),
        source=source_digest("tables"),
        config=f"{OWN}/config.yaml",
        run=OWN,
        folder=subpath(output[0], parent=True),
    shell:
        "rlphf tables --config {params.config:q} --seed-folder {params.run:q} --out {params.folder:q} > {log:q} 2>&1"


rule claims:
    input:
        [path for seed in SEEDS for paths in measured(seed=seed).values() for path in paths],
        [path for seed in SEEDS for path in user_results(seed=seed)],
        ledger="config/claims.yaml",
    output:
        f"{TABLES}/claims.parquet",
        reported("Tables", TABLES, ["claims"], "csv", "md"),
    log:
        f"{OWN}/logs/claims.log",
    params:
        settings=settings(*MEASURED, "user_evaluation.methods", "ablations"),
        source=source_digest("claims"),
        configs=[f"{RESULTS}/seed-{seed}/config.yaml" for seed in SEEDS],
        folder=subpath(output[0], parent=True),
    shell:
        "rlphf claims --ledger {input.ledger:q} --configs {params.configs:q} --out {params.folder:q} > {log:q} 2>&1"


rule figures:
    input:
        tables=rules.tables.output,
        notebook="notebooks/results.ipynb",
    output:
        reported("Figures", FIGURES, FIGURE_NAMES, "png"),
        expand(f"{FIGURES}/{{figure}}.pdf", figure=FIGURE_NAMES),
        notebook=f"{FIGURES}/results.ipynb",
    log:
        f"{OWN}/logs/figures.log",
    params:
        source=source_digest("figures"),
        tables=subpath(input[0], parent=True),
        folder=subpath(output.notebook, parent=True),
    shell:
        "rlphf figures --notebook {input.notebook:q} --tables {params.tables:q} --out {params.folder:q} > {log:q} 2>&1"


rule explorer:
    input:
        prompts=expand(rules.prompts.output, seed=EXPERIMENT.seed)[0],
        responses=expand(
            rules.generate.output,
            seed=EXPERIMENT.seed,
            method=[*METHODS, *(["front"] if EXPERIMENT.evaluation.front else [])],
        ),
        judged=verdicts(EXPERIMENT.seed)[0],
        users=users_shown(),
        tables=[f"{TABLES}/curves.parquet", f"{TABLES}/front.parquet"],
    output:
        f"{RESULTS}/explorer.html",
    log:
        f"{OWN}/logs/explorer.log",
    params:
        settings=settings(
            *("evaluation.methods", "evaluation.front", "evaluation.front_points", "evaluation.split", "evaluation.judges"),
            *("combination_preferences", "soup.weights", "soup.scale", "soup.compared"),
            *("user_evaluation.methods", "user_data.source"),
        )
        | shown_of_own(),
        source=source_digest("explorer"),
        results=subpath(output[0], parent=True),
        run=subpath(input.prompts, ancestor=2),
    shell:
        "rlphf explorer --results {params.results:q} --seed-folder {params.run:q} --out {output:q} > {log:q} 2>&1"


rule summary:
    input:
        figures=rules.figures.output,
        tables=rules.tables.output,
        users=rules.user_tables.output,
        claims=rules.claims.output,
    output:
        f"{RESULTS}/summary.txt",
    log:
        f"{OWN}/logs/summary.log",
    params:
        source=source_digest("summary"),
        figures=subpath(input[0], parent=True),
        tables=subpath(input[-1], parent=True),
        soups=f"{OWN}/soups",
    shell:
        "rlphf summary --tables {params.tables:q} --figures {params.figures:q} --soups {params.soups:q} --out {output:q}"
        " > {log:q} 2>&1"

# Responses of every method, judged; tables, figures, and the summary that ends a run.


def needed_models(wildcards):
    """Return what the responses of a method are made with, besides the backbone."""
    if wildcards.method == "adapters":
        return expand(f"{SEED}/ppo/{{preference}}/adapter", preference=PREFERENCES)
    return rules.soups.output.soups if wildcards.method.startswith("psoups") else []


rule generate:
    input:
        prompts=rules.prompts.output,
        backbone=rules.backbone.output,
        models=needed_models,
    output:
        f"{SEED}/responses/{{method}}/responses.parquet",
    params:
        settings=settings("evaluation", "combination_preferences"),
        source=source_digest("generate"),
    log:
        f"{SEED}/logs/generate/{{method}}.log",
    benchmark:
        f"{SEED}/benchmarks/generate/{{method}}.tsv"
    shell:
        "rlphf generate --config {CONFIG:q} --method {wildcards.method:q} --prompts {input.prompts:q}"
        " --backbone {input.backbone:q} --adapters {SEED:q}/ppo --soups {SEED:q}/soups --out {output:q} > {log:q} 2>&1"


rule judge:
    input:
        prompts=rules.prompts.output,
        responses=expand(rules.generate.output, method=[*METHODS, "adapters"]),
    output:
        f"{SEED}/judge/oracle.parquet",
    params:
        source=source_digest("judge"),
    log:
        f"{SEED}/logs/judge.log",
    benchmark:
        f"{SEED}/benchmarks/judge.tsv"
    shell:
        "rlphf judge --config {CONFIG:q} --prompts {input.prompts:q} --responses {input.responses:q} --out {output:q} > {log:q} 2>&1"


rule tables:
    input:
        counts=rules.data.output.counts,
        judged=rules.judge.output,
        merges=rules.soups.output.merges,
        scores=expand(rules.reward.output.scores, preference=[*PREFERENCES, "general"]),
        adapters=expand(rules.ppo.output, preference=PREFERENCES),
    output:
        expand(f"{TABLES}/{{table}}.{{kind}}", table=TABLE_NAMES, kind=["parquet", "csv", "md"]),
    params:
        settings=settings("evaluation", "preferences", "combination_preferences"),
        source=source_digest("tables"),
    log:
        f"{SEED}/logs/tables.log",
    shell:
        "rlphf tables --config {CONFIG:q} --seed-folder {SEED:q} --out {TABLES:q} > {log:q} 2>&1"


rule figures:
    input:
        tables=rules.tables.output,
        notebook="notebooks/results.ipynb",
    output:
        expand(f"{FIGURES}/{{figure}}.{{kind}}", figure=FIGURE_NAMES, kind=["png", "pdf"]),
        notebook=f"{FIGURES}/results.ipynb",
    params:
        source=source_digest("figures"),
    log:
        f"{SEED}/logs/figures.log",
    shell:
        "rlphf figures --notebook {input.notebook:q} --tables {TABLES:q} --out {FIGURES:q} > {log:q} 2>&1"


rule summary:
    input:
        tables=rules.tables.output,
        figures=rules.figures.output,
    output:
        f"{RESULTS}/summary.txt",
    params:
        source=source_digest("summary"),
    log:
        f"{SEED}/logs/summary.log",
    shell:
        "rlphf summary --tables {TABLES:q} --figures {FIGURES:q} --soups {SEED:q}/soups > {output:q} 2> {log:q}"

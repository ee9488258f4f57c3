# Responses of every method, judged; tables, figures, and the summary that ends a run.


rule generate:
    input:
        prompts=rules.prompts.output,
        backbone=rules.backbone.output,
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
        models=subpath(output[0], ancestor=3),
    shell:
        "rlphf generate --config {params.config:q} --method {wildcards.method:q} --prompts {input.prompts:q}"
        " --backbone {input.backbone:q} --models {params.models:q} --out {output:q} > {log:q} 2>&1"


rule judge:
    input:
        prompts=rules.prompts.output,
        responses=expand(rules.generate.output, method=[*METHODS, *OTHERS]),
    output:
        f"{SEED}/judge/oracle.parquet",
    log:
        f"{SEED}/logs/judge.log",
    benchmark:
        f"{SEED}/benchmarks/judge.tsv"
    params:
        source=source_digest("judge"),
        config=CONFIG,
    shell:
        "rlphf judge --config {params.config:q} --prompts {input.prompts:q} --responses {input.responses:q}"
        " --out {output:q} > {log:q} 2>&1"


rule tables:
    input:
        counts=rules.data.output.counts,
        judged=rules.judge.output,
        merges=rules.soups.output.merges,
        scores=expand(rules.reward.output.scores, preference=REWARDS),
        general=expand(rules.annotate.output, preference="general"),
        adapters=expand(rules.ppo.output, preference=PREFERENCES),
    output:
        expand(f"{TABLES}/{{table}}.{{kind}}", table=TABLE_NAMES, kind=["parquet", "csv", "md"]),
    log:
        f"{SEED}/logs/tables.log",
    params:
        settings=settings("evaluation", "preferences", "combination_preferences", "ppo.batch_size"),
        source=source_digest("tables"),
        config=CONFIG,
        run=subpath(input.counts, ancestor=2),
        folder=subpath(output[0], parent=True),
    shell:
        "rlphf tables --config {params.config:q} --seed-folder {params.run:q} --out {params.folder:q} > {log:q} 2>&1"


rule figures:
    input:
        tables=rules.tables.output,
        notebook="notebooks/results.ipynb",
    output:
        expand(f"{FIGURES}/{{figure}}.{{kind}}", figure=FIGURE_NAMES, kind=["png", "pdf"]),
        notebook=f"{FIGURES}/results.ipynb",
    log:
        f"{SEED}/logs/figures.log",
    params:
        source=source_digest("figures"),
        tables=subpath(input[0], parent=True),
        folder=subpath(output.notebook, parent=True),
    shell:
        "rlphf figures --notebook {input.notebook:q} --tables {params.tables:q} --out {params.folder:q} > {log:q} 2>&1"


rule summary:
    input:
        figures=rules.figures.output,
        tables=rules.tables.output,
    output:
        f"{RESULTS}/summary.txt",
    log:
        f"{SEED}/logs/summary.log",
    params:
        source=source_digest("summary"),
        figures=subpath(input[0], parent=True),
        tables=subpath(input[-1], parent=True),
        soups=f"{SEED}/soups",
    shell:
        "rlphf summary --tables {params.tables:q} --figures {params.figures:q} --soups {params.soups:q} > {output:q} 2> {log:q}"

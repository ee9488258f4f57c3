# Raw data and the testbed to prompts, rollouts and annotated pairs.


rule data:
    input:
        RAW,
    output:
        pairs=f"{SEED}/data/pairs.parquet",
        prompts=f"{SEED}/data/prompts.parquet",
        counts=f"{SEED}/data/data.parquet",
    log:
        f"{SEED}/logs/data.log",
    benchmark:
        f"{SEED}/benchmarks/data.tsv"
    params:
        settings=settings("data.sources", "data.on_bad_record", "data.validation", "data.test"),
        source=source_digest("data prepare"),
        config=CONFIG,
        folder=subpath(output.pairs, parent=True),
    shell:
        "rlphf data prepare --config {params.config:q} --out {params.folder:q} > {log:q} 2>&1"


rule prompts:
    input:
        PROMPT_FILES,
    output:
        f"{SEED}/prompts/prompts.parquet",
    log:
        f"{SEED}/logs/prompts.log",
    benchmark:
        f"{SEED}/benchmarks/prompts.tsv"
    params:
        settings=settings("prompts", "testbed"),
        source=source_digest("data prompts"),
        config=CONFIG,
    shell:
        "rlphf data prompts --config {params.config:q} --out {output:q} > {log:q} 2>&1"


rule rollouts:
    input:
        prompts=rules.prompts.output,
        backbone=f"{SEED}/backbone/model",
    output:
        f"{SEED}/rollouts/{{preference}}/responses.parquet",
    log:
        f"{SEED}/logs/rollouts/{{preference}}.log",
    benchmark:
        f"{SEED}/benchmarks/rollouts/{{preference}}.tsv"
    params:
        settings=lambda wildcards: settings("rollouts") | own_settings("prompt", wildcards.preference),
        source=source_digest("rollouts"),
        config=CONFIG,
    shell:
        "rlphf rollouts --config {params.config:q} --preference {wildcards.preference:q} --prompts {input.prompts:q}"
        " --backbone {input.backbone:q} --out {output:q} > {log:q} 2>&1"


rule annotate:
    input:
        prompts=rules.prompts.output,
        responses=rules.rollouts.output,
        backbone=f"{SEED}/backbone/model",
        model=ANNOTATOR,
    output:
        f"{SEED}/pairs/{{preference}}/pairs.parquet",
    log:
        f"{SEED}/logs/annotate/{{preference}}.log",
    benchmark:
        f"{SEED}/benchmarks/annotate/{{preference}}.tsv"
    params:
        settings=lambda wildcards: settings("annotator") | own_settings("rule", wildcards.preference),
        source=source_digest("annotate"),
        config=CONFIG,
    shell:
        "rlphf annotate --config {params.config:q} --preference {wildcards.preference:q} --prompts {input.prompts:q}"
        " --responses {input.responses:q} --backbone {input.backbone:q} --out {output:q} > {log:q} 2>&1"

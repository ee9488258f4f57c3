# Raw data and the testbed to prompts, rollouts and annotated pairs.


rule data:
    output:
        pairs=f"{SEED}/data/pairs.parquet",
        prompts=f"{SEED}/data/prompts.parquet",
        counts=f"{SEED}/data/data.parquet",
    params:
        settings=settings("data"),
        source=source_digest("data prepare"),
    log:
        f"{SEED}/logs/data.log",
    benchmark:
        f"{SEED}/benchmarks/data.tsv"
    shell:
        "rlphf data prepare --config {CONFIG:q} --out {SEED:q}/data > {log:q} 2>&1"


rule prompts:
    output:
        f"{SEED}/prompts/prompts.parquet",
    params:
        settings=settings("testbed"),
        source=source_digest("data testbed"),
    log:
        f"{SEED}/logs/prompts.log",
    benchmark:
        f"{SEED}/benchmarks/prompts.tsv"
    shell:
        "rlphf data testbed --config {CONFIG:q} --out {output:q} > {log:q} 2>&1"


rule rollouts:
    input:
        prompts=rules.prompts.output,
        backbone=f"{SEED}/backbone/model",
    output:
        f"{SEED}/rollouts/{{preference}}/responses.parquet",
    params:
        settings=settings("rollouts"),
        source=source_digest("rollouts"),
    log:
        f"{SEED}/logs/rollouts/{{preference}}.log",
    benchmark:
        f"{SEED}/benchmarks/rollouts/{{preference}}.tsv"
    shell:
        "rlphf rollouts --config {CONFIG:q} --preference {wildcards.preference:q} --prompts {input.prompts:q}"
        " --backbone {input.backbone:q} --out {output:q} > {log:q} 2>&1"


rule annotate:
    input:
        prompts=rules.prompts.output,
        responses=rules.rollouts.output,
        backbone=f"{SEED}/backbone/model",
    output:
        f"{SEED}/pairs/{{preference}}/pairs.parquet",
    params:
        settings=settings("annotator"),
        source=source_digest("annotate"),
    log:
        f"{SEED}/logs/annotate/{{preference}}.log",
    benchmark:
        f"{SEED}/benchmarks/annotate/{{preference}}.tsv"
    shell:
        "rlphf annotate --config {CONFIG:q} --preference {wildcards.preference:q} --prompts {input.prompts:q}"
        " --responses {input.responses:q} --backbone {input.backbone:q} --out {output:q} > {log:q} 2>&1"

# The backbone; per preference a reward model and a policy; soups per combination.


rule backbone:
    output:
        directory(f"{SEED}/backbone/model"),
    params:
        settings=settings("backbone", "testbed"),
        source=source_digest("backbone"),
    log:
        f"{SEED}/logs/backbone.log",
    benchmark:
        f"{SEED}/benchmarks/backbone.tsv"
    shell:
        "rlphf backbone --config {CONFIG:q} --out {output:q} > {log:q} 2>&1"


rule reward:
    input:
        backbone=rules.backbone.output,
        pairs=rules.annotate.output,
    output:
        adapter=directory(f"{SEED}/reward/{{preference}}/adapter"),
        scores=f"{SEED}/reward/{{preference}}/scores.parquet",
    params:
        settings=settings("reward"),
        source=source_digest("reward train"),
        folder=lambda wildcards: f"{SEED}/reward/{wildcards.preference}",
    log:
        f"{SEED}/logs/reward/{{preference}}.log",
    benchmark:
        f"{SEED}/benchmarks/reward/{{preference}}.tsv"
    shell:
        "rlphf reward train --config {CONFIG:q} --preference {wildcards.preference:q} --backbone {input.backbone:q}"
        " --pairs {input.pairs:q} --out {params.folder:q} > {log:q} 2>&1"


rule ppo:
    input:
        prompts=rules.prompts.output,
        backbone=rules.backbone.output,
        reward=rules.reward.output.adapter,
    output:
        directory(f"{SEED}/ppo/{{preference}}/adapter"),
    params:
        settings=settings("ppo"),
        source=source_digest("policy train"),
        folder=lambda wildcards: f"{SEED}/ppo/{wildcards.preference}",
    log:
        f"{SEED}/logs/ppo/{{preference}}.log",
    benchmark:
        f"{SEED}/benchmarks/ppo/{{preference}}.tsv"
    shell:
        "rlphf policy train --config {CONFIG:q} --preference {wildcards.preference:q} --prompts {input.prompts:q}"
        " --backbone {input.backbone:q} --reward {input.reward:q} --out {params.folder:q} > {log:q} 2>&1"


rule soups:
    input:
        expand(f"{SEED}/ppo/{{preference}}/adapter", preference=EXPERIMENT.combination_preferences),
    output:
        soups=[directory(f"{SEED}/soups/{combination}") for combination in EXPERIMENT.combinations],
        merges=f"{SEED}/soups/merges.parquet",
    params:
        settings=settings("soup", "combination_preferences"),
        source=source_digest("soup all"),
    log:
        f"{SEED}/logs/soups.log",
    benchmark:
        f"{SEED}/benchmarks/soups.tsv"
    shell:
        "rlphf soup all --config {CONFIG:q} --adapters {SEED:q}/ppo --out {SEED:q}/soups > {log:q} 2>&1"

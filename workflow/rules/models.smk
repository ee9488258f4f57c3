# The backbone; per preference a reward model and a policy; soups per combination.


rule backbone:
    input:
        GIVEN_BACKBONE,
    output:
        directory(f"{SEED}/backbone/model"),
    log:
        f"{SEED}/logs/backbone.log",
    benchmark:
        f"{SEED}/benchmarks/backbone.tsv"
    params:
        settings=settings("backbone", "testbed"),
        source=source_digest("backbone"),
        config=CONFIG,
    shell:
        "rlphf backbone --config {params.config:q} --out {output:q} > {log:q} 2>&1"


rule reward:
    input:
        backbone=output_of("backbone", rules.backbone.output),
        pairs=lambda wildcards: learned_pairs(wildcards.preference)(wildcards),
        prompts=lambda wildcards: kept_apart(wildcards.preference)(wildcards),
    output:
        adapter=directory(f"{SEED}/reward/{{preference}}/adapter"),
        scores=f"{SEED}/reward/{{preference}}/scores.parquet",
    log:
        f"{SEED}/logs/reward/{{preference}}.log",
    benchmark:
        f"{SEED}/benchmarks/reward/{{preference}}.tsv"
    resources:
        gpu=GPU,
    params:
        settings=lambda wildcards: settings(
            *TRAINED_BY,
            *(
                ["evaluation.gold_epochs", "evaluation.gold_raw", "ppo.keep_by"]
                if wildcards.preference in (GOLD, SELECTOR)
                else []
            ),
        )
        | scored_as(wildcards.preference)
        | {"learned": learned_from(wildcards.preference, EXPERIMENT)},
        source=source_digest("reward train"),
        config=CONFIG,
        prompts=lambda wildcards, input: ["--prompts", str(input.prompts)] if input.prompts else [],
        folder=subpath(output.adapter, parent=True),
    shell:
        "rlphf --processes {resources.gpu:q} reward train --config {params.config:q} --preference {wildcards.preference:q}"
        " --backbone {input.backbone:q} --pairs {input.pairs:q} {params.prompts:q} --out {params.folder:q} > {log:q} 2>&1"


# Preferences whose policies train in one process each; the others' policies, and P-MORL's, train alone.
TOGETHER = [part for part in trained_together(EXPERIMENT) if len(part) > 1]
ALONE = sorted({*PREFERENCES, GENERAL, PMORL} - {name for part in TOGETHER for name in part})


rule ppo:
    input:
        prompts=output_of("prompts", rules.prompts.output),
        backbone=output_of("backbone", rules.backbone.output),
        reward=lambda wildcards: rewards_of([wildcards.preference])(wildcards),
        selector=output_of("reward", rules.reward.output.adapter, preference=SELECTORS),
    output:
        directory(f"{SEED}/ppo/{{preference}}/adapter"),
    log:
        f"{SEED}/logs/ppo/{{preference}}.log",
    benchmark:
        f"{SEED}/benchmarks/ppo/{{preference}}.tsv"
    wildcard_constraints:
        preference="|".join(ALONE),
    resources:
        gpu=GPU,
    params:
        settings=lambda wildcards: settings(
            "ppo", *TRAINED_WRONG, *(["pmorl", "combination_preferences"] if wildcards.preference == PMORL else [])
        )
        | ruled([wildcards.preference]),
        source=source_digest("policy train"),
        config=CONFIG,
        reward=lambda wildcards, input: ["--reward", str(input.reward)] if input.reward else [],
        selector=lambda wildcards, input: ["--selector", str(input.selector)] if input.selector else [],
        folder=subpath(output[0], parent=True),
    shell:
        "rlphf --processes {resources.gpu:q} policy train --config {params.config:q} --preference {wildcards.preference:q}"
        " --prompts {input.prompts:q} --backbone {input.backbone:q} {params.reward:q} {params.selector:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


for part in TOGETHER:

    rule:
        name:
            f"ppo_{'_'.join(part)}"
        input:
            prompts=output_of("prompts", rules.prompts.output),
            backbone=output_of("backbone", rules.backbone.output),
            reward=rewards_of(part),
            selector=output_of("reward", rules.reward.output.adapter, preference=SELECTORS),
        output:
            [directory(f"{SEED}/ppo/{name}/adapter") for name in part],
        log:
            f"{SEED}/logs/ppo/{'+'.join(part)}.log",
        benchmark:
            f"{SEED}/benchmarks/ppo/{'+'.join(part)}.tsv"
        params:
            settings=settings("ppo", *TRAINED_WRONG) | ruled(part),
            source=source_digest("policy train"),
            config=CONFIG,
            preferences=part,
            reward=lambda wildcards, input: ["--reward", *map(str, input.reward)] if input.reward else [],
            selector=lambda wildcards, input: ["--selector", str(input.selector)] if input.selector else [],
            folders=lambda wildcards, output: [str(Path(path).parent) for path in output],
        shell:
            "rlphf policy train --config {params.config:q} --preference {params.preferences:q} --prompts {input.prompts:q}"
            " --backbone {input.backbone:q} {params.reward:q} {params.selector:q}"
            " --out {params.folders:q} > {log:q} 2>&1"


rule mt:
    input:
        backbone=rules.backbone.output,
        pairs=learned_pairs(MT),
        prompts=kept_apart(MT),
    output:
        directory(f"{SEED}/sft/mt/adapter"),
    log:
        f"{SEED}/logs/sft/mt.log",
    benchmark:
        f"{SEED}/benchmarks/sft/mt.tsv"
    resources:
        gpu=GPU,
    params:
        settings=settings("mt") | {"learned": learned_from(MT, EXPERIMENT)},
        source=source_digest("mt train"),
        config=CONFIG,
        prompts=lambda wildcards, input: ["--prompts", str(input.prompts)] if input.prompts else [],
        folder=subpath(output[0], parent=True),
    shell:
        "rlphf --processes {resources.gpu:q} mt train --config {params.config:q} --backbone {input.backbone:q}"
        " --pairs {input.pairs:q} {params.prompts:q} --out {params.folder:q} > {log:q} 2>&1"


rule soups:
    input:
        output_of("ppo", rules.ppo.output, preference=sorted({*COMBINED, *EXPERIMENT.evaluation.front})),
    output:
        soups=[directory(f"{SEED}/soups/{soup}") for soup in wanted(EXPERIMENT)],
        merges=f"{SEED}/soups/merges.parquet",
    log:
        f"{SEED}/logs/soups.log",
    benchmark:
        f"{SEED}/benchmarks/soups.tsv"
    params:
        settings=settings(*MERGED_BY, "combination_preferences", "evaluation.front", "evaluation.front_points"),
        source=source_digest("soup all"),
        config=CONFIG,
        adapters=subpath(input[0], ancestor=2),
        folder=subpath(output.merges, parent=True),
    shell:
        "rlphf soup all --config {params.config:q} --adapters {params.adapters:q} --out {params.folder:q} > {log:q} 2>&1"


rule compared_soups:
    input:
        output_of("soups", rules.ppo.output, preference=COMBINED),
    output:
        soups=[directory(f"{SEED}/soups/{{compared}}/{combination}") for combination in combinations_of(EXPERIMENT)],
        merges=f"{SEED}/soups/{{compared}}/merges.parquet",
    log:
        f"{SEED}/logs/soups/{{compared}}.log",
    benchmark:
        f"{SEED}/benchmarks/soups/{{compared}}.tsv"
    params:
        settings=lambda wildcards: settings("soup.weights", "combination_preferences")
        | {"compared": EXPERIMENT.soup.compared[wildcards.compared].model_dump(mode="json")},
        source=source_digest("soup all"),
        config=CONFIG,
        adapters=subpath(input[0], ancestor=2),
        folder=subpath(output.merges, parent=True),
    shell:
        "rlphf soup all --config {params.config:q} --compared {wildcards.compared:q} --adapters {params.adapters:q}"
        " --out {params.folder:q} > {log:q} 2>&1"

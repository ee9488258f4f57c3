# From raw preferences to judged soups. Start it with `make demo`, or with
# `snakemake --workflow-profile workflow/profiles/default [--configfile config/experiments/<name>.yaml] [--config seed=N]`.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/needs.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/users.smk"
include: "workflow/rules/evaluation.smk"


rule all:
    input:
        rules.users.input
        if USERS_ALONE
        else [
            rules.summary.output,
            rules.figures.output,
            rules.tables.output,
            rules.user_tables.output,
            rules.user_figures.output if USER_METHODS else [],
            expand(rules.soups.output.soups, seed=SEEDS),
            rules.claims.output,
            rules.explorer.output,
        ],

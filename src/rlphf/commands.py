"""The table of the command line: each command, the function that does it, and its options. No step is imported here."""

from rlphf.command import Command, Option
from rlphf.commands_use import USE

CONFIG = Option("config", "resolved configuration of the experiment (YAML)")
OUT = Option("out", "file or folder to write")
PREFERENCE = Option("preference", 'preference id, "general", "pmorl", "gold", "selector", or "raw-..." for raw pairs', "text")
PROMPTS = Option("prompts", "prompts.parquet")
BACKBONE = Option("backbone", "folder of the backbone")
PAIRS = Option("pairs", "files of pairs", "paths")
RESPONSES = Option("responses", "files of responses", "paths")
USERS = Option("users", "users.parquet")
USER_PAIRS = Option("pairs", "pairs.parquet of users")
MODELS = Option("models", "results/<experiment>/seed-<N>, with reward models and policies")
KEPT_APART = Option("prompts", "prompts.parquet; raw pairs that ask prompts that are kept apart are left out", required=False)
USER_TEXTS = Option("users", "users.parquet, for models that read users' self-descriptions", required=False)

COMMANDS = (
    Command(
        "data prepare",
        "rlphf.data.prepare:prepare_step",
        "deduplicate raw preference data and split it by prompt, as Parquet",
        (CONFIG, Option("raw", "folder of known layouts to read in place of the configured sources", required=False), OUT),
    ),
    Command(
        "data prompts",
        "rlphf.data.questions.prompts:prompts_step",
        "write the experiment's prompts with their splits: the testbed's, the project's own questions, or those of a file",
        (CONFIG, OUT),
    ),
    Command("backbone", "rlphf.train.backbone:backbone_step", "train or fetch the backbone", (CONFIG, OUT)),
    Command(
        "rollouts",
        "rlphf.lm.rollouts:rollouts_step",
        "sample responses for annotation",
        (CONFIG, PREFERENCE, PROMPTS, BACKBONE, OUT),
    ),
    Command(
        "annotate",
        "rlphf.data.annotate:annotate_step",
        "choose the better response of each pair",
        (CONFIG, PREFERENCE, PROMPTS, Option("responses", "rollouts"), BACKBONE, OUT),
    ),
    Command(
        "reward train",
        "rlphf.train.reward:reward_step",
        "train the reward model of a preference",
        (CONFIG, PREFERENCE, BACKBONE, PAIRS, OUT, KEPT_APART),
        shared=True,
    ),
    Command(
        "policy train",
        "rlphf.train.policy:policy_step",
        "train the policies of preferences by PPO or RLOO",
        (
            CONFIG,
            Option("preference", 'preference ids, or "general" or "pmorl"; several train together', "texts"),
            PROMPTS,
            BACKBONE,
            Option(
                "reward", "adapter folder of each preference's reward model; none with ppo.reward: rule", "paths", required=False
            ),
            Option("out", "folder to write, one per preference", "paths"),
            Option("selector", "adapter folder of the reward model that chooses the checkpoint (ppo.keep_by)", required=False),
        ),
        shared=True,
    ),
    Command(
        "mt train",
        "rlphf.train.sft:sft_step",
        "train MT's policy on the chosen responses of all preferences",
        (CONFIG, BACKBONE, PAIRS, OUT, KEPT_APART),
        shared=True,
    ),
    Command(
        "users pairs",
        "rlphf.testbed.users:users_step",
        "draw the testbed's users and the pairs that they choose between",
        (CONFIG, PROMPTS, RESPONSES, OUT),
    ),
    Command(
        "users import",
        "rlphf.data.user_import:users_import_step",
        "read users and their pairs from raw data (user_data), split by prompt",
        (CONFIG, OUT),
    ),
    Command(
        "users train",
        "rlphf.train.user_models:user_model_step",
        "train a model on users' pairs: P-DPO, P-RM, or a baseline",
        (CONFIG, Option("model", "dpo, dpo_text, individual, cluster, both, prm, per_user or pooled", "text"), PAIRS, BACKBONE)
        + (USER_TEXTS, OUT),
        shared=True,
    ),
    Command(
        "users fit-soup",
        "rlphf.users.fit_soup:fit_soup_step",
        "infer a person's weights from their choices, and merge that person's soup",
        (
            Option("pairs", "file of pairs that the person chose between: prompt, chosen, rejected"),
            CONFIG,
            BACKBONE,
            MODELS,
            OUT,
        ),
    ),
    Command(
        "users soups",
        "rlphf.users.soups:user_soups_step",
        "merge two soups per user of the testbed: of declared preferences, and inferred from the user's pairs",
        (CONFIG, USERS, USER_PAIRS, BACKBONE, MODELS, OUT),
    ),
    Command(
        "users answer",
        "rlphf.evaluate.user_answers:answers_step",
        "answer every user by a method, and score the users' held-out pairs",
        (CONFIG, Option("method", "a method (user_evaluation.methods)", "text"), PROMPTS, USERS, USER_PAIRS, BACKBONE)
        + (Option("models", "folder of the method's model or soups; not for the backbone alone", required=False), OUT),
    ),
    Command(
        "users cold-start",
        "rlphf.evaluate.cold_start:cold_start_step",
        "answer new users, who are known by a few pairs",
        (CONFIG, PROMPTS, USERS, USER_PAIRS, BACKBONE, MODELS, OUT),
    ),
    Command(
        "soup all",
        "rlphf.soup.merge:soups_step",
        "merge the soups of all combinations",
        (
            CONFIG,
            Option("adapters", "folder with <preference>/adapter"),
            OUT,
            Option("compared", "merge as this entry of soup.compared says", "text", required=False),
        ),
    ),
    Command(
        "soup merge",
        "rlphf.soup.merge:merge_step",
        "merge a soup of your own from a recipe.yaml",
        (Option("recipe", "recipe.yaml: rule, weights, paths"), OUT),
    ),
    Command(
        "generate",
        "rlphf.evaluate.generate:generate_step",
        "sample the responses of a method to the evaluated prompts",
        (
            CONFIG,
            Option("method", "a method (evaluation.methods, or psoups_<name of soup.compared>), adapters, or front", "text"),
            PROMPTS,
            BACKBONE,
            Option("models", "results/<experiment>/seed-<N>, with policies and soups"),
            OUT,
        ),
    ),
    Command(
        "judge oracle",
        "rlphf.evaluate.judges.oracle:oracle_step",
        "score testbed responses by every criterion, by the oracle",
        (CONFIG, PROMPTS, RESPONSES, OUT),
    ),
    Command(
        "judge users",
        "rlphf.evaluate.judges.users:judge_users_step",
        "score answers to the testbed's users by the oracle, with each user's own weights",
        (CONFIG, PROMPTS, USERS, Option("answers", "files of answers", "paths"), OUT),
    ),
    Command(
        "judge gold",
        "rlphf.evaluate.judges.gold:gold_step",
        "score responses by a separate reward model that no policy was trained on",
        (CONFIG, PROMPTS, RESPONSES, BACKBONE, Option("reward", "adapter folder of the gold reward model"), OUT),
    ),
    Command(
        "judge rules",
        "rlphf.evaluate.judges.rules:rules_step",
        "score responses by fixed text rules: readability, length, polarity",
        (CONFIG, PROMPTS, RESPONSES, OUT),
    ),
    Command(
        "judge llm",
        "rlphf.evaluate.judges.llm:llm_step",
        "let a language model compare methods, pair by pair (evaluation.llm)",
        (CONFIG, PROMPTS, RESPONSES, OUT),
    ),
    Command(
        "judge export",
        "rlphf.evaluate.judges.people:export_step",
        "write a sheet on which people compare methods",
        (CONFIG, PROMPTS, RESPONSES, OUT)
        + (
            Option(
                "prompt-count", "number of prompts to compare on, drawn by the seed (evaluation.llm.prompts)", "integer", False
            ),
        ),
    ),
    Command(
        "judge import",
        "rlphf.evaluate.judges.people:import_step",
        "read people's verdicts from the sheet",
        (Option("key", "key.csv, as exported"), Option("ratings", "ratings.csv, filled in"), OUT),
    ),
    Command(
        "tables",
        "rlphf.evaluate.tables:tables_step",
        "write all tables of a run, as Parquet, CSV and Markdown",
        (CONFIG, Option("seed-folder", "results/<experiment>/seed-<N>"), OUT),
    ),
    Command(
        "users tables",
        "rlphf.evaluate.user_tables:user_tables_step",
        "write all tables about the users of a run",
        (CONFIG, Option("seed-folder", "results/<experiment>/seed-<N>"), OUT),
    ),
    Command(
        "claims",
        "rlphf.evaluate.claims:claims_step",
        "decide the claims of a file from all seeds",
        (
            Option("ledger", "file of claims, such as config/claims.yaml"),
            Option("configs", "config.yaml of each seed's folder", "paths"),
            OUT,
        ),
    ),
    Command(
        "figures",
        "rlphf.figures.notebook:figures_step",
        "run a notebook on stored tables",
        (Option("notebook", "notebook to run"), Option("tables", "folder of tables"), OUT),
    ),
    Command(
        "explorer",
        "rlphf.explorer.page:explorer_step",
        "write one HTML page for reading a run's answers, scores, soups and curves",
        (
            Option("results", "results/<experiment>, with the tables"),
            Option("seed-folder", "results/<experiment>/seed-<N>"),
            Option("out", "HTML file to write"),
            Option("users", "show only answers to users; reads no tables", "switch", required=False),
        ),
    ),
    Command(
        "summary",
        "rlphf.evaluate.summary:summary_step",
        "print or write the main results",
        (Option("tables", "folder of tables"), Option("figures", "folder of figures"), Option("soups", "folder of soups"))
        + (Option("out", "file to write instead of printing", required=False),),
    ),
    Command(
        "track sync",
        "rlphf.tracking.steps:sync_step",
        "send records to MLflow, each once",
        (
            Option("config", "configuration, for its tracking address", required=False),
            Option("results", "results/<experiment>"),
            Option("follow", "continue until the workflow ends", "switch", required=False),
            Option("parent-pid", "stop when this process has ended", "integer", required=False),
            Option(
                "closed", "no step is running any more, on any host; mark unfinished ones as killed", "switch", required=False
            ),
        ),
    ),
    Command(
        "track lineage",
        "rlphf.tracking.lineage:lineage_step",
        "print what an output was made from, back to the raw files, and what has changed since",
        (
            Option("path", "a table, figure, adapter, soup or other output, or a folder of them", "argument"),
            Option("json", "file to write the whole lineage to", required=False),
        ),
    ),
    Command(
        "track crate",
        "rlphf.tracking.crate:crate_step",
        "pack tables, figures, configurations and records of a finished experiment as an RO-Crate",
        (Option("results", "results/<experiment>"), Option("out", "FILE.zip or folder to write")),
    ),
    Command(
        "gc",
        "rlphf.garbage:gc_step",
        "list files that no result needs: temporary files of killed steps, checkpoints of finished ones",
        (
            Option("results", "results/<experiment>"),
            Option("seeds", "seeds to list whole, results included", "texts", required=False),
            Option("delete", "remove them", "switch", required=False),
        ),
    ),
    Command(
        "plan",
        "rlphf.plan.report:plan_step",
        "print the memory that each step needs, and whether it fits",
        (
            Option("config", "config/config.yaml and the experiment's file; later files override earlier ones", "paths"),
            Option("gpu-gb", "memory of the GPU in GB", "number", required=False),
            Option("gpus", "GPUs per step, for steps that can share several", "integer", required=False),
            Option("profile", "Snakemake profile (file or folder) whose resource gpu_gb is the GPU's memory", required=False),
            Option("cpu", "plan for this machine without a GPU", "switch", required=False),
            Option("model-config", "config.json of the backbone, if the model is not on this machine", required=False),
            Option("prompt-tokens", "length of the longest prompt in tokens (256)", "integer", required=False),
            Option("strict", "exit with status 2 if a step does not fit", "switch", required=False),
        ),
    ),
    Command(
        "config write",
        "rlphf.config_file:write_step",
        "write a configuration with all keys and comments, and its JSON schema",
        (Option("config", "configuration to read"), OUT),
    ),
    *USE,
)

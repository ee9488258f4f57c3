"""The part of the table of commands that is for a person's own use, beside the steps of the workflow."""

from rlphf.command import Command, Option

RESULTS = Option("results", "results/<experiment>, or one of its seeds' folders (results/demo)", required=False)
DECODING = (
    Option("temperature", "sampling temperature, 0 for greedy (evaluation.decoding)", "number", required=False),
    Option("max-new-tokens", "maximum length of an answer in tokens (evaluation.decoding)", "integer", required=False),
    Option("seed", "random seed of the answers (the run's own)", "integer", required=False),
)

USE = (
    Command(
        "chat",
        "rlphf.use.chat:chat_step",
        "chat with a soup of a finished run; from a pipe, one question and one answer per line",
        (
            Option("soup", 'weights of preferences, such as P1A=0.5,P2B=0.5, or "plain"', "text", required=False),
            Option(
                "history",
                "number of earlier turns shown to the model (0 for a backbone that the run trained, else 8)",
                "integer",
                required=False,
            ),
            RESULTS,
            *DECODING,
        ),
    ),
    Command(
        "sample",
        "rlphf.use.sample:sample_step",
        "answer a file of prompts with soups of a finished run",
        (
            Option("prompts", "prompts: .txt with one per line, or JSON, JSONL, CSV, TSV or Parquet with a field prompt"),
            Option("soup", 'soups, each as weights of preferences or "plain"', "texts", required=False),
            Option("soup-folder", "folders of merged soups", "paths", required=False),
            Option("unprompted", "do not append preference prompts", "switch", required=False),
            RESULTS,
            *DECODING,
            Option("out", "file of JSON lines to write"),
        ),
    ),
    Command(
        "new-preference",
        "rlphf.use.new_preference:new_preference_step",
        "add a preference of your own to an experiment's file",
        (
            Option("id", "id: P1, P2 or P3 for the axis, and a letter from E on, such as P3E", "text"),
            Option("axis", "expertise (P1), informativeness (P2) or style (P3)", "text"),
            Option("name", "one word that names the preference", "text"),
            Option("prompt", "preference prompt: the sentence that asks for the preference", "text"),
            Option(
                "words",
                "text rule that labels and judges it: the share of sentences with one of these words",
                "texts",
                required=False,
            ),
            Option(
                "measure",
                "another text rule: polarity (friendliness of tone), words (their number) or readability",
                "text",
                required=False,
            ),
            Option("direction", "more (the default) or less of the rule's measure", "text", required=False),
            Option("judge", "description of the preference for the judges llm and people", "text", required=False),
            Option("combine", "also evaluate its combinations", "switch", required=False),
            Option("config", "files that the experiment's file overrides (config/config.yaml)", "paths", required=False),
            Option("experiment", "file of the experiment, such as config/experiments/mine.yaml; created if needed"),
        ),
    ),
    Command(
        "hub push",
        "rlphf.use.push:push_step",
        "upload an adapter, reward model, soup or backbone with its model card to the Hugging Face hub",
        (
            Option("folder", "folder of the model"),
            Option("repo", "repository on the hub, created if needed", "text"),
            Option(
                "base-model", "repository of the adapter's backbone, if the backbone is not from the hub", "text", required=False
            ),
            Option("private", "make the repository private", "switch", required=False),
            Option("dry-run", "list the files that would be uploaded", "switch", required=False),
        ),
    ),
    Command(
        "doctor",
        "rlphf.use.doctor:doctor_step",
        "check this machine, the installed packages and the configuration",
        (
            Option(
                "config",
                "config/config.yaml and the experiment's file; later files override earlier ones",
                "paths",
                required=False,
            ),
            Option("profile", "Snakemake profile, file or folder (workflow/profiles/default)", required=False),
        ),
    ),
)

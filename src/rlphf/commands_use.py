"""The part of the table of commands that is for a person's own use, beside the steps of the workflow."""

from rlphf.command import Command, Option

RESULTS = Option("results", "results/<experiment>, or one of its seeds' folders (results/demo)", required=False)
DECODING = (
    Option("temperature", "sampling temperature, 0 for greedy (evaluation.decoding)", "number", required=False),
    Option("max-new-tokens", "longest answer in tokens (evaluation.decoding)", "integer", required=False),
    Option("seed", "seed of the answers (the run's own)", "integer", required=False),
)

USE = (
    Command(
        "chat",
        "rlphf.use.chat:chat_step",
        "talk with a soup of a finished run; through a pipe, a question and an answer per line",
        (
            Option("soup", 'weights of preferences, such as P1A=0.5,P2B=0.5, or "plain"', "text", required=False),
            Option(
                "history", "turns that are remembered (0 for a backbone that the run trained, else 8)", "integer", required=False
            ),
            RESULTS,
            *DECODING,
        ),
    ),
    Command(
        "sample",
        "rlphf.use.sample:sample_step",
        "answer a file of prompts by soups of a finished run",
        (
            Option("prompts", "prompts: .txt with one per line, or JSON, JSONL, CSV, TSV or Parquet with a field prompt"),
            Option("soup", 'soups, each as weights of preferences or "plain"', "texts", required=False),
            Option("soup-folder", "folders of merged soups", "paths", required=False),
            Option("unprompted", "ask for no preference behind the prompts", "switch", required=False),
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
            Option("id", "P1, P2 or P3 for the axis, and a letter from E on, such as P3E", "text"),
            Option("axis", "expertise (P1), informativeness (P2) or style (P3)", "text"),
            Option("name", "a word for it", "text"),
            Option("prompt", "the sentence that asks for it", "text"),
            Option(
                "words", "words that its sentences hold: the rule by which it is labelled and judged", "texts", required=False
            ),
            Option(
                "measure",
                "another rule: polarity (a tone by its words), words (their number) or readability",
                "text",
                required=False,
            ),
            Option("direction", "more (the default) or less of the rule's measure", "text", required=False),
            Option("judge", "what the judges llm and people are told of it", "text", required=False),
            Option("combine", "evaluate its combinations, too", "switch", required=False),
            Option("config", "files that the experiment is laid over (config/config.yaml)", "paths", required=False),
            Option("experiment", "file of the experiment, such as config/experiments/mine.yaml; made if it is not there"),
        ),
    ),
    Command(
        "hub push",
        "rlphf.use.push:push_step",
        "send an adapter, reward model, soup or backbone with its card to the Hugging Face hub",
        (
            Option("folder", "folder of the model"),
            Option("repo", "repository of the hub, made if it is not there", "text"),
            Option("base-model", "repository of the adapter's backbone, where that is not of the hub", "text", required=False),
            Option("private", "make the repository private", "switch", required=False),
            Option("dry-run", "list what would be sent", "switch", required=False),
        ),
    ),
    Command(
        "doctor",
        "rlphf.use.doctor:doctor_step",
        "say what this machine, the installed packages and the configuration lack",
        (
            Option(
                "config", "config/config.yaml and the experiment's file, the later one over the earlier", "paths", required=False
            ),
            Option("profile", "Snakemake profile, a file or its folder (workflow/profiles/default)", required=False),
        ),
    ),
)

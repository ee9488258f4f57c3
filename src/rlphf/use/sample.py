"""Answers to a file of prompts, by the backbone, policies and soups of a finished run, all in one batch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlphf.data.questions.prompts import read_prompts
from rlphf.errors import InputError
from rlphf.files import check_file, write_text
from rlphf.preferences import instruction
from rlphf.seeds import derive
from rlphf.settings import Decoding
from rlphf.soup.recipe import RECIPE, asked, read_recipe
from rlphf.use.finished import PLAIN, RESULTS, Finished, finished_run, parse_soup


def decoding_of(run: Finished, temperature: float | None, max_new_tokens: int | None) -> Decoding:
    """Return how a run's answers are evaluated, but for what is given; raise InputError for a value that cannot be."""
    if temperature is not None and not 0 <= temperature < float("inf"):
        raise InputError(f"--temperature {temperature:g}: expected 0, which is greedy, or more")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise InputError(f"--max-new-tokens {max_new_tokens}: expected 1 or more")
    given = {"temperature": temperature, "max_new_tokens": max_new_tokens}
    update = {name: value for name, value in given.items() if value is not None}
    return run.experiment.evaluation.decoding.model_copy(update=update)


def folder_asked(folder: Path, known: Sequence[str]) -> list[str]:
    """Return the preferences that a soup's folder is asked for, by its recipe: those of its adapters that are `known`.

    Raises InputError for a folder without a recipe, such as a policy's.
    """
    if folder.is_dir() and not (folder / RECIPE).exists():
        raise InputError(f"{folder}: has no {RECIPE}, so it is no soup; name a soup's folder, or a policy as --soup P1A=1")
    return asked({name: weight for name, weight in read_recipe(folder / RECIPE).weights.items() if name in known})


def sample_step(
    prompts: Path,
    out: Path,
    soup: Sequence[str] | None = None,
    soup_folder: Sequence[Path] | None = None,
    unprompted: bool = False,
    results: Path | None = None,
    temperature: float | None = None,
    max_new_tokens: int | None = None,
    seed: int | None = None,
) -> None:
    """Write an answer to each prompt of a file by each soup to `out`, as JSON lines with prompt, soup and answer.

    A `soup` is weights of policies, or "plain" for the backbone, which also answers where nothing is given; `soup_folder` names
    merged ones. Each is asked for its preferences, unless `unprompted`. Decoding and seed are the run's own unless given.
    A soup's answers do not depend on which others answer beside it, but for rounding. Raises InputError before a model is loaded.
    """
    run = finished_run(results or RESULTS)
    check_file(out)
    texts = read_prompts(prompts)
    decoding = decoding_of(run, temperature, max_new_tokens)
    known = run.preferences
    recipes: dict[str, Mapping[str, float]] = {}
    requests: dict[str, list[str]] = {}
    for text in soup or ([] if soup_folder else [PLAIN]):
        recipes[text] = parse_soup(text, known)
        requests[text] = asked(recipes[text])
    adapters = {name: run.policy(name) for name in known if any(recipe.get(name) for recipe in recipes.values())}
    for folder in soup_folder or []:
        name = folder.as_posix()
        recipes[name], requests[name], adapters[name] = {name: 1.0}, folder_asked(folder, known), folder
    # Imports torch and transformers, which bad input need not wait for.
    from rlphf.use.served import Answerer

    served = Answerer(run.backbone, adapters)
    rows = [(name, text) for name in recipes for text in texts]
    questions = [instruction(text, [] if unprompted else requests[name]) for name, text in rows]
    stream = derive(run.experiment.seed if seed is None else seed, "sample")
    answers = served.answer(questions, [recipes[name] for name, _ in rows], decoding, [stream] * len(recipes))
    lines = [
        {"prompt": text, "soup": name, "answer": answers[i * len(texts) + k]}
        for k, text in enumerate(texts)
        for i, name in enumerate(recipes)
    ]
    write_text(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

"""Annotation: the choice of the better of two responses, and the pairs that result."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import pyarrow as pa

from rlphf.config import load
from rlphf.data.own_rules import rule_of
from rlphf.data.records import PAIRS, PROMPTS, RESPONSES
from rlphf.derived import own_rules
from rlphf.errors import InputError
from rlphf.files import digest, read_parquet, write_parquet
from rlphf.preferences import GENERAL, alone, instruction, known
from rlphf.seeds import derive
from rlphf.settings import Annotator
from rlphf.settings_own import OwnPreference, TextRule
from rlphf.testbed import oracle
from rlphf.tracking.record import step

# Returns how good a response (second) to a prompt (first: a row of PROMPTS) is for a preference, on the annotator's own scale.
Utility = Callable[[dict, str], float]


def oracle_utility(preference: str) -> Utility:
    """Return the oracle's score of a preference, or of general quality, for testbed prompts."""

    def utility(prompt: dict, response: str) -> float:
        if prompt["topic"] is None:
            raise InputError(f"prompt {prompt['id']}: the simulated annotator reads testbed prompts only; use kind: rule")
        scores = oracle.scores(response, prompt["topic"])
        return oracle.general(scores) if preference == GENERAL else scores[preference]

    return utility


def rule_utility(preference: str, own: Mapping[str, TextRule]) -> Utility:
    """Return the preference's text rule, by which the judge "rules" scores, too; `own` are those of the experiment's own ones."""
    rule = rule_of(preference, own)
    return lambda prompt, response: rule(response)


def model_utilities(backbone: str | Path, adapter: str | Path, preference: str, rows: list[tuple[dict, str]]) -> Utility:
    """Return a reward model's score as utility; all (prompt, response) `rows` are scored at once.

    A text is cut at the model's context alone: `reward.max_length` is that of the experiment's own reward models.
    """
    from rlphf.lm.reward_model import encode_texts, load_reward_model, score, text_limit

    model, tokenizer = load_reward_model(backbone, adapter)
    asked = [instruction(p["prompt"], alone(preference)) for p, _ in rows]
    texts = encode_texts(tokenizer, asked, [r for _, r in rows], text_limit(model, None))
    scores = score(model, texts, tokenizer.pad_token_id)
    table = {(p["id"], r): value for (p, r), value in zip(rows, scores, strict=True)}
    return lambda prompt, response: table[prompt["id"], response]


def choose(difference: float, settings: Annotator, rng: Random) -> tuple[bool, float]:
    """Return (whether the first response is chosen, the probability of that choice) given the difference of utilities.

    The simulated annotator chooses by Bradley-Terry, P(first) = sigmoid(rationality x difference), and so does the reward model,
    whose differences are log-odds already. A rule takes the better one, but for the share `noise` of the choices.
    """
    if settings.kind == "rule":
        if rng.random() < settings.noise:
            return difference < 0, settings.noise
        return difference > 0, 1 - settings.noise
    odds = difference if settings.kind == "reward_model" else settings.rationality * difference
    probability = 1 / (1 + math.exp(-max(-500.0, min(500.0, odds))))
    first = rng.random() < probability
    return first, probability if first else 1 - probability


def annotate(
    prompts: list[dict], responses: list[dict], preference: str, settings: Annotator, utility: Utility, seed: int
) -> pa.Table:
    """Return a PAIRS table: samples 2k and 2k+1 of each prompt, in the order chosen. Equal and empty texts give no pair.

    A rule's tie gives none either. Raises InputError where `utility` is no number.
    """
    by_id = {row["id"]: row for row in prompts}
    by_sample = {(row["prompt_id"], row["sample"]): row["response"] for row in responses}
    rng = Random(seed)
    pairs = []
    for (name, sample), first in sorted(by_sample.items()):
        second = by_sample.get((name, sample + 1))
        if sample % 2 or second is None or first == second or not first or not second:
            continue
        difference = utility(by_id[name], first) - utility(by_id[name], second)
        if math.isnan(difference):
            raise InputError(
                f"prompt {name}: the annotator's scores of its responses are no numbers; use another annotator.model"
            )
        if settings.kind == "rule" and difference == 0:
            continue
        is_first, probability = choose(difference, settings, rng)
        chosen, rejected = (first, second) if is_first else (second, first)
        prompt = by_id[name]
        pairs.append(
            {
                "id": digest([prompt["prompt"], chosen, rejected, preference, sample])[:16],
                "prompt": prompt["prompt"],
                "chosen": chosen,
                "rejected": rejected,
                "preference": preference,
                "user": None,
                "probability": probability,
                "source": prompt["source"],
                "split": prompt["split"],
            }
        )
    return pa.Table.from_pylist(pairs, PAIRS)


def annotate_step(config: Path, preference: str, prompts: Path, responses: Path, backbone: Path, out: Path) -> None:
    """Write the pairs that the experiment's annotator makes of rollouts to `out`.

    Those of a preference of the experiment's own are chosen by its own rule, as by `annotator.kind: rule`, unless a reward model
    annotates.
    """
    experiment = load(config)
    settings = experiment.annotator
    if preference != GENERAL and preference not in known():
        raise InputError(f"--preference: {preference!r} is none; choose from {', '.join((*known(), GENERAL))}")
    inputs = {"prompts": prompts, "responses": responses}
    if settings.kind == "reward_model":
        inputs |= {"backbone": backbone, "model": Path(settings.model or "")}
    with step("annotate", out.parent, experiment, settings, inputs, {"preference": preference}) as run:
        own = experiment.own_preferences.get(preference)
        prompt_rows = read_parquet(prompts, PROMPTS).to_pylist()
        rows = read_parquet(responses, RESPONSES).to_pylist()
        known_ids = {row["id"] for row in prompt_rows}
        if strange := [row["prompt_id"] for row in rows if row["prompt_id"] not in known_ids]:
            raise InputError(f"{responses}: prompt {strange[0]!r} is not among those in {prompts}; sample rollouts again")
        if own is not None and settings.kind != "reward_model":
            # Neither the oracle nor the paper's rules know it.
            settings = settings.model_copy(update={"kind": "rule"})
        if settings.kind == "simulated":
            utility = oracle_utility(preference)
        elif settings.kind == "rule":
            utility = rule_utility(preference, own_rules(experiment))
        else:
            by_id = {row["id"]: row for row in prompt_rows}
            scored = [(by_id[row["prompt_id"]], row["response"]) for row in rows]
            utility = model_utilities(backbone, settings.model or "", preference, scored)
        seed = derive(experiment.seed, "annotator", preference)
        table = annotate(prompt_rows, rows, preference, settings, utility, seed)
        if not len(table):
            raise InputError(f"{responses}: nothing to choose for {preference}: {_why_none(settings, own)}")
        write_parquet(out, table)
        run.log({"pairs": len(table), "dropped": len(rows) // 2 - len(table)})
        run.output(out)


def _why_none(settings: Annotator, own: OwnPreference | None) -> str:
    """Return why an annotator's choices gave no pair, and what to change."""
    if settings.kind != "rule":
        return "no two responses to a prompt differ; raise rollouts.decoding.temperature"
    if own is not None and own.rule is not None and own.rule.measure == "sentences_with":
        words = ", ".join(own.rule.words)
        return f"of two responses to a prompt, none has more sentences than the other with its words ({words}); choose others"
    return "its rule tells no two responses to a prompt apart; raise rollouts.decoding.temperature"

"""What each method cost to train and to answer with: the rows of table `budgets`, from what the steps measured."""

from collections.abc import Mapping, Sequence

from rlphf.config import Experiment
from rlphf.data.learned import rewarding, sources
from rlphf.derived import methods_of
from rlphf.evaluate.scores import Row
from rlphf.preferences import GENERAL, MT, PMORL


def trained(method: str, experiment: Experiment) -> tuple[list[str], list[str], list[str], list[str]]:
    """Return what a method is trained on: (names of its pairs of rollouts, of its raw ones, its reward models, its policies).

    A soup of known policies, merged or mixed at decoding, needs the policies of all combined preferences, once.
    """
    combined = experiment.combination_preferences
    if method in ("vb", "pp"):
        return [], [], [], []
    if method == "rlhf":
        rewards, policies = [GENERAL], [GENERAL]
    elif method in (MT, PMORL):
        rewards, policies = [PMORL] if method == PMORL else [], [method]
    else:
        rewards, policies = [reward for name in combined for reward in rewarding(name, experiment)], list(combined)
    learned = [sources(name, experiment) for name in (policies if method == MT else rewards)]
    return [name for own, _ in learned for name in own], [name for _, raw in learned for name in raw], rewards, policies


def shares(timings: Sequence[Row]) -> dict[str, float]:
    """Return {step: seconds} of rows of table `timings`; policies of one step, as in "ppo/P1A+P2A", took equal shares of it."""
    found: dict[str, float] = {}
    for row in timings:
        kind, _, names = row["step"].rpartition("/")
        parts = names.split("+")
        found |= {f"{kind}/{name}" if kind else name: row["seconds"] / len(parts) for name in parts}
    return found


def budgets(
    experiment: Experiment,
    timings: Sequence[Row],
    curves: Sequence[Row],
    pairs: Mapping[str, int],
    raw_pairs: Mapping[str, int],
    responses: Mapping[str, int],
    answering: Mapping[str, float],
) -> list[Row]:
    """Return the rows of table `budgets`, one per method of the experiment.

    `pairs` are the training pairs of rollouts by name, `raw_pairs` those of raw sources, `responses` the evaluated responses by
    method, `answering` the seconds that took (`runs.answering`). `updates` are PPO's outer steps (MT: optimizer steps), summed
    over policies; `samples` the responses sampled in them (MT: imitated); `seconds` the wall time of rollouts, annotation,
    reward models and policies, all on the threads that the profile gave; `answer_ms` that of a response, with the loading of
    its models. Methods that share a step each count it whole; policies that trained together share theirs.
    """
    seconds = shares(timings)
    last: dict[tuple[str, str], int] = {}
    for row in curves:
        key = (row["kind"], row["preference"])
        # Transformers' trainers count steps from 1, PPO from 0.
        last[key] = max(last.get(key, 0), row["step"] + (row["kind"] != "sft"))
    rows: list[Row] = []
    for method in methods_of(experiment):
        labelled, raw, rewards, policies = trained(method, experiment)
        kind = "sft" if method == MT else "ppo"
        steps = [f"{step}/{name}" for step in ("rollouts", "annotate") for name in labelled]
        steps += [*(f"reward/{name}" for name in rewards), *(f"{kind}/{name}" for name in policies)]
        updates = sum(last.get((kind, name), 0) for name in policies)
        learned = sum(pairs.get(name, 0) for name in labelled) + sum(raw_pairs.get(name, 0) for name in raw)
        answer = answering.get(method)
        rows.append(
            {
                "method": method,
                "trainings": len(rewards) + len(policies),
                "pairs": learned,
                "updates": updates,
                "samples": learned * experiment.mt.epochs if method == MT else updates * experiment.ppo.batch_size,
                "seconds": sum(seconds[step] for step in steps) if all(step in seconds for step in steps) else None,
                "answer_ms": 1000 * answer / responses[method] if answer and responses.get(method) else None,
            }
        )
    return rows

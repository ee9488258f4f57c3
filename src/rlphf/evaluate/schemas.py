"""The tables of an experiment: their columns, and the caption that stands over each."""

from collections.abc import Sequence

import pyarrow as pa

from rlphf.data.counts import COUNTS


def _schema(names: str, numbers: Sequence[str] = (), counts: Sequence[str] = ()) -> pa.Schema:
    kinds = dict.fromkeys(numbers, pa.float64()) | dict.fromkeys(counts, pa.int64())
    return pa.schema([(name, kinds.get(name, pa.string())) for name in names.split()])


SCHEMAS: dict[str, pa.Schema] = {
    "data": COUNTS,
    "reward_models": _schema(
        "preference split n accuracy ceiling ci_low ci_high", ("accuracy", "ceiling", "ci_low", "ci_high"), ("n",)
    ),
    "adapters": _schema(
        "preference seed before after delta ci_low ci_high kl length_before length_after",
        ("before", "after", "delta", "ci_low", "ci_high", "kl", "length_before", "length_after"),
        ("seed",),
    ),
    "adapter_effects": _schema(
        "preference criterion before after delta ci_low ci_high", ("before", "after", "delta", "ci_low", "ci_high")
    ),
    "methods": _schema("method combination criterion mean ci_low ci_high n", ("mean", "ci_low", "ci_high"), ("n",)),
    "differences": _schema(
        "method_a method_b combination criterion difference ci_low ci_high n", ("difference", "ci_low", "ci_high"), ("n",)
    ),
    "win_rates": _schema(
        "method_a method_b combination criterion wins losses ties rate rate_half_ties ci_low ci_high",
        ("rate", "rate_half_ties", "ci_low", "ci_high"),
        ("wins", "losses", "ties"),
    ),
    "matrix": _schema(
        "judge method_a method_b criterion wins losses ties rate rate_half_ties ci_low ci_high paper_gpt4",
        ("rate", "rate_half_ties", "ci_low", "ci_high", "paper_gpt4"),
        ("wins", "losses", "ties"),
    ),
    "averages": _schema(
        "judge method criterion opponents rate rate_half_ties ci_low ci_high paper_gpt4 paper_humans",
        ("rate", "rate_half_ties", "ci_low", "ci_high", "paper_gpt4", "paper_humans"),
        ("opponents",),
    ),
    "agreement": _schema(
        "judge_a judge_b criterion n agreement decided agreement_decided ci_low ci_high",
        ("agreement", "agreement_decided", "ci_low", "ci_high"),
        ("n", "decided"),
    ),
    "swaps": _schema(
        "judge criterion n consistent ci_low ci_high prefers_first malformed",
        ("consistent", "ci_low", "ci_high", "prefers_first"),
        ("n", "malformed"),
    ),
    "front": _schema("first second weight criterion mean ci_low ci_high n", ("weight", "mean", "ci_low", "ci_high"), ("n",)),
    "budgets": _schema(
        "method trainings pairs updates samples seconds answer_ms",
        ("seconds", "answer_ms"),
        ("trainings", "pairs", "updates", "samples"),
    ),
    "claims": _schema(
        "claim statement table effect ci_low ci_high direction threshold verdict seeds",
        ("effect", "ci_low", "ci_high", "threshold"),
        ("seeds",),
    ),
    "merges": _schema("combination rule relative_error score", ("relative_error", "score")),
    "release_bugs": _schema(
        "mistake method criterion against before after effect ci_low ci_high n",
        ("before", "after", "effect", "ci_low", "ci_high"),
        ("n",),
    ),
    "timings": _schema("step seconds peak_mb", ("seconds", "peak_mb")),
    "curves": _schema("preference kind step metric value", ("value",), ("step",)),
    "users_accuracy": _schema(
        "method population n_pairs accuracy ceiling ci_low ci_high seed",
        ("accuracy", "ceiling", "ci_low", "ci_high"),
        ("n_pairs", "seed"),
    ),
    "users_scores": _schema("method population criterion mean ci_low ci_high n", ("mean", "ci_low", "ci_high"), ("n",)),
    "users_differences": _schema(
        "method_a method_b population criterion difference ci_low ci_high n", ("difference", "ci_low", "ci_high"), ("n",)
    ),
    "users_win_rates": _schema(
        "method_a method_b population wins losses ties rate rate_half_ties ci_low ci_high",
        ("rate", "rate_half_ties", "ci_low", "ci_high"),
        ("wins", "losses", "ties"),
    ),
    "users_length": _schema("method user group kind tokens ci_low ci_high n", ("tokens", "ci_low", "ci_high"), ("user", "n")),
    "users_cost": _schema(
        "method bytes_per_user training_seconds new_user_seconds", ("training_seconds", "new_user_seconds"), ("bytes_per_user",)
    ),
    "users_timings": _schema("step seconds peak_mb", ("seconds", "peak_mb")),
    "users_map": _schema("method user group kind x y explained", ("x", "y", "explained"), ("user",)),
    "cold_start": _schema("method pairs criterion mean ci_low ci_high n", ("mean", "ci_low", "ci_high"), ("pairs", "n")),
    "user_ablations": _schema(
        "setting value method against population effect ci_low ci_high n_pairs", ("effect", "ci_low", "ci_high"), ("n_pairs",)
    ),
}
# The column that a table's ci_low and ci_high belong to, for the tables that have them and can so decide a claim.
ESTIMATES = {
    "reward_models": "accuracy",
    "adapters": "delta",
    "adapter_effects": "delta",
    "methods": "mean",
    "differences": "difference",
    "win_rates": "rate_half_ties",
    "matrix": "rate_half_ties",
    "averages": "rate_half_ties",
    "agreement": "agreement_decided",
    "swaps": "consistent",
    "front": "mean",
    "release_bugs": "effect",
    "users_accuracy": "accuracy",
    "users_scores": "mean",
    "users_differences": "difference",
    "users_win_rates": "rate_half_ties",
    "users_length": "tokens",
    "cold_start": "mean",
    "user_ablations": "effect",
}
CAPTIONS = {
    "data": "Records read, kept (by split) and dropped (by reason), by source and preference.",
    "reward_models": "Share of pairs that a reward model orders as the annotator did; splits share no prompt. `ceiling`: the"
    " accuracy that the annotator's noise allows. `gold` is trained on test pairs, and on validation pairs where no `selector`"
    " uses them; both are evaluated on training pairs. `raw-...`: trained on raw pairs. `n`: pairs. Intervals: 95 %, bootstrap"
    " over prompts.",
    "adapters": "Score of each adapter on its own preference, on held-out prompts, by the first judge; `before` is the"
    " backbone with the same prompts. `delta`: paired difference with its 95 % interval. `kl`: nats per response, of the"
    " policy that sampled for the last update (`ppo.keep: last`) or of the chosen checkpoint (`best`). Lengths in tokens.",
    "adapter_effects": "Effect of each adapter on every criterion, against the backbone with the same prompts. Intervals:"
    " 95 %, paired.",
    "methods": "Scores by the first judge on held-out prompts: the oracle's, the gold model's probability that the answer is"
    " preferred to VB's, or the normal percentile of a rule's score among VB's answers. `mean`: over the"
    " combination's preferences. Combination `all`: over all combinations (for a single preference, those that include it)."
    " `n`: prompts. Intervals: 95 %, bootstrap over prompts.",
    "differences": "Score of method_a minus that of method_b, paired by prompt. `n`: prompts. Intervals: 95 %, bootstrap over"
    " prompts.",
    "win_rates": "method_a against method_b, response by response to the same prompts. `rate`: wins / (wins + losses)."
    " `rate_half_ties`: (wins + ties / 2) / all, with its 95 % interval over prompts. `mean` compares the mean over the"
    " combination's preferences; `majority`: wins more of these preferences than it loses.",
    "matrix": "The paper's methods by every judge, method_a against method_b over all combinations: counts of verdicts, `rate`"
    " without ties and `rate_half_ties` with its 95 % interval over prompts. The paper reports only P-SOUPS' share against"
    " P-MORL, for 16 combinations.",
    "averages": "Each of the paper's methods against all others, by every judge, with equal weight per opponent, over all"
    " combinations. `rate` without ties; `rate_half_ties` with its 95 % interval. The paper's averages (Table 3: GPT-4, Table"
    " 4: people) are shown beside the majority; how it aggregates criteria and treats ties is not known.",
    "agreement": "How often two judges give the same verdict on the first responses that both saw, over pairs of methods and"
    " combinations: `agreement` in all `n` comparisons, `agreement_decided` in the `decided` ones, where neither sees a tie, with"
    " its 95 % interval over prompts.",
    "swaps": "How often a judge keeps its verdict when the two responses are swapped (`consistent`, in `n` comparisons made in"
    " both orders, 95 % interval over prompts), and the share of all its decided verdicts for the response shown first"
    " (`prefers_first`). `malformed`: replies without a verdict. Judges that score responses one by one see no order.",
    "front": "Oracle scores of interpolations between two policies, by the `weight` of the second (that of the first is 1 -"
    " `weight`), on held-out prompts. `n`: prompts. Intervals: 95 %, bootstrap over prompts.",
    "budgets": "Training and inference cost of each method. `pairs`: labelled training pairs. `updates`: PPO's outer steps"
    " (MT: optimizer steps) over all policies; `samples`: responses sampled in them (MT: trained on). `seconds`: wall time of"
    " rollouts, annotation, reward models and policies; shared steps count in full for each method. `answer_ms`: wall time per"
    " response, with the loading of the models.",
    "claims": "Claims and their verdicts: supported if the whole 95 % interval of the effect lies beyond the threshold,"
    " refuted if none of it does, otherwise undecided. Intervals: for one seed over prompts (about users: over users and"
    " prompts); for several over seeds (t). No seeds: not measured.",
    "merges": "Merge rules: `relative_error` of the soup's update against the weighted mean of the adapters' updates, and, for"
    " the rule in use and those of `soup.compared`, the mean score of their soups.",
    "release_bugs": "Mistakes of the paper's release, one at a time: a method's score with the mistake (`after`) against its"
    " score without it, or against PP as it is (`before`), over all combinations. `reward models`: accuracy on test pairs, and"
    " on rows held out after pairs were repeated (`after`) against unseen pairs (`before`). Intervals: 95 %, over prompts.",
    "timings": "Wall time of each step except those about users, and the peak memory of its process and children.",
    "curves": "Every metric logged during the training of reward models and policies, by step.",
    "users_accuracy": "Share of users' held-out pairs that a method orders correctly; a tie counts half. `ceiling`: the"
    " accuracy that the noise of choices allows. The minority's users are among the seen ones; unseen users are not in the"
    " training data. Intervals: 95 %, bootstrap over users and prompts.",
    "users_scores": "How well answers serve the user who asked: the oracle's scores, weighted by the user's own weights of the"
    " preferences. P-RLHF, its baselines and soups, with the same judge and users. `n`: prompts. Intervals: 95 %, bootstrap over"
    " users and prompts.",
    "users_differences": "method_a minus method_b: on the same held-out pairs (`accuracy`; `n`: pairs), and in answers to the"
    " same users (`score`, `helpfulness`; `n`: prompts). Intervals: 95 %, bootstrap over users and prompts.",
    "users_win_rates": "method_a against method_b, answer by answer to the same user, by the user's score. `rate`:"
    " wins / (wins + losses). `rate_half_ties`: (wins + ties / 2) / all, with its 95 % interval over users and prompts.",
    "users_length": "Length of answers in tokens, by user. `n`: prompts. Intervals: 95 %, bootstrap over prompts; users are not"
    " resampled.",
    "users_cost": "Disk space per additional user; `training_seconds`: of the method's model (soups: of all reward models and"
    " policies, and of inferring and merging every user's soups); `new_user_seconds`: of fitting one new user to the most pairs"
    " of table `cold_start` (soups: of the weights alone, once reward models have scored the pairs). Wall time.",
    "users_timings": "Wall time of each step about users, and the peak memory of its process and children.",
    "users_map": "Per-user parameters of a learned user model (offsets, or mixture weights of clusters) of the trained users,"
    " on their first two principal components; `explained`: the share of the variance that these explain.",
    "cold_start": "Users who were never trained on, after `pairs` of their own: the score of answers, as in `users_scores`."
    " Intervals: 95 %, bootstrap over users and prompts.",
    "user_ablations": "P-DPO with one setting varied at a time: accuracy on held-out pairs (`against` empty), and accuracy"
    " minus that of `against`, trained the same way, on the same pairs. Intervals: 95 %, bootstrap over users and prompts.",
}
# The tables about users; the others are about preferences and their combinations.
USER_TABLES = tuple(name for name in SCHEMAS if name.startswith("user") or name == "cold_start")
# Those of a run; claims, which speak for all seeds, are another step's.
RUN_TABLES = tuple(name for name in SCHEMAS if name not in USER_TABLES and name != "claims")

"""What a finished run prints in the terminal: the main results as short tables, and where everything lies. Plain ASCII."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from rlphf.data.people import MINORITY, UNSEEN
from rlphf.evaluate.labels import combination_label, method_label, mistake_label, preference_label
from rlphf.evaluate.schemas import USER_TABLES
from rlphf.evaluate.scores import ALL, HELPFULNESS, MEAN, Row
from rlphf.evaluate.table_files import read_table
from rlphf.evaluate.users import SCORE, SEEN
from rlphf.evaluate.winrate import MAJORITY
from rlphf.files import write_text
from rlphf.tracking.record import step

WIDTH = 100
OURS = "psoups"
# What the summary is made from.
TABLES = (
    *("methods", "adapters", "reward_models", "differences", "averages", "agreement", "release_bugs", "claims"),
    *("users_accuracy", "users_scores"),
)


def summary(tables: Path, figures: Path, soups: Path) -> str:
    """Return the summary of the stored tables, at most 100 columns wide where paths allow; ends in a line break."""
    read = {name: read_table(tables, name) for name in TABLES}
    blocks = [
        *_methods(read["methods"]),
        _adapters(read["adapters"], read["reward_models"]),
        _verdicts(read["differences"]),
        _judges(read["averages"], read["agreement"]),
        _mistakes(read["release_bugs"]),
        _claims(read["claims"]),
        *_users(read["users_accuracy"], read["users_scores"], read["claims"]),
        [
            f"Tables   {tables}",
            f"Figures  {figures}",
            f"Soups    {soups}",
            "",
            "To look at every run, curve and sample:  make ui",
        ],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def summary_step(tables: Path, figures: Path, soups: Path, out: Path | None = None) -> None:
    """Print the summary, or write it to the file `out`, with a record in the folder `summary` beside it."""
    if out is None:
        print(summary(tables, figures, soups), end="")
        return
    inputs = {name: tables / f"{name}.parquet" for name in TABLES}
    with step("summary", out.parent / "summary", inputs=inputs) as run:
        write_text(out, summary(tables, figures, soups))
        run.output(out)


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], rules: Sequence[int] = ()) -> list[str]:
    """Return aligned lines: the first column to the left, all others to the right; a rule before the rows `rules`."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        rest = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join([row[0].ljust(widths[0]), *rest]).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [line(header), rule]
    for number, row in enumerate(rows):
        lines += [rule, line(row)] if number in rules else [line(row)]
    return lines


def _interval(row: Row | None, value: str, style: str = ".2f") -> str:
    if row is None:
        return ""
    # Adding zero turns the negative zero of a rounded value into the positive one.
    number, low, high = (format(round(row[name], int(style[-2])) + 0.0, style) for name in (value, "ci_low", "ci_high"))
    return f"{number} [{low}, {high}]"


def _methods(rows: Sequence[Row]) -> list[list[str]]:
    cells = {(row["method"], row["combination"], row["criterion"]): row for row in rows}
    names = list(dict.fromkeys(row["method"] for row in rows))
    combinations = list(dict.fromkeys(row["combination"] for row in rows))
    lines = [(combination_label(c), c, MEAN) for c in combinations]
    lines += [("helpfulness, all", ALL, HELPFULNESS)] if any(key[2] == HELPFULNESS for key in cells) else []
    rules = [number for number, (_, combination, _) in enumerate(lines) if combination == ALL][:1]
    blocks = [["First judge's score on held-out prompts: mean over the combination's preferences [95 % interval]"]]
    per_block = max(1, (WIDTH - len("helpfulness, all")) // (2 + len("0.00 [0.00, 0.00]")))
    for start in range(0, len(names), per_block):
        shown = names[start : start + per_block]
        body = [[label, *(_interval(cells.get((name, c, criterion)), "mean") for name in shown)] for label, c, criterion in lines]
        blocks.append(grid(["combination", *map(method_label, shown)], body, rules))
    return blocks


def _adapters(rows: Sequence[Row], reward_models: Sequence[Row]) -> list[str]:
    accuracy = {row["preference"]: row for row in reward_models if row["split"] == "test"}

    def judged(preference: str) -> str:
        row = accuracy.get(preference)
        if row is None:
            return ""
        return f"{row['accuracy']:.2f}" + (f" of {row['ceiling']:.2f}" if row["ceiling"] is not None else "")

    body = [
        [
            preference_label(row["preference"]),
            *([judged(row["preference"])] if accuracy else []),
            f"{row['before']:.2f}",
            f"{row['after']:.2f}",
            _interval(row, "delta", "+.2f"),
            "" if row["kl"] is None else f"{row['kl']:.1f}",
        ]
        for row in rows
    ]
    title = "Each adapter on its own preference, before and after PPO"
    title += "; reward model: test accuracy of its ceiling" if accuracy else ""
    header = ["adapter", *(["reward model"] if accuracy else []), "before", "after", "change [95 % interval]", "KL (nats)"]
    return [title, "", *grid(header, body)]


def _verdicts(rows: Sequence[Row]) -> list[str]:
    found = [row for row in rows if row["method_a"] == OURS and row["criterion"] == MEAN and row["combination"] != ALL]
    lines = [f"{method_label(OURS)} by combination: paired difference of the mean score, 95 % interval above or below zero"]
    for other in dict.fromkeys(row["method_b"] for row in found):
        against = [row for row in found if row["method_b"] == other]
        better, worse = sum(row["ci_low"] > 0 for row in against), sum(row["ci_high"] < 0 for row in against)
        lines.append(f"  against {method_label(other)}: better on {better}, worse on {worse} of {len(against)}")
    return lines if found else []


def _judges(averages: Sequence[Row], agreement: Sequence[Row]) -> list[str]:
    cells = {(row["method"], row["judge"]): row for row in averages if row["criterion"] == MAJORITY}
    if not cells:
        return []
    names, judges = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    body = [[method_label(name), *(_interval(cells.get((name, judge)), "rate_half_ties") for judge in judges)] for name in names]
    title = "Average win rate against the paper's other methods by judge (majority of the criteria, ties half)"
    lines = [title, "", *grid(["method", *judges], body)]
    for row in agreement:
        if row["criterion"] == MAJORITY and row["agreement_decided"] is not None:
            who = f"{row['judge_b']} decides like {row['judge_a']} in {_interval(row, 'agreement_decided')}"
            lines.append(f"  {who} of the cases that neither calls a tie")
    return lines


def _mistakes(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    shown = [row for row in rows if row["criterion"] != HELPFULNESS]
    body = [
        [
            f"{mistake_label(row['mistake'])}: {method_label(row['method'])}",
            row["against"] if row["against"] != "pp" else method_label("pp"),
            *(f"{row[name]:.2f}" for name in ("before", "after")),
            _interval(row, "effect", "+.3f"),
        ]
        for row in shown
    ]
    title = "Mistakes of the release, one at a time: score (reward models: accuracy) with it, and against what"
    return [title, "", *grid(["mistake", "against", "that", "with it", "effect [95 % interval]"], body)]


def _claims(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return ["Claims (table claims): none are stated in the ledger"]
    counted = {name: [row["claim"] for row in rows if row["verdict"] == name] for name in ("supported", "undecided", "refuted")}
    lines = [f"Claims (table claims): {', '.join(f'{len(found)} {name}' for name, found in counted.items())}"]
    for name in ("undecided", "refuted"):
        if counted[name]:
            text = f"{name}: {', '.join(counted[name])}"
            lines += textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return lines


def _users(accuracy: Sequence[Row], scores: Sequence[Row], claims: Sequence[Row]) -> list[list[str]]:
    served = [row for row in scores if row["criterion"] == SCORE]
    titles = ("Methods that serve users: accuracy on held-out pairs", "The same: score of answers by the user's own weights")
    blocks = []
    for title, rows, value in zip(titles, (accuracy, served), ("accuracy", "mean"), strict=True):
        cells = {(row["method"], row["population"]): row for row in rows}
        populations = [name for name in (SEEN, MINORITY, UNSEEN) if any(name == population for _, population in cells)]
        names = list(dict.fromkeys(method for method, _ in cells))
        body = [[method_label(name), *(_interval(cells.get((name, p)), value) for p in populations)] for name in names]
        if body:
            blocks.append([f"{title} [95 % interval]", "", *grid(["method", *populations], body)])
    about = [row["verdict"] for row in claims if row["table"] in USER_TABLES]
    if blocks and about:
        counted = (f"{about.count(verdict)} {verdict}" for verdict in ("supported", "undecided", "refuted"))
        blocks.append([f"Claims about users: {', '.join(counted)}"])
    return blocks

"""Pairs that users chose, for the tests of P-DPO and P-RM."""

from pathlib import Path

from rlphf.files import read_parquet
from rlphf.users.records import SCORED

QUESTIONS = ["Bees?", "Tell me about honey.", "Why do cats sleep?", "Explain rivers to me, please.", "Rain?", "What is salt?"]
OWNERS = [1, 3, 0, 1, 99, 2]


def row(number: int, question: str, chosen: str, rejected: str, user: int | None, split: str = "train") -> dict:
    return {"id": f"{number:03d}", "prompt": question, "chosen": chosen, "rejected": rejected, "preference": "user"} | {
        "user": user,
        "probability": None,
        "source": "test",
        "split": split,
    }


ROWS = [
    row(i, q, "Yes, bees do it." * (1 + i % 3), "No.", user) for i, (q, user) in enumerate(zip(QUESTIONS, OWNERS, strict=True))
]


GOOD, BAD = ["Yes, yes, yes!", "Yes indeed!", "Oh yes!"], ["No, no, no.", "No indeed.", "Oh no."]
TOPICS = ["honey", "volcanoes", "rivers", "cats", "bees", "rain", "salt", "trains"]
CONFIG = """
experiment: test
users: {tokens: 2, clusters: 2, start: generic, cluster_start: generic}
dpo: {alpha: %s, beta: 0.5, epochs: %s, batch_size: 12, learning_rate: 0.01, user_learning_rate: 0.05, warmup_steps: 2,
      lora: {rank: 4, targets: [q_proj, v_proj, up_proj, down_proj]}}
"""


def opposite() -> list[dict]:
    """Pairs of two users: the first says yes to everything, and is asked twice as often as the second, who says no."""
    rows = []
    for i, topic in enumerate(TOPICS):
        for k, (good, bad) in enumerate(zip(GOOD, BAD, strict=True)):
            for user in (1, 1, 2):
                chosen, rejected = (good, bad) if user == 1 else (bad, good)
                split = "test" if i > 5 else "train"
                rows.append(row(len(rows), f"Do you like {topic}{'?' * (k + 1)}", chosen, rejected, user, split))
    return rows


def accuracy(folder: Path, user: int, column: str = "own") -> float:
    rows = [r for r in read_parquet(folder / "scores.parquet", SCORED).to_pylist() if r["split"] == "test" and r["user"] == user]
    return sum(r[column] > 0 for r in rows) / len(rows)

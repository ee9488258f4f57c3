"""From raw data of users to the users, their pairs and prompts, and the table of counts: what P-DPO and P-RM train on.

All is in memory meanwhile; the largest of the sources has fifty thousand pairs that are kept.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import NamedTuple

import pyarrow as pa

from rlphf.config import load
from rlphf.data.counts import ALL, COUNTS, Counts
from rlphf.data.dedup import REPEATED, unusable
from rlphf.data.people import MAJORITY, MINORITY, UNSEEN, Person, check_people, people_table
from rlphf.data.quarantine import QUARANTINE, QUARANTINED, quarantined
from rlphf.data.records import PAIRS, PROMPTS, check_pairs, check_prompts, pair_id, prompt_id
from rlphf.data.sources.raw import Bad, Dropped, Pair, Raw
from rlphf.data.splits import check_leaks
from rlphf.data.user_sources import hh_rlhf, persona, prism, psoups, table, tldr
from rlphf.data.user_splits import Placed, cap, place, trained
from rlphf.errors import InputError
from rlphf.files import write_parquet
from rlphf.seeds import derive
from rlphf.settings_users import UserData
from rlphf.tracking.record import step

BEYOND = "user is beyond user_data.users"


class Imported(NamedTuple):
    """The tables of PEOPLE, PAIRS, PROMPTS, COUNTS and QUARANTINE."""

    users: pa.Table
    pairs: pa.Table
    prompts: pa.Table
    counts: pa.Table
    quarantine: pa.Table


def users_import_step(config: Path, out: Path) -> None:
    """Write users, pairs, prompts and counts of the experiment's user data to `out`, and bad records that were set aside."""
    experiment = load(config)
    settings, on_bad_record = experiment.user_data, experiment.data.on_bad_record
    if settings.path is None or settings.source == "testbed":
        raise InputError(
            "user_data.source: testbed has no raw files, as `rlphf users pairs` makes its users; name another source"
        )
    params = {"user_data": settings.model_dump(mode="json"), "on_bad_record": on_bad_record}
    # What is missing is named below, by what reads it.
    inputs: dict[str, Path] = {settings.source: Path(settings.path)} if Path(settings.path).exists() else {}
    with step("users", out, experiment, params, inputs) as run:
        made = import_users(settings, derive(experiment.seed, "user data"), on_bad_record)
        names = [name for name in Imported._fields if name != "quarantine" or on_bad_record == "quarantine"]
        for name in names:
            write_parquet(out / f"{name}.parquet", getattr(made, name))
        if "quarantine" not in names:
            (out / "quarantine.parquet").unlink(missing_ok=True)
        totals = {row["reason"]: row for row in made.counts.to_pylist() if row["source"] == ALL}
        groups = made.users["group"].to_pylist()
        run.log({name: totals[ALL][name] for name in ("read", "kept", "dropped")})
        run.log({"quarantined": len(made.quarantine), **{name: groups.count(name) for name in (MAJORITY, MINORITY, UNSEEN)}})
        run.output(*(out / f"{name}.parquet" for name in names))
        run.artifact(out / "counts.parquet")


def import_users(settings: UserData, seed: int, on_bad_record: str) -> Imported:
    """Return the tables that a source of users gives: checked, split by prompt over all users, without leaks.

    Pairs stand in the order of the source; `source` of all rows is the source's name, and `preference` of a pair its user's kind.
    Dropped are empty and identical answers, exact repeats, and what `user_splits.place` drops. Users without a pair are left out.
    Raises InputError for a source that cannot be read, a bad record (unless set aside), a split that stays empty, a leak.
    """
    users, records = _read(settings, seed)
    name = settings.source
    counts = Counts()
    bad: list[tuple] = []
    pairs = _collect(records, name, counts, bad if on_bad_record == "quarantine" else None)
    taking_part = _drawn(users, {user for user, _ in pairs}, settings, seed)
    for user, pair in pairs:
        if user not in taking_part:
            counts.drop((name, pair.preference), BEYOND)
    unseen = {person.id for person in taking_part.values() if person.group == UNSEEN}
    placed = place([p for p in pairs if p[0] in taking_part], unseen, seed, settings.validation, settings.test)
    if settings.pairs_per_user is not None:
        cap(placed, settings.pairs_per_user, seed)
    kept = [row for row in placed if not row.reason]
    for row in placed:
        if row.reason:
            counts.drop((name, row.pair.preference), row.reason)
        else:
            counts.keep((name, row.pair.preference), row.split)
    counts.check(settings.validation, settings.test, "user_data")
    seen, known = trained(kept), {row.user for row in kept}
    grouped = [p if p.id in seen else replace(p, group=UNSEEN) for p in taking_part.values() if p.id in known]
    made = Imported(
        people_table(grouped),
        _pairs(kept, name),
        _prompts(kept, name),
        _table(counts.rows(), COUNTS),
        _table(bad, QUARANTINE),
    )
    check_people(made.users, "users")
    check_pairs(made.pairs, "pairs")
    check_prompts(made.prompts, "prompts")
    check_leaks(made.pairs, made.prompts)
    return made


def _read(settings: UserData, seed: int) -> tuple[list[Person], Iterable[Raw]]:
    path = Path(settings.path or "")
    match settings.source:
        case "tldr":
            return tldr.read(path, settings.users, settings.shorter)
        case "psoups":
            return psoups.read(path)
        case "prism":
            return prism.read(path)
        case "persona":
            return persona.read(path)
        case "hh_rlhf":
            return hh_rlhf.read(path, settings.users, seed)
        case "table":
            return table.read(path, settings.columns)
    raise InputError(f"user_data.source: {settings.source} is not read from files; name another source")


def _collect(records: Iterable[Raw], name: str, counts: Counts, aside: list[tuple] | None) -> list[tuple[int, Pair]]:
    """Return the pairs that say something, each with its user; count the others and put bad records `aside`, or raise theirs."""
    pairs: list[tuple[int, Pair]] = []
    seen: set[str] = set()
    for record in records:
        match record:
            case Pair(user=int(user)):
                identity = pair_id(record.prompt, record.chosen, record.rejected, record.preference, user)
                if reason := unusable(record.chosen, record.rejected) or (REPEATED if identity in seen else None):
                    counts.drop((name, record.preference), reason)
                else:
                    seen.add(identity)
                    pairs.append((user, record))
            case Dropped():
                counts.drop((name, record.preference), record.reason)
            case Bad():
                if aside is None:
                    raise record.error()
                aside.append(quarantined(record, name, Path(record.place.path).name))
                counts.drop((name, None), QUARANTINED)
    return pairs


def _drawn(users: list[Person], known: set[int], settings: UserData, seed: int) -> dict[int, Person]:
    """Return who takes part, by id: of those with pairs at most `settings.users`, of whom a share is held out as unseen.

    Raises InputError if that share is all of them.
    """
    some = [person for person in users if person.id in known]
    if settings.source not in ("tldr", "hh_rlhf") and settings.users is not None and settings.users < len(some):
        drawn = set(Random(derive(seed, "taking part")).sample(range(len(some)), settings.users))
        some = [person for number, person in enumerate(some) if number in drawn]
    count = round(settings.unseen * len(some))
    if some and count == len(some):
        raise InputError(f"user_data.unseen: {settings.unseen:g} holds out all {count} users, and trains on none; lower it")
    held_out = set(Random(derive(seed, "unseen")).sample(range(len(some)), count))
    return {p.id: replace(p, group=UNSEEN) if number in held_out else p for number, p in enumerate(some)}


def _pairs(kept: list[Placed], source: str) -> pa.Table:
    rows = [
        {
            "id": row.id,
            "prompt": row.pair.prompt,
            "chosen": row.pair.chosen,
            "rejected": row.pair.rejected,
            "preference": row.pair.preference,
            "user": row.user,
            "probability": row.pair.probability,
            "source": source,
            "split": row.split,
        }
        for row in kept
    ]
    return pa.Table.from_pylist(rows, PAIRS)


def _prompts(kept: list[Placed], source: str) -> pa.Table:
    """Return each prompt of the pairs once, in the order in which they come first."""
    splits: dict[str, str] = {}
    for row in kept:
        splits.setdefault(row.pair.prompt, row.split)
    rows = [
        {"id": prompt_id(prompt), "prompt": prompt, "topic": None, "source": source, "split": split}
        for prompt, split in splits.items()
    ]
    return pa.Table.from_pylist(rows, PROMPTS)


def _table(rows: Iterable[tuple], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.Table.from_arrays([pa.array(values, f.type) for values, f in zip(columns, schema, strict=True)], schema=schema)

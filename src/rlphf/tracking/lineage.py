"""From any output back to the raw files: walks the records that lie beside outputs. Reads files and knows nothing of MLflow."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlphf.errors import InputError
from rlphf.files import sha256, write_json
from rlphf.tracking.entries import Entry, entries, read_or_empty
from rlphf.tracking.provenance import display
from rlphf.tracking.record import METRICS, RECORD, SAMPLES, WORKFLOW

OWN = (RECORD, METRICS, SAMPLES)
SHORT = 12
# What of a step's record goes into a lineage.
KEPT = ("step", "start", "end", "seconds", "seed", "config_hash", "git_commit", "git_dirty", "host", "params", "versions")


@dataclass(frozen=True)
class Used:
    """A file or folder as a record has it: where it lies today, and its digest then; `name` is an input's, "" for outputs."""

    path: Path
    sha256: str
    name: str = ""


@dataclass
class Made:
    """A step that finished: its record, which lies in `folder`, and what it read and wrote."""

    id: str
    step: str
    record: dict[str, Any]
    folder: Path
    inputs: list[Used] = field(default_factory=list)
    outputs: list[Used] = field(default_factory=list)


def read_made(entry: Entry) -> Made | None:
    """Return the step of a record; None for one that did not finish, or that is none of ours.

    A record's paths are relative to where its step ran. It says how to get there from its own folder, so results may be moved.
    """
    record = read_or_empty(entry.path)
    try:
        start = os.path.normpath(entry.home.absolute() / record.get("working_directory", Path.cwd()))
        made = Made(str(record["id"]), str(record["step"]), record, entry.home.absolute())
        for name, described in record["inputs"].items():
            made.inputs.append(Used(_joined(start, described["path"]), str(described["sha256"]), name))
        for path, described in record["outputs"].items():
            made.outputs.append(Used(_joined(start, path), str(described["sha256"])))
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    sound = record.get("status") == "finished" and isinstance(record.get("versions", {}), dict)
    return made if sound else None


def _joined(start: str, path: str) -> Path:
    return Path(os.path.normpath(os.path.join(start, path)))


class Records:
    """All steps that a walk may come to; reads an experiment's records when it first comes to one of its files."""

    def __init__(self) -> None:
        self.makers: dict[Path, Made] = {}
        self.folders: dict[Path, Made] = {}
        self._roots: set[Path] = set()
        self._searched: set[Path] = set()
        self._digests: dict[Path, str | None] = {}

    def maker(self, path: Path) -> Made | None:
        """Return the step that made a file or folder: as its output, within one, or as what lies beside its record."""
        self._read_around(path)
        for place in (path, *path.parents):
            if place in self.makers:
                return self.makers[place]
        return self.folders.get(path) or (self.folders.get(path.parent) if path.name in OWN else None)

    def below(self, folder: Path) -> list[Made]:
        """Return the steps with outputs in a folder, in the order in which they began."""
        self._read_around(folder)
        found = {made.id: made for path, made in self.makers.items() if path.is_relative_to(folder)}
        return sorted(found.values(), key=lambda made: str(made.record.get("start")))

    def is_raw(self, path: Path) -> bool:
        """Whether a file lies outside of all experiments that the walk came to, so that no record is to be expected."""
        return not any(path.is_relative_to(root) for root in self._roots)

    def state(self, used: Used) -> str:
        """Return "same", "changed" or "missing": what became of a file since its digest was taken."""
        if used.path not in self._digests:
            there = used.path.is_file() or used.path.is_dir()
            self._digests[used.path] = sha256(used.path) if there else None
        today = self._digests[used.path]
        return "missing" if today is None else "same" if today == used.sha256 else "changed"

    def _read_around(self, path: Path) -> None:
        """Read the records of the experiment that a file belongs to; outside of any, those close to it."""
        places = (path, *path.parents)
        root = next((place for place in places if (place / WORKFLOW).is_file()), None)
        searched = root or path
        if searched in self._searched:
            return
        self._searched.add(searched)
        if root is not None:
            self._roots.add(root)
            found = entries(root)
        else:
            close = [place / RECORD for place in places] + sorted(path.parent.glob(f"*/{RECORD}"))
            found = [Entry(file, file.parent, False, file.parent) for file in close if file.is_file()]
        # Of several starts of a step the last one counts that finished.
        steps = [made for entry in found if (made := read_made(entry)) is not None]
        for made in sorted(steps, key=lambda made: str(made.record.get("start"))):
            self.folders[made.folder] = made
            self.makers |= {output.path: made for output in made.outputs}


@dataclass
class Node:
    """A line of the tree: something used, the step that made it (None: no record knows it), and what that step read.

    `kind` is the step's name, "raw" or "no record"; `above` says that the step has its inputs at an earlier line.
    """

    used: Used
    state: str
    kind: str
    made: Made | None
    above: bool = False
    children: list["Node"] = field(default_factory=list)

    def lines(self, depth: int = 0) -> Iterator[str]:
        """Yield the lines of the tree from here on, indented by two blanks for each step back."""
        above = "  (see above)" if self.above else ""
        yield f"{'  ' * depth}{self.kind}  {display(self.used.path)}  {self.used.sha256[:SHORT]}  {self.state}{above}"
        for child in self.children:
            yield from child.lines(depth + 1)


def lineage(path: Path, records: Records | None = None) -> list[Node]:
    """Return the trees of what made a file or a folder: of itself, of the output that it lies in, or of all outputs below it.

    Raises InputError when it is not there and no record names it, or no record knows what made it.
    """
    records = records or Records()
    path = Path(os.path.abspath(path))
    made = records.maker(path)
    steps = [made] if made is not None else records.below(path)
    if not steps:
        known = "no record of a finished step names it as an output" if path.exists() else "no such file, and no record names it"
        raise InputError(f"{display(path)}: {known}; give an output of a step, such as a table, a figure or an adapter")
    expanded: set[str] = set()
    trees = []
    for made in steps:
        own = [output for output in made.outputs if path.is_relative_to(output.path) or output.path.is_relative_to(path)]
        trees += [_node(output, made, records, expanded) for output in own or made.outputs]
    return trees


def _node(used: Used, made: Made | None, records: Records, expanded: set[str]) -> Node:
    kind = made.step if made else "raw" if records.is_raw(used.path) else "no record"
    node = Node(used, records.state(used), kind, made)
    if made is not None:
        node.above = made.id in expanded
        if not node.above:
            expanded.add(made.id)
            for given in made.inputs:
                maker = records.maker(given.path)
                node.children.append(_node(given, None if maker is made else maker, records, expanded))
    return node


def walk(nodes: list[Node]) -> Iterator[Node]:
    """Yield every node of the trees, from the output back."""
    for node in nodes:
        yield node
        yield from walk(node.children)


def as_json(path: Path, nodes: list[Node], records: Records) -> dict[str, Any]:
    """Return the whole lineage as JSON: `steps` by their record's id with inputs and outputs, and the files that none made."""

    def described(used: Used) -> dict[str, Any]:
        maker = records.maker(used.path)
        about = {"path": display(used.path), "sha256": used.sha256, "state": records.state(used)}
        return about | {"made_by": maker.id if maker else None}

    steps: dict[str, Any] = {}
    for made in (node.made for node in walk(nodes)):
        if made is not None and made.id not in steps:
            about = {name: made.record.get(name) for name in KEPT} | {"record": display(made.folder / RECORD)}
            steps[made.id] = about | {
                "inputs": {given.name: described(given) for given in made.inputs},
                "outputs": [described(output) for output in made.outputs],
            }
    others = {
        display(n.used.path): {"sha256": n.used.sha256, "state": n.state, "kind": n.kind} for n in walk(nodes) if not n.made
    }
    return {"path": display(path), "outputs": [described(node.used) for node in nodes], "steps": steps, "others": others}


def lineage_step(path: Path, json: Path | None = None) -> None:
    """Print what `path` was made from, step by step, down to the raw files; write all of it to the file `json` as well.

    Raises InputError where no record knows `path`.
    """
    records = Records()
    nodes = lineage(path, records)
    if json is not None:
        write_json(json, as_json(path, nodes, records))
    for node in nodes:
        print("\n".join(node.lines()))
    found = list(walk(nodes))
    steps, raw = ({n.made.id for n in found if n.made}, {n.used.path for n in found if n.kind == "raw"})
    states = Counter({(n.used.path, n.used.sha256): n.state for n in found}.values())
    counted = ", ".join(f"{states[name]} {name}" for name in ("same", "changed", "missing"))
    print(f"{len(steps)} steps, {len(raw)} raw; files and folders: {counted}")

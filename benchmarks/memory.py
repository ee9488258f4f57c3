"""What the jobs of a finished run took of memory, by rule, beside what the profile grants: python -m benchmarks.memory RESULTS.

A job's peak is the larger of two measurements: Snakemake's (`benchmark:`), which looks every half minute and sees children, too,
and that of the step's record, which the kernel keeps and which misses nothing, but of the step's own process alone.
"""

import argparse
import csv
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from rlphf.errors import InputError
from rlphf.files import read_json, read_yaml

RULES = Path(__file__).parent.parent / "workflow" / "rules"
RULE = re.compile(r'^rule (\w+):\n(?:(?!^rule ).*\n)*?    benchmark:\n +f"\{SEED\}/benchmarks/(.+)\.tsv"', re.MULTILINE)
# Where a record lies that is not in the folder which the benchmark is named after.
ELSEWHERE = {"generate": "responses", "annotate": "pairs"}
# The margin that a profile leaves above what was measured.
MARGIN = 1.25


def patterns(rules: Path = RULES) -> dict[str, re.Pattern[str]]:
    """Return {rule: pattern of its benchmarks' names below `benchmarks/`}, read from the rules."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(rules.glob("*.smk")))
    return {name: re.compile(re.sub(r"\\\{\\\{\w+\\\}\\\}", "[^/]+", re.escape(where))) for name, where in RULE.findall(text)}


def measured(results: Path) -> Iterator[tuple[str, float]]:
    """Yield (rule, peak in MB) of every job in the experiment's folder that has a benchmark.

    Raises InputError for a benchmark that is none, or of a rule that there is not.
    """
    named = patterns()
    for path in sorted(results.glob("seed-*/**/benchmarks/**/*.tsv")):
        seed = Path(*path.parts[: path.parts.index("benchmarks")])
        name = path.relative_to(seed / "benchmarks").with_suffix("").as_posix()
        rules = [rule for rule, pattern in named.items() if pattern.fullmatch(name)]
        if not rules:
            raise InputError(f"{path}: no rule makes it; remove it")
        with path.open(encoding="utf-8", newline="") as stream:
            found = [float(row["max_rss"]) for row in csv.DictReader(stream, delimiter="\t") if row["max_rss"] not in ("NA", "-")]
        kind, _, rest = name.partition("/")
        # Policies that train together have a record each, of one process.
        record = seed / ELSEWHERE.get(kind, kind) / rest.partition("+")[0] / "record.json"
        if record.exists():
            found.append(float(read_json(record).get("peak_mb") or 0))
        if found:
            # Rules of policies that train together are named after them.
            yield ("_".join([rules[0], *rest.split("+")]) if "+" in rest else rules[0]), max(found)


def granted(profile: Path) -> tuple[float | None, dict[str, float]]:
    """Return mem_mb of a profile: of rules that it does not name, and {rule: of the others}; what grows, at the first attempt.

    Raises InputError for what is neither a number nor one of "4000 * attempt".
    """
    raw, _ = read_yaml(profile / "config.yaml")

    def size(value: object) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(?: *\* *attempt)?", str(value).strip())
        if found is None:
            raise InputError(f"{profile / 'config.yaml'}: mem_mb {value!r} is neither a number nor one times attempt")
        return float(found[1])

    defaults = dict(str(entry).partition("=")[::2] for entry in raw.get("default-resources") or [])
    own = {rule: size(values["mem_mb"]) for rule, values in (raw.get("set-resources") or {}).items() if "mem_mb" in values}
    return (size(defaults["mem_mb"]) if "mem_mb" in defaults else None), own


def table(results: Path, profile: Path) -> list[tuple[str, int, float, float | None]]:
    """Return (rule, jobs, peak in MB, mem_mb) of every rule that was measured, the largest first."""
    peaks: dict[str, list[float]] = defaultdict(list)
    for rule, peak in measured(results):
        peaks[rule].append(peak)
    default, own = granted(profile)
    return sorted(((rule, len(of), max(of), own.get(rule, default)) for rule, of in peaks.items()), key=lambda row: -row[2])


def main() -> int:
    """Print the table, and which rules the profile gives less than what was measured and a margin; return 2 after an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="results/<experiment>")
    parser.add_argument("--profile", type=Path, default=Path("workflow/profiles/default"), help="folder of a Snakemake profile")
    options = parser.parse_args()
    try:
        rows = table(options.results, options.profile)
    except InputError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    print(f"{'rule':24}{'jobs':>6}{'peak MB':>10}{'mem_mb':>10}")
    for rule, jobs, peak, given in rows:
        little = " too little" if given is not None and given < MARGIN * peak else ""
        print(f"{rule:24}{jobs:6}{peak:10.0f}{given if given is not None else '-':>10}{little}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

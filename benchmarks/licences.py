"""Prints name, version and licence of every package in requirements.lock, as the installed packages say themselves."""

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements.lock"
CLASSIFIER = "License :: "


def licence(package: Distribution) -> str:
    """Return a package's licence: its SPDX expression, else its classifiers, else the first line of what it says."""
    about = package.metadata

    def said(name: str) -> list[str]:
        return about.get_all(name) or []

    classified = [line.rpartition(" :: ")[2] for line in said("Classifier") if line.startswith(CLASSIFIER)]
    first = [text.strip().partition("\n")[0] for text in said("License")]
    return next(filter(None, [*said("License-Expression"), ", ".join(classified), *first]), "not said")


def main() -> None:
    """Print a line per package; end with 1 if one is not installed."""
    names = re.findall(r"^([A-Za-z0-9._-]+)==", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    missing = False
    for name in names:
        try:
            package = distribution(name)
            print(f"{name:32} {package.version:16} {licence(package)}")
        except PackageNotFoundError:
            missing = True
            print(f"{name:32} {'':16} not installed")
    sys.exit(missing)


if __name__ == "__main__":
    main()

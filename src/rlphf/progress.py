"""A bar for work of more than a few seconds, on the terminal alone: where standard error is a file, nothing is written."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

# Work that is done sooner gets no bar.
DELAY = 5.0
# Whether a bar is shown already, or bars are switched off: nested work then shows none.
_taken = False


@contextmanager
def bar(total: int, what: str, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Show a progress bar of `total`, begun at `done`; yields a function that advances it. Nested bars stay silent."""
    global _taken
    if _taken:
        yield lambda more: None
        return
    _taken = True
    try:
        stream = sys.stderr
        options = {"delay": DELAY, "leave": False, "file": stream, "disable": not stream.isatty()}
        with tqdm(total=total, initial=done, desc=what, **options) as shown:
            yield shown.update
    finally:
        _taken = False


@contextmanager
def silent() -> Iterator[None]:
    """Show no bar inside, where something else writes to the terminal."""
    global _taken
    before, _taken = _taken, True
    try:
        yield
    finally:
        _taken = before

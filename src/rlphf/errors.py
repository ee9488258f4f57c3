"""The one exception for input that a person has to correct."""

LONGEST = 1000


class InputError(Exception):
    """Data, configuration or an adapter that cannot be used as it is.

    The message is one line that says where the fault is and what to do. The command
    line prints it and exits with status 2; Snakemake stops before the DAG is built.
    """

    def __init__(self, message: str):
        super().__init__(_line(str(message)))


def _line(text: str) -> str:
    """Return a text as one line; what it quotes of the input neither commands a terminal nor fills it."""
    line = " ".join(text.split())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST - 200]} ... {line[-200:]}"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)

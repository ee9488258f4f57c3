"""What a command of the command line is: a name, options, and the function that does it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """A flag of a command: `kind` is a path, a text, an integer, a number, a switch, or several paths or texts.

    With the kind "argument" it is a path that stands in the command without a flag.
    """

    flag: str
    help: str
    kind: str = "path"
    required: bool = True


@dataclass(frozen=True)
class Command:
    """A sub-command and the function that does it, as "module:function"."""

    name: str
    target: str
    help: str
    options: tuple[Option, ...] = ()
    shared: bool = False
    """Whether several processes can share it (`rlphf.processes`)."""

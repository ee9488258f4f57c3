"""The command line: one sub-command per step. Modules of a step are imported only when it is its turn.

Snakemake's rules call these commands, so each job is a line that a person can paste.
"""

import argparse
import gc
import os
import select
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType

from rlphf import __version__
from rlphf.commands import COMMANDS
from rlphf.errors import InputError
from rlphf.limits import NOT_ENOUGH, lacking, limit_memory, may_take
from rlphf.processes import PATIENCE, is_first, keep_to_one_gpu, launch

# Exit status after input that a person has to correct, and where nobody reads what a command prints any more.
REFUSED, UNHEARD = 2, 1
# What --memory-mb stays below: 2 PiB, which the kernel can count in bytes.
MOST_MEMORY = 2**31

_KINDS: dict[str, dict] = {
    "path": {"type": Path},
    "text": {"type": str},
    "integer": {"type": int},
    "number": {"type": float},
    "paths": {"type": Path, "nargs": "+", "action": "extend"},
    "texts": {"type": str, "nargs": "+", "action": "extend"},
    "switch": {"action": "store_true"},
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(
        prog="rlphf", description="Experiments in personalised alignment; usually started by Snakemake."
    )
    top.add_argument("--version", action="version", version=f"rlphf {__version__}")
    top.add_argument(
        "--memory-mb", type=int, metavar="MB", help="maximum memory of the command in MB (default: all that is granted)"
    )
    shared = ", ".join(command.name for command in COMMANDS if command.shared)
    top.add_argument("--processes", type=int, default=1, metavar="N", help=f"number of GPUs that share a step, for {shared}")
    groups: dict[str, argparse._SubParsersAction] = {"": top.add_subparsers(dest="command", required=True, metavar="COMMAND")}
    for command in COMMANDS:
        *group, name = command.name.split()
        key = " ".join(group)
        if key not in groups:
            steps = ", ".join(one.name.removeprefix(f"{key} ") for one in COMMANDS if one.name.startswith(f"{key} "))
            groups[key] = groups[""].add_parser(key, help=steps).add_subparsers(required=True, metavar="STEP")
        sub = groups[key].add_parser(name, help=command.help, description=command.help)
        for option in command.options:
            if option.kind == "argument":
                sub.add_argument(option.flag, help=option.help, type=Path, metavar=option.flag.upper())
            else:
                sub.add_argument(f"--{option.flag}", help=option.help, required=option.required, **_KINDS[option.kind])
        sub.set_defaults(target=command.target, shared=command.shared)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command of `arguments`, or of the process's own; return 0, 2 after one line about input that a person has to
    correct, 3 for lack of memory or disk, or 1, quietly, where the reader of a pipe has left.

    When memory or disk ran out for the process's own command, it exits at once: libraries' exit handlers would fail too. Ctrl-C
    ends it by its signal, without a traceback.
    """
    try:
        try:
            status = _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _is_unheard():
            raise
        # Python flushes what is left as it ends, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNHEARD
    except KeyboardInterrupt:
        if arguments is not None:
            raise
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        raise
    if status == NOT_ENOUGH and arguments is None:
        sys.stderr.flush()
        os._exit(status)
    return status


def _is_unheard() -> bool:
    """Whether standard output is a pipe that nobody reads any more; a step may have lost another one, which is an error."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return False


def _run(given: list[str]) -> int:
    options = vars(parser().parse_args(given))
    options.pop("command", None)
    module, function = options.pop("target").split(":")
    shared, processes, asked = options.pop("shared"), options.pop("processes"), options.pop("memory_mb")
    if asked is not None and not 0 < asked < MOST_MEMORY:
        return _refused(InputError(f"--memory-mb {asked}: expected 1 or more, and below {MOST_MEMORY:,}, or leave it out"))
    memory = asked or may_take()
    limit_memory(memory)
    try:
        if processes > 1 and not shared:
            raise InputError("--processes: this step runs in one process; leave it out")
        status = launch(processes, given, told=(REFUSED, NOT_ENOUGH))
        if status is not None:
            return status
        keep_to_one_gpu()
        getattr(_imported(module), function)(**options)
    except Exception as error:
        if isinstance(error, InputError):
            return _refused(error)
        if lack := lacking(error, memory):
            return _refused(InputError(lack), NOT_ENOUGH)
        # An error that names a file says what to put right; any other is a mistake of ours.
        if isinstance(error, OSError) and error.filename is not None:
            # A failed rename is reported by its destination.
            return _refused(InputError(f"{error.filename2 or error.filename}: {error.strerror}"))
        raise
    return 0


def _imported(name: str) -> ModuleType:
    """Import a step's module, without looking for garbage among what its libraries make, all of which stays: a seventh faster."""
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _refused(error: InputError, status: int = REFUSED) -> int:
    if not is_first():
        # The first process prints the same line, and the launcher then ends all; if it does not, this one prints it.
        time.sleep(PATIENCE)
    print(f"rlphf: error: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

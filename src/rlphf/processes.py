"""The processes of one step on several GPUs: `accelerate launch` starts them, all compute, and the first alone writes.

Steps of transformers' and TRL's trainers know how: reward models, MT, RLOO. Our own loops (PPO, P-DPO, P-RM) run in one process.
"""

import logging
import os
from collections.abc import Collection
from typing import TYPE_CHECKING, TypeVar

from rlphf.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

# Seconds that a further process waits before it prints its error, so that the first one can print the same: the launcher ends
# all processes when one has ended.
PATIENCE = 30.0


def local_rank() -> int:
    """Return the number of this process on its machine, which is that of its GPU; 0 where it is the only one."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def count() -> int:
    """Return how many processes share the step."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this process is the one that writes records, checkpoints and outputs."""
    return int(os.environ.get("RANK", "0")) == 0


def share(key: str, size: int) -> int:
    """Return each process's share of a batch of `size` examples, so that the whole batch is as configured.

    Raises InputError, which names the setting `key`, where it cannot be divided.
    """
    if size % count():
        raise InputError(f"{key}: {size} cannot be divided among {count()} processes; make it a multiple, or use fewer GPUs")
    return size // count()


def in_one(step: str) -> None:
    """Raise InputError where several processes share a step that runs in one."""
    if count() > 1:
        raise InputError(f"{step} runs in one process, and {count()} share it; give its rule one GPU in the profile")


def wait() -> None:
    """Wait until all processes are here."""
    if count() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def gathered(values: "Tensor") -> "Tensor":
    """Return the values (B,) of all processes, in their order; each has to have as many."""
    if count() == 1:
        return values
    from accelerate.utils import gather

    return gather(values)


def collected(value: T) -> list[T]:
    """Return every process's value, in their order."""
    if count() == 1:
        return [value]
    from accelerate.utils import gather_object

    return gather_object([value])


def keep_to_one_gpu() -> None:
    """Show a process that is alone the first of its GPUs: transformers' trainers would spread a batch over all, in threads.

    It has to be called before torch looks for GPUs.
    """
    if "LOCAL_RANK" not in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def launch(processes: int, arguments: list[str], told: Collection[int] = ()) -> int | None:
    """Run the same command in several processes by `accelerate launch`; return the status, None where there is nothing to do.

    Nothing is to be done for fewer than two processes, and in a process that was itself launched like this. The status of a
    process that failed is returned if it is in `told`, as the process has then printed why; otherwise torch's report of all
    processes is raised.
    """
    if processes < 2 or "LOCAL_RANK" in os.environ:
        return None
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # Port 0 is any free one, so that several steps can run on one machine.
    settings = {
        "num_processes": processes,
        "num_machines": 1,
        "main_process_port": 0,
        "mixed_precision": "no",
        "dynamo_backend": "no",
    }
    options = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    # What it logs of a process that failed is in what it raises, too.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        launch_command(launch_command_parser().parse_args(["--multi_gpu", *options, "--module", "rlphf.cli", *arguments]))
    except ChildFailedError as error:
        for failure in error.failures.values():
            if failure.exitcode in told:
                return failure.exitcode
        raise
    return 0

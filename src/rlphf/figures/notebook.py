"""Runs a notebook of figures over stored tables. The kernel is a process of its own; nothing here draws."""

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from rlphf.errors import InputError
from rlphf.evaluate.schemas import RUN_TABLES, USER_TABLES
from rlphf.files import write_text
from rlphf.tracking.record import step

TIMEOUT = 600
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def executed(notebook: Path, tables: Path, figures: Path) -> str:
    """Run a notebook and return it with its outputs, as JSON; it reads from `tables` and writes to `figures`.

    The notebook finds both folders in the environment, as RLPHF_TABLES and RLPHF_FIGURES. Raises InputError, in one line, when
    the notebook is missing, is no notebook, or fails, when a cell takes more than `TIMEOUT` seconds, and when its kernel dies.
    """
    try:
        content = nbformat.read(notebook, as_version=4)
    except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
        # AttributeError: JSON that is no mapping.
        raise InputError(f"{notebook}: cannot be read as a notebook ({_in_one_line(str(error))})") from None
    with TemporaryDirectory() as private:
        # Sockets are files of this user's, not ports that others on the machine can reach; and a user's own IPython
        # profile, with its start-up files, stays out of the figures.
        kernel = AsyncKernelManager(
            kernel_name="python3", transport="ipc", ip=f"{private}/kernel", connection_file=f"{private}/kernel.json"
        )
        given = {"RLPHF_TABLES": str(tables.absolute()), "RLPHF_FIGURES": str(figures.absolute())}
        client = NotebookClient(content, kernel, timeout=TIMEOUT, record_timing=False)
        try:
            client.execute(cleanup_kc=True, env={**os.environ, **given, "IPYTHONDIR": private, "MPLBACKEND": "agg"})
        except CellExecutionError as error:
            said = _in_one_line(error.evalue)
            reason = said if error.ename == InputError.__name__ else f"{error.ename}: {said}".removesuffix(": ")
            raise InputError(f"{notebook}: {reason}") from None
        except CellTimeoutError:
            raise InputError(f"{notebook}: a cell took more than {TIMEOUT} seconds; make it do less") from None
        except DeadKernelError:
            raise InputError(f"{notebook}: its kernel died, as for want of memory; run it again") from None
    return nbformat.writes(content) + "\n"


def _in_one_line(text: str) -> str:
    return " ".join(COLOUR.sub("", text).split())


def figures_step(notebook: Path, tables: Path, out: Path) -> None:
    """Draw the figures of `notebook` from the folder `tables`; write them and the executed notebook to the folder `out`.

    The record lies in a folder of the notebook's name in `out`, which several notebooks share. The notebook `users` is drawn from
    the tables about users, every other one from the rest.
    """
    # The notebook draws with these modules: a step's digest counts what the step imports, and an error shows at once.
    from rlphf.figures import contests, plots, users  # noqa: F401

    drawn_from = USER_TABLES if notebook.stem == "users" else RUN_TABLES
    inputs = {name: path for name in sorted(drawn_from) if (path := tables / f"{name}.parquet").exists()}
    if not inputs:
        raise InputError(f"{tables}: holds no tables; run the step that makes them")
    with (
        step(f"figures {notebook.stem}", out / notebook.stem, inputs={"notebook": notebook, **inputs}) as run,
        TemporaryDirectory(dir=out.parent, prefix=".figures.") as drawn,
    ):
        text = executed(notebook, tables, Path(drawn))
        write_text(Path(drawn) / notebook.name, text)
        files = [path.replace(out / path.name) for path in sorted(Path(drawn).iterdir())]
        run.output(*files)
        run.artifact(*(path for path in files if path.suffix in (".png", ".ipynb")))

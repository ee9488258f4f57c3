"""A SLURM cluster on this machine, for tests: its daemons run in the foreground of processes that end with it.

It needs slurmctld, slurmd, their clients and munge, no root, no systemd, no cgroups and no database. Nodes are declared, so they
may have more CPUs, memory and GPUs than the machine; everything listens on 127.0.0.1.
"""

import importlib.util
import os
import platform
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
PLUGIN = "snakemake_executor_plugin_slurm"
SEARCHED = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
# Times are short, so that tests are; memory of finished jobs is long, so that squeue tells how they ended. Without control groups
# SLURM looks every second whether a job has more memory of its own than it was granted.
CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/finished.txt
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,NoShared
MailProg=/bin/true
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,sched_min_interval=0,bf_interval=2,batch_sched_delay=0
GresTypes=gpu
MinJobAge=900
KillWait=5
CompleteWait=0
ReturnToService=0
SlurmctldTimeout=60
SlurmdTimeout=60
"""


@dataclass(frozen=True)
class Node:
    """A node of `partition` with CPUs, and GPUs that are there in name only."""

    name: str
    partition: str
    cpus: int = 2
    gpus: int = 0


NODES = (Node("c1", "cpu"), Node("c2", "cpu"), Node("g1", "gpu", cpus=4, gpus=2))


def missing() -> str | None:
    """Return why no cluster can run here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]
    if absent:
        return f"SLURM is not installed ({', '.join(absent)}); on Debian: apt-get install slurm-wlm munge"
    if importlib.util.find_spec(PLUGIN) is None:
        return f"{PLUGIN} is not installed; see requirements.lock"
    try:
        socket.gethostbyname(_host())
    except OSError:
        return f"this machine's name, {_host()}, has no address; SLURM needs one in /etc/hosts"
    return None


class Cluster:
    """A running cluster; made by `running`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.daemons: list[subprocess.Popen[bytes]] = []

    @property
    def variables(self) -> dict[str, str]:
        """What a process needs in its environment to speak with this cluster."""
        return {"SLURM_CONF": f"{self.folder}/slurm.conf", "PATH": f"{self.folder}/bin{os.pathsep}{SEARCHED}"}

    def ask(self, *command: str) -> str:
        """Return what a client such as squeue or scontrol prints."""
        environment = {**os.environ, **self.variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    def states(self) -> dict[str, str]:
        """Return {job: state} of all jobs, finished ones included."""
        lines = self.ask("squeue", "--states=all", "--noheader", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def gpus(self) -> dict[str, str]:
        """Return {job: what it asked for of GPUs, such as "gres:gpu:1", or "N/A"} of all jobs."""
        lines = self.ask("squeue", "--states=all", "--noheader", "--Format=JobID:12,tres-per-job:40").splitlines()
        return dict(line.split() for line in lines)

    def finished(self) -> dict[str, dict[str, str]]:
        """Return {job: {JobState, Partition, NodeList, ...}} as SLURM wrote it down; of a job that ran again, the last time."""
        path = self.folder / "finished.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [dict(part.partition("=")[::2] for part in line.split(" ") if "=" in part) for line in lines]
        return {fields["JobId"]: fields for fields in found}

    def until(self, what: str, seconds: float = 60) -> None:
        """Wait until all nodes are in one of the states `what`, separated by commas."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                found = self.ask("sinfo", "--noheader", "--Node", "--format=%T").split()
            except subprocess.SubprocessError:
                found = []
            if len(found) == len(NODES) and set(found) <= set(what.split(",")):
                return
            time.sleep(0.1)
        logs = "\n".join(f"{path}:\n{path.read_text()[-1000:]}" for path in sorted(self.folder.glob("*.log")))
        raise AssertionError(f"nodes are not {what}: {found}\n{logs}")


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Start a cluster that lives in `folder`, whose path has to be short and open to all; at the end its jobs and daemons end."""
    cluster = Cluster(folder)
    _write(folder)
    commands = [
        ["munged", "--foreground", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket"]
        + [f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"],
        ["slurmctld", "-D", "-f", f"{folder}/slurm.conf"],
        *(["slurmd", "-D", "-f", f"{folder}/slurm.conf", "-N", node.name] for node in NODES),
    ]
    with ExitStack() as stack:
        for command in commands:
            cluster.daemons.append(stack.enter_context(_daemon(command, {**os.environ, **cluster.variables})))
            if command[0] == "munged":
                _until_there(folder / "munge.socket")
        cluster.until("idle")
        try:
            yield cluster
        finally:
            jobs = [job for job, state in cluster.states().items() if state in ("PENDING", "RUNNING", "COMPLETING")]
            if jobs:
                cluster.ask("scancel", *jobs)
                cluster.until("idle,down,drained")


def _write(folder: Path) -> None:
    """Write the configuration, the key, the devices of GPUs, and a srun that finds the configuration."""
    for name in ("state", "bin", *(f"spool.{node.name}" for node in NODES)):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    ports = _free_ports(len(NODES) + 1)
    lines, gpus = [], []
    for node, port in zip(NODES, ports[1:], strict=True):
        more = ""
        if node.gpus:
            # SLURM numbers character devices; links to /dev/null are some.
            for number in range(node.gpus):
                (folder / f"gpu{number}").symlink_to("/dev/null")
            gpus.append(f"NodeName={node.name} Name=gpu File={folder}/gpu[0-{node.gpus - 1}]\n")
            more = f" Gres=gpu:{node.gpus}"
        lines.append(
            f"NodeName={node.name} NodeHostname={_host()} NodeAddr=127.0.0.1 Port={port} CPUs={node.cpus} Boards=1"
            f" SocketsPerBoard=1 CoresPerSocket={node.cpus} ThreadsPerCore=1 RealMemory=64000{more}\n"
        )
    for partition in dict.fromkeys(node.partition for node in NODES):
        names = ",".join(node.name for node in NODES if node.partition == partition)
        lines.append(f"PartitionName={partition} Nodes={names} Default={'YES' if partition == 'cpu' else 'NO'}\n")
    user = pwd.getpwuid(os.getuid()).pw_name
    head = CONFIGURATION.format(host=_host(), port=ports[0], user=user, folder=folder)
    (folder / "slurm.conf").write_text(head + "".join(lines))
    (folder / "gres.conf").write_text("".join(gpus))
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    # Snakemake's plugin drops SLURM_CONF before its inner srun, which so looks in /etc/slurm.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=SEARCHED)} "$@"\n')
    srun.chmod(0o755)


@contextmanager
def _daemon(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    program = shutil.which(command[0], path=SEARCHED) or command[0]
    # A session of its own: Ctrl-C on the tests is for them to handle.
    process = subprocess.Popen(
        [program, *command[1:]],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_there(path: Path) -> None:
    end = time.monotonic() + 10
    while not path.exists():
        if time.monotonic() > end:
            raise AssertionError(f"{path} did not appear:\n{(path.parent / 'munged.log').read_text()}")
        time.sleep(0.02)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _host() -> str:
    return platform.node().partition(".")[0]

"""A SLURM cluster on this machine, from Debian's packages, without systemd and without touching the system's own files.

    apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
    python -m tests.clusters.slurm sinfo        (any command, on a cluster that lives as long as it)

Two nodes of two processors and two "GPUs" (device files that nothing opens) each, which are the same host: enough for
arrays, several tasks of one job on one and on two nodes, requeueing, time limits and preemption. It must be started by
root, as SLURM's own daemons are.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODES = ("127.0.0.1", "127.0.0.2")
STARTS_WITHIN = 30.0
"""Seconds."""

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
KillWait=10
MinJobAge=300
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
UnkillableStepTimeout=120
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr={name} Port={port} CPUs=2 RealMemory=4000 Gres=gpu:2\n"
PARTITIONS = """
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL Default=NO MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""


def installed() -> bool:
    """Whether this machine has SLURM's daemons, and may start them."""
    return os.geteuid() == 0 and all(shutil.which(program, path=_path()) for program in NEEDED)


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What makes SLURM's commands find it."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}

    def runs(self, *words: str) -> str:
        """What a command of SLURM prints."""
        env = os.environ | self.environment
        return subprocess.run(words, env=env, check=True, capture_output=True, text=True, timeout=60).stdout

    def running(self) -> list[str]:
        """The jobs that run."""
        return self.runs("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i").split()

    def waiting(self) -> list[str]:
        """The jobs that wait."""
        return self.runs("squeue", "--noheader", "--array", "--states=PENDING", "--format=%i").split()

    def start_soon(self) -> None:
        """Start what waits in three seconds: SLURM lets a job that is queued again wait for two minutes, since it
        revokes the credentials of that second, and before the nodes are clean.
        """
        for job in self.waiting():
            self.runs("scontrol", "update", f"JobId={job}", "StartTime=now+3")

    def logs(self) -> str:
        """What the daemons wrote."""
        return "\n".join(f"== {file.name}\n{file.read_text('utf-8')}" for file in sorted(self.folder.glob("*.log")))


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start the daemons, wait until the nodes are idle, and end everything afterwards, jobs too."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, ExitStack() as daemons:
        folder = Path(name)
        folder.chmod(0o755)
        _configure(folder)
        started = Cluster(folder)
        key, socket_file = folder / "munge.key", folder / "munge.socket"
        files = [f"--{what}-file={folder / 'munge'}.{what}" for what in ("log", "pid", "seed")]
        munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={socket_file}", *files]
        daemons.enter_context(_daemon(munged, started))
        _wait(socket_file.exists, started)
        daemons.enter_context(_daemon(["slurmctld", "-D", "-i"], started))
        for node in NODES:
            daemons.enter_context(_daemon(["slurmd", "-D", "-N", node], started))
        daemons.callback(_cancel_all, started)
        _wait(lambda: _idle(started), started)
        yield started


def _configure(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    ports = [_free_port() for _ in range(1 + len(NODES))]
    host = socket.gethostname()
    nodes = [NODE.format(name=name, host=host, port=port) for name, port in zip(NODES, ports[1:], strict=True)]
    conf = CONF.format(folder=folder, host=host, ports=ports)
    (folder / "slurm.conf").write_text(conf + "".join(nodes) + PARTITIONS, "utf-8")
    (folder / "gres.conf").write_text("Name=gpu File=/dev/tty[0-1]\n", "utf-8")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n", "utf-8")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


@contextmanager
def _daemon(words: Sequence[str], cluster: Cluster) -> Iterator[None]:
    log = cluster.folder / f"{'-'.join(word.lstrip('-') for word in words[:3] if len(word) < 12)}.out"
    with log.open("wb") as out:
        env = os.environ | cluster.environment
        process = subprocess.Popen(words, stdout=out, stderr=out, env=env, start_new_session=True)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _idle(cluster: Cluster) -> bool:
    try:
        states = cluster.runs("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T").split()
    except subprocess.CalledProcessError:  # the controller does not listen yet
        return False
    return states == ["idle"] * len(NODES)


def _cancel_all(cluster: Cluster) -> None:
    """A daemon that ends leaves its jobs."""
    cluster.runs("scancel", "--user=root")
    _wait(lambda: not cluster.runs("squeue", "--noheader").strip(), cluster)


def _wait(true: Callable[[], bool], cluster: Cluster) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while not true():
        assert time.monotonic() < deadline, cluster.logs()
        time.sleep(0.1)


def main(words: Sequence[str]) -> int:
    """Run a command on a cluster of its own; returns its exit code."""
    with cluster() as started:
        return subprocess.run(words, env=os.environ | started.environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

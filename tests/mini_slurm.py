"""A real Slurm for tests: one controller and two node daemons on the loopback interface, without munge or root."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

NODES = ("node1", "node2")
_CONFIGURATION = """ClusterName=mini
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
MpiDefault=none
MailProg=/bin/true
KillWait=5
MinJobAge=300
SlurmdTimeout=10
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu,npu
NodeName=DEFAULT CPUs=256 RealMemory=2000000 Gres=gpu:a100:8,npu:8 Feature={features}
NodeName=node1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=node2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]}
{partitions}
"""
_STARTS_SECONDS = 30.0
_UP = frozenset({"idle", "mix", "alloc", "comp"})
_GPUS = 8


class MiniSlurm:
    """Starts and stops the daemons, and waits for jobs."""

    def __init__(self, folder: Path, partitions: tuple[str, ...] = (), features: str = "any") -> None:
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        nodes = ",".join(NODES)
        lines = [
            f"PartitionName={name} Nodes={nodes} Default={'NO' if at else 'YES'} MaxTime=INFINITE OverSubscribe=NO"
            for at, name in enumerate(("debug", *partitions))
        ]
        text = _CONFIGURATION.format(
            user=getpass.getuser(), folder=folder, ports=_free_ports(3), partitions="\n".join(lines), features=features
        )
        (folder / "slurm.conf").write_text(text)
        # GPUs must be device files, and nobody opens them
        devices = sorted(path for path in Path("/dev").iterdir() if path.is_char_device())[:_GPUS]
        lines = [f"Name=gpu Type=a100 File={device}" for device in devices]
        (folder / "gres.conf").write_text("\n".join([*lines, "Name=npu Count=8", ""]))
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self, *names: str) -> None:
        """Start daemons (all of them by default), and wait until they answer."""
        for name in names or ("slurmctld", *NODES):
            command = ["slurmctld", "-D"] if name == "slurmctld" else ["slurmd", "-D", "-N", name]
            with (self.folder / f"{name}.out").open("ab") as sink:
                self._daemons[name] = subprocess.Popen(
                    [_find(command[0]), *command[1:]], env=self.environment, stdout=sink, stderr=sink,
                    start_new_session=True,
                )  # fmt: skip
        deadline = time.monotonic() + _STARTS_SECONDS
        while not (found := set(self.ask("sinfo", "-h", "-N", "-p", "debug", "-o", "%t").split())) or found - _UP:
            assert time.monotonic() < deadline, f"Slurm does not come up: {found}\n{self._logs()}"
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        """kill -9 one daemon."""
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def lose(self, node: str) -> None:
        """What is left of a node whose power fails: nothing."""
        self.kill(node)
        tasks, steps = set(), set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                variables = process.environ()
                conf = variables.get("SLURM_CONF") == self.environment["SLURM_CONF"]
                if conf and variables.get("SLURMD_NODENAME") == node:
                    tasks.add(process)
                    steps |= {parent for parent in process.parents() if parent.name() == "slurmstepd"}
        for process in (*steps, *tasks):  # first those that would tell of the others' end
            with contextlib.suppress(psutil.Error):
                process.kill()

    def close(self) -> None:
        """End all jobs, then the daemons."""
        self.ask("scancel", "--full", "-u", getpass.getuser())
        with contextlib.suppress(TimeoutError):
            self.wait(lambda: not self.ask("squeue", "-h").strip(), 20)
        for name in [*NODES, "slurmctld"]:
            daemon = self._daemons.pop(name, None)
            if daemon is not None:
                daemon.terminate()
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()

    def ask(self, *command: str) -> str:
        """What a client command prints; nothing where the controller does not answer."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout

    def states(self) -> dict[str, str]:
        """Job -> its state (of arrays: each task that is there)."""
        lines = self.ask("squeue", "-h", "-r", "-t", "all", "-o", "%i %T").splitlines()
        return dict(line.split(maxsplit=1) for line in lines)

    def wait(self, is_so: Callable[[], bool], seconds: float) -> None:
        """Until something is so.

        Raises:
            TimeoutError: with the controller's log.
        """
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.states()}\n{self._logs()}")
            time.sleep(0.1)

    def wait_for(self, job: str, *states: str, seconds: float = 180.0) -> str:
        """Until a job is in one of some states; which one."""
        self.wait(lambda: self.states().get(job) in states, seconds)
        return self.states()[job]

    def _logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in sorted(self.folder.glob("*.log")))


def _find(name: str) -> str:
    return shutil.which(name) or f"/usr/sbin/{name}"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def is_installed() -> bool:
    """Whether this machine has Slurm's daemons and clients."""
    return all(shutil.which(name) or Path(f"/usr/sbin/{name}").exists() for name in ("slurmctld", "slurmd", "sbatch"))


@contextlib.contextmanager
def running(folder: Path, partitions: tuple[str, ...] = (), features: str = "any") -> Iterator[MiniSlurm]:
    """A cluster that is up; skips the test where Slurm is not installed."""
    if not is_installed():
        pytest.skip("Slurm is not installed (Debian: slurm-wlm)")
    made = MiniSlurm(folder, partitions, features)
    try:
        made.start()
        yield made
    finally:
        made.close()

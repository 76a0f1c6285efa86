"""A real one-node SLURM cluster on loopback, for tests.

It runs the SLURM and munge daemons of the system's packages as root, with its own ports, key and folder. It therefore
does not disturb other clusters on this machine, or another one that is started from here.

    with Cluster.start(tmp_path) as cluster:
        subprocess.run(["sbatch", "job.sh"], env=cluster.environment, check=True)

By hand:

    eval "$(python tests/slurm_cluster.py start FOLDER)"
    python tests/slurm_cluster.py stop FOLDER

SLURM's intervals are shortened where possible. A requeued job starts again after about 6 seconds (two minutes on a real
cluster), and a failed node is detected after about 15 seconds (five minutes on a real cluster).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType

PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "scancel": "slurm-client",
    "scontrol": "slurm-client",
    "sinfo": "slurm-client",
    "squeue": "slurm-client",
    "srun": "slurm-client",
    "munged": "munge",
}
NODE = "node0"
START_SECONDS = 30.0
STOP_SECONDS = 10.0
DAEMONS = ("slurmctld", "slurmd", "munged")
# Environment variables that sbatch, srun and other commands read as options.
INHERITED = ("SLURM", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SINFO_", "SCANCEL_", "SCONTROL_", "PMI_", "PMIX_")


def missing() -> list[str]:
    """Return what is missing to run a cluster here, as Debian packages or in words; "" if nothing is."""
    packages = {package for binary, package in PACKAGES.items() if _binary(binary) is None}
    lacking = sorted(packages)
    if not sys.platform.startswith("linux"):
        lacking.append("Linux")
    elif os.geteuid() != 0:
        lacking.append("root rights")
    return lacking


class Cluster:
    """A cluster of one node with two partitions: `normal`, the default, and `urgent`, whose jobs requeue others."""

    def __init__(self, folder: Path) -> None:
        """Describe the cluster of a folder, which need not run. `start` creates one."""
        self.folder = folder.absolute()
        self.configuration = self.folder / "slurm.conf"
        # For files with a socket. It links to a folder of /tmp, because a socket's path has at most 107 characters.
        self._link = self.folder / "run"

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        cpus: int = 4,
        memory_mb: int = 4000,
        max_array_size: int = 1001,
        settings: Mapping[str, object] | None = None,
    ) -> Cluster:
        """Start a cluster and wait until its node is idle. If that takes too long, raise RuntimeError.

        `cpus` is the number of CPUs that the node reports, which need not exist. `settings` are lines of slurm.conf to
        add or to replace.
        """
        if lacking := missing():
            raise RuntimeError(f"a SLURM cluster cannot run here without: {', '.join(lacking)}")
        cluster = cls(folder)
        if cluster._pids(*DAEMONS):
            raise RuntimeError(f"a cluster already runs in {cluster.folder}")
        cluster._prepare(_settings(max_array_size) | dict(settings or {}), cpus, memory_mb)
        try:
            cluster._start_munged()
            cluster._start_slurmctld()
            cluster.start_slurmd()
        except BaseException:
            cluster._end()
            raise
        return cluster

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which sbatch, squeue and other commands use this cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(INHERITED)}
        return kept | {"SLURM_CONF": str(self.configuration)}

    def run(self, *command: str, seconds: float = 30) -> str:
        """Run a command on this cluster and return its output. Raise CalledProcessError if it fails."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=seconds, check=True
        )
        return done.stdout

    def node_state(self) -> str:
        """Return the node's state from sinfo (idle, mixed, allocated, down; with a * if it does not answer), or ''."""
        with contextlib.suppress(subprocess.SubprocessError):
            return self.run("sinfo", "--noheader", "--partition=normal", "--format=%T", seconds=5).strip()
        return ""

    def start_slurmd(self) -> None:
        """Start the node's daemon, as when a node boots, and wait until the node is in service."""
        begun = time.time()
        self._launch("slurmd", "-N", NODE)
        self._wait(lambda: self._in_service(begun), "the node is not in service")

    def _in_service(self, begun: float) -> bool:
        """Return whether the controller knows a slurmd that was started since then, and not the previous one."""
        with contextlib.suppress(subprocess.SubprocessError, KeyError, ValueError):
            words = self.run("scontrol", "--oneliner", "show", "node", NODE, seconds=5).split()
            started = dict(word.split("=", 1) for word in words if "=" in word)["SlurmdStartTime"]
            known = time.mktime(time.strptime(started, "%Y-%m-%dT%H:%M:%S")) >= int(begun)
            return known and self.node_state() in ("idle", "mixed", "allocated", "completing")
        return False

    def kill_slurmd(self, *, with_jobs: bool) -> None:
        """Kill the node's daemon, either with its jobs, as when a node fails, or alone, so that the jobs continue.

        With its jobs: they are requeued when SLURM detects the failure, or when the node is back. Alone: if the daemon
        is back before the failure is detected, the jobs are not affected. Otherwise they are requeued, and end when it
        is back, possibly as failed.
        """
        doomed = self._pids("slurmd")
        if with_jobs:
            # First the daemons that would report the end of a job: a node that failed reports nothing.
            doomed += self._pids("slurmstepd") + self._job_pids()
        _kill(doomed, signal.SIGKILL)
        self._wait(lambda: not any(map(_alive, doomed)), "slurmd's processes do not end")

    def restart_controller(self, *, hard: bool = False) -> None:
        """Stop the controller, or kill it if `hard`, start it again, and wait until it answers.

        A killed controller forgets everything since it last saved its state, about 5 seconds, including accepted jobs.
        In both cases, it uses the node and starts jobs only some seconds later.
        """
        controller = self._pids("slurmctld", "slurmscriptd")
        _kill(controller, signal.SIGKILL if hard else signal.SIGTERM)
        self._wait(lambda: not any(map(_alive, controller)), "slurmctld does not end")
        self._start_slurmctld()

    def stop(self) -> None:
        """Cancel every job and end every process of this cluster. The logs stay in the folder."""
        if self._pids("slurmctld"):
            self._cancel_jobs()
        self._end()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self, settings: dict[str, object], cpus: int, memory_mb: int) -> None:
        """Create the folders, the key and the configuration."""
        if any(letter.isspace() or letter in "#%\"'" for letter in str(self.folder)):
            raise ValueError(f"slurm.conf cannot name this folder: {self.folder}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_run_folder()
        run = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        run.chmod(0o711)  # munged refuses a socket that not all users can access
        self._link.symlink_to(run)
        (self.folder / "state").mkdir(exist_ok=True)
        (run / "spool").mkdir()
        key = run / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        self.configuration.write_text(_configuration(self.folder, run, settings, cpus, memory_mb))

    def _start_munged(self) -> None:
        run = self._link.resolve()
        self._launch(
            "munged",
            f"--key-file={run / 'munge.key'}",
            f"--socket={run / 'munge.sock'}",
            f"--pid-file={run / 'munged.pid'}",
            f"--seed-file={run / 'munge.seed'}",
            f"--log-file={self.folder / 'munged.log'}",
            "--num-threads=2",
        )

    def _start_slurmctld(self) -> None:
        self._launch("slurmctld")
        self._wait(self._controller_answers, "slurmctld does not answer")

    def _controller_answers(self) -> bool:
        with contextlib.suppress(subprocess.SubprocessError):
            return " is UP" in self.run("scontrol", "ping", seconds=5)
        return False

    def _launch(self, daemon: str, *options: str) -> None:
        """Run a daemon, which moves to the background by itself. Its output until then goes to a file."""
        with (self.folder / f"{daemon}.out").open("ab") as output:
            code = subprocess.run(
                [_binary(daemon) or daemon, *options],
                env=self.environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=START_SECONDS,
            ).returncode
        if code != 0:
            raise RuntimeError(f"{daemon} does not start (exit status {code})\n{self._log_ends()}")

    def _cancel_jobs(self) -> None:
        """Cancel every job, and wait a short time until none of their processes is left."""
        with contextlib.suppress(subprocess.SubprocessError):
            jobs = set(self.run("squeue", "--noheader", "--states=all", "--format=%A").split())
            if jobs:
                self.run("scancel", "--quiet", *jobs)
        _wait_until(lambda: not self._pids("slurmstepd"), STOP_SECONDS)

    def _end(self) -> None:
        """End the daemons, then the remaining processes of jobs, then munged, which the others need to communicate."""
        self._terminate(self._pids("slurmctld", "slurmd"))
        self._terminate(self._pids("slurmstepd", "slurmscriptd") + self._job_pids())
        self._terminate(self._pids("munged"))
        self._remove_run_folder()

    def _terminate(self, pids: list[int]) -> None:
        """Ask processes to end, and kill those that are still running after a while."""
        _kill(pids, signal.SIGTERM)
        if not _wait_until(lambda: not any(map(_alive, pids)), STOP_SECONDS):
            _kill(filter(_alive, pids), signal.SIGKILL)
            _wait_until(lambda: not any(map(_alive, pids)), STOP_SECONDS)

    def _remove_run_folder(self) -> None:
        if self._link.is_symlink():
            shutil.rmtree(self._link.resolve(), ignore_errors=True)
            self._link.unlink()

    def _pids(self, *names: str) -> list[int]:
        """Return the processes of these names that use this cluster's slurm.conf."""
        return [pid for pid in _all_pids() if _name(pid) in names and self._owns(pid)]

    def _job_pids(self) -> list[int]:
        """Return the processes of this cluster's jobs: descendants of slurmstepd, and those that were orphaned."""
        pids = _descendants(self._pids("slurmstepd"))
        pids |= {pid for pid in _all_pids() if b"SLURM_JOB_ID" in _variables(pid) and self._owns(pid)}
        return sorted(pids)

    def _owns(self, pid: int) -> bool:
        return _variables(pid).get(b"SLURM_CONF") == os.fsencode(self.configuration)

    def _wait(self, condition: Callable[[], bool], trouble: str) -> None:
        if not _wait_until(condition, START_SECONDS):
            raise RuntimeError(f"{trouble} after {START_SECONDS:.0f} s\n{self._log_ends()}")

    def _log_ends(self) -> str:
        """Return the last lines of every log of this cluster."""
        logs = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        ends = [(log.name, log.read_text(errors="replace").splitlines()[-15:]) for log in logs]
        return "\n".join("\n".join([f"--- {name}", *lines]) for name, lines in ends if lines)


def _settings(max_array_size: int) -> dict[str, object]:
    """Return the part of slurm.conf that does not depend on the folder of the cluster."""
    return {
        "ClusterName": "tests",
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        "CredType": "cred/munge",
        "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny",  # listen on loopback only
        "MailProg": "/bin/true",
        "MpiDefault": "none",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "AccountingStorageType": "accounting_storage/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "PropagateResourceLimits": "NONE",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "SlurmdParameters": "config_overrides",  # believe the number of CPUs given here
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,bf_continue",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "JobRequeue": 1,
        "ReturnToService": 2,
        "SlurmdTimeout": 5,
        # No more than cred_expire: else, what tells a failed node to end a job can reach the node after it has come
        # back and started that job again, which then fails.
        "MessageTimeout": 5,
        "KillWait": 2,
        "OverTimeLimit": 0,
        "MinJobAge": 300,
        "MaxJobCount": 30000,
        "MaxArraySize": max_array_size,
    }


def _configuration(folder: Path, run: Path, settings: Mapping[str, object], cpus: int, memory_mb: int) -> str:
    """Return the text of slurm.conf."""
    host = socket.gethostname().split(".")[0]
    controller_port, node_port = _free_ports(2)
    placed = {
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": controller_port,
        "SlurmdPort": node_port,
        # A requeued job waits until its credential has expired; 5 s is the least that SLURM takes.
        "AuthInfo": f"socket={run / 'munge.sock'},cred_expire=5",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": run / "spool",
        "SlurmctldPidFile": run / "slurmctld.pid",
        "SlurmdPidFile": run / "slurmd.pid",
        "SlurmctldLogFile": folder / "slurmctld.log",
        "SlurmdLogFile": folder / "slurmd.log",
    }
    lines = [f"{name}={value}" for name, value in (placed | dict(settings)).items()]
    lines += [
        f"NodeName={NODE} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb}",
        "PartitionName=normal Nodes=ALL Default=YES PriorityTier=1 GraceTime=0",
        "PartitionName=urgent Nodes=ALL PriorityTier=10 GraceTime=0",
    ]
    return "\n".join(lines) + "\n"


def _free_ports(count: int) -> list[int]:
    """Return free ports, below those that the kernel uses for outgoing connections."""
    ports: list[int] = []
    for port in random.SystemRandom().sample(range(10000, 32000), 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise RuntimeError("no free port on loopback")


def _binary(name: str) -> str | None:
    """Return the path of a program. The administrator's folders are searched even if PATH does not have them."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin"]))


def _all_pids() -> list[int]:
    """Return every process except this one and its parent."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if pid not in (os.getpid(), os.getppid())]


def _stat(pid: int) -> tuple[str, str, int] | None:
    """Return the name, state letter and parent of a process; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name is in parentheses, and may itself contain some.
    before, _, after = text.rpartition(")")
    state, parent = after.split()[:2]
    return before.partition("(")[2], state, int(parent)


def _name(pid: int) -> str:
    stat = _stat(pid)
    return stat[0] if stat else ""


def _alive(pid: int) -> bool:
    stat = _stat(pid)
    return stat is not None and stat[1] not in "ZX"


def _descendants(pids: Iterable[int]) -> set[int]:
    """Return the children of these processes, their children, and so on, without the processes themselves."""
    parents = {pid: stat[2] for pid in _all_pids() if (stat := _stat(pid))}
    known = set(pids)
    first = set(known)
    while children := {pid for pid, parent in parents.items() if parent in known} - known:
        known |= children
    return known - first


def _variables(pid: int) -> dict[bytes, bytes]:
    """Return the environment with which a process was started."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return {name: value for name, _, value in (entry.partition(b"=") for entry in entries)}


def _kill(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition. Return whether it holds within this time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _main() -> None:
    parser = argparse.ArgumentParser(description="Start or stop a one-node SLURM cluster for tests.")
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.action == "start":
        print(f"export SLURM_CONF={Cluster.start(options.folder).configuration}")
    else:
        Cluster(options.folder).stop()


if __name__ == "__main__":
    _main()

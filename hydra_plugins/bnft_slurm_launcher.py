"""Sweeps on a SLURM cluster (`hydra/launcher=slurm`): arrays of jobs in waves, bases first."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore

from hydra_plugins.bnft_launcher import PlanLauncher

if TYPE_CHECKING:  # Hydra imports every plugin for every command, --help too
    from bnft.plan import Plan
    from bnft.pool import Outcomes
    from bnft.slurm.submission import Request


@dataclass
class SlurmLauncherConf:
    """Keys up to `mail_user` are sbatch's own, of the same meaning; null leaves them to the cluster."""

    _target_: str = "hydra_plugins.bnft_slurm_launcher.SlurmLauncher"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    gpus: Any = None
    gpus_per_node: Any = None
    cpus_per_task: int | None = None
    mem: Any = None
    mem_per_cpu: Any = None
    mem_per_gpu: Any = None
    time: Any = None
    nodelist: str | None = None
    exclude: str | None = None
    reservation: str | None = None
    nice: int | None = None
    mail_type: str | None = None
    mail_user: str | None = None
    additional_parameters: Any = None  # a mapping of any other of sbatch's
    array_parallelism: int | None = None  # tasks of one array that run at the same time, at most
    setup: list[str] = field(default_factory=list)  # commands of the batch script before the task
    signal_seconds: int = 90  # before its time limit, a job saves its state and has itself requeued
    python: str | None = None  # that the jobs use; null takes the one that submits
    detach: bool = False  # submit and return


ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmLauncherConf, provider="bnft")


class SlurmLauncher(PlanLauncher):
    """Submits what is neither done nor under way, and follows it to its end unless `detach` is set."""

    here = False

    def __init__(
        self,
        *,
        additional_parameters: Any = None,
        array_parallelism: int | None = None,
        setup: list[str] | None = None,
        signal_seconds: int = 90,
        python: str | None = None,
        detach: bool = False,
        **options: Any,
    ) -> None:
        self.options, self.additional = options, {} if additional_parameters is None else additional_parameters
        self.array_parallelism, self.setup_commands = array_parallelism, list(setup or [])
        self.signal_seconds, self.python, self.detach = signal_seconds, python, detach

    def _request(self) -> "Request":
        from bnft.slurm.submission import Request

        options = {**self.options, **self.additional}
        return Request(options, self.setup_commands, self.array_parallelism, self.signal_seconds, self.python)

    def check(self) -> None:
        from bnft.errors import rejected
        from bnft.slurm import submission

        if not isinstance(self.additional, Mapping):
            raise rejected("hydra.launcher.additional_parameters", self.additional, "a mapping of options")
        for key, value in (("array_parallelism", self.array_parallelism), ("signal_seconds", self.signal_seconds)):
            if value is not None and value < 1:
                raise rejected(f"hydra.launcher.{key}", value, "a whole number, at least 1")
        limit = self._request().options.get("time")
        if limit is not None and submission.seconds(limit) is None:
            raise rejected("hydra.launcher.time", limit, "minutes, H:M:S, D-H, D-H:M or D-H:M:S")
        submission.test(self._request())

    def carry_out(self, planned: "Plan", sweep: str) -> "Outcomes | None":
        from bnft.progress import complain
        from bnft.slurm.follow import follow, submit

        submit(planned, sweep, self._request())
        if self.detach:
            complain(f"watch it with `bnft status --watch {sweep}`, wait for it with `bnft wait {sweep}`")
            return None
        return follow(planned, sweep)

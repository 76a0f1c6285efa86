"""The backend for SLURM clusters."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Hydra imports this for every command, --help too
    from bnft.runs.plan import Plan
    from bnft.sweeps.backend import Track
    from bnft.sweeps.pool import Outcomes
    from bnft.sweeps.slurm.submission import Request

OURS = ("additional_parameters", "array_parallelism", "setup", "signal_seconds", "python", "detach")


@dataclass
class Slurm:
    """A backend that submits the tasks that are not done, queued or running, and follows them unless `detach` is set.

    Keys up to `mail_user` are options of sbatch. null uses the default of the cluster.
    """

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
    additional_parameters: Any = None  # a mapping of other options of sbatch
    array_parallelism: int | None = None  # maximal number of tasks of an array that run at the same time
    setup: list[str] = field(default_factory=list)  # commands to run before the task
    signal_seconds: int = 90  # how long before its time limit a job saves its state and requeues itself
    python: str | None = None  # the Python of the jobs; null is the one that submits them
    detach: bool = False  # submit and return

    @property
    def here(self) -> bool:
        return False

    def warm_up(self) -> None:
        """Do nothing."""

    def _request(self) -> "Request":
        from bnft.sweeps.slurm.submission import Request

        own = {key.name: getattr(self, key.name) for key in fields(Slurm) if key.name not in OURS}
        options = {**own, **(self.additional_parameters or {})}
        return Request(options, self.setup, self.array_parallelism, self.signal_seconds, self.python)

    def check(self) -> None:
        from bnft.common.errors import rejected
        from bnft.sweeps.slurm import submission

        if not isinstance(self.additional_parameters or {}, Mapping):
            raise rejected("hydra.launcher.additional_parameters", self.additional_parameters, "a mapping of options")
        for key, value in (("array_parallelism", self.array_parallelism), ("signal_seconds", self.signal_seconds)):
            if value is not None and value < 1:
                raise rejected(f"hydra.launcher.{key}", value, "a whole number, at least 1")
        limit = self._request().options.get("time")
        if limit is not None and submission.seconds(limit) is None:
            raise rejected("hydra.launcher.time", limit, "minutes, H:M:S, D-H, D-H:M or D-H:M:S")
        submission.test(self._request())

    def carry_out(self, planned: "Plan", sweep: str, track: "Track") -> "Outcomes | None":
        from bnft.common.console import notice
        from bnft.sweeps.slurm.follow import follow, submit

        submit(planned, sweep, self._request())
        if self.detach:
            notice(f"`bnft status --watch {sweep}` shows the sweep, `bnft wait {sweep}` waits for it")
            return None
        return follow(planned, sweep)

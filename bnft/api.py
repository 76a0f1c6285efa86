"""bnft in notebooks and scripts. What is here is exported by `bnft` itself: `bnft.run(["policy=adv", "seed=0,1"])`.

Whatever is asked for wrongly raises InputError with one line that says what is wrong and what is allowed.
"""

import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnft.common.errors import Failure, InputError, UnwritableError, rejected
from bnft.report import flat
from bnft.report.flat import Records
from bnft.report.rows import Selection, read, select
from bnft.report.table import PLAIN_WIDTH, render, show
from bnft.runs.store import Store

if TYPE_CHECKING:
    from torch import nn

    from bnft.evaluation.scores import Scores
    from bnft.runs.plan import Plan
    from bnft.sweeps.backend import Backend

HTML = '<pre style="line-height: normal; white-space: pre; overflow-x: auto">{code}</pre>'


class RunsFailedError(RuntimeError):
    """Some runs failed; the results of all others are in the store.

    `failures` says what became of each task that is not done, by its name: RUN, or RUN/EVALUATION.
    """

    def __init__(self, failures: dict[str, Failure], asked: int) -> None:
        self.failures = failures
        runs = {task.partition("/")[0]: failure for task, failure in reversed(failures.items())}
        reasons = "; ".join(f"{run}: {failure}" for run, failure in runs.items())
        super().__init__(f"{len(runs)} of {asked} runs failed: {reasons}")


class Table:
    """Results as `bnft table` shows them: beside the paper's, with its claims."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    def __str__(self) -> str:
        return render(self._selection, "terminal")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), record=True, width=PLAIN_WIDTH, highlight=False)
        show(self._selection, console)
        return console.export_html(code_format=HTML, inline_styles=True)


def plan(arguments: Sequence[str]) -> "Plan":
    """Plan what a command line asks for, and write nothing.

    Args:
        arguments: those of `bnft run -m`, such as `["policy=bn_stats,bn_params", "seed=0,1"]` or `["+sweep=table2"]`.

    Returns:
        The runs, each with its name, its resolved configuration and its base, and the bases that they need beside them.

    Raises:
        InputError: if something cannot be as it is asked for.
    """
    return _planned(arguments)[0]


def run(arguments: Sequence[str]) -> Records:
    """Carry out what a command line asks for on this machine, several runs at a time, and wait for it.

    Asking for runs that are done costs nothing. The processes that compute do not run this script or notebook, so a
    network of your own must be in a module. Interrupted, the same call goes on from there.

    Args:
        arguments: those of `bnft run -m`; `hydra.launcher.KEY=VALUE` sets how many runs work at a time, and where.

    Returns:
        The results of the runs that were asked for; see `results`.

    Raises:
        InputError: if something cannot be as it is asked for; nothing has been written then.
        RunsFailedError: if runs failed, after all others are done.
    """
    from bnft.sweeps.local import Local
    from bnft.sweeps.record import record
    from bnft.sweeps.tasks import tasks, undone
    from bnft.tracking.background import tracked

    planned, backend = _planned(arguments)
    if not isinstance(backend, Local):
        raise InputError("hydra/launcher: must be local in bnft.run; `bnft run -m` takes others")
    backend.check()
    outcomes: dict[str, Failure | None] = {}
    try:
        name = record(planned, f"bnft run -m {shlex.join(arguments)}")
    except UnwritableError:
        if undone(tasks(planned), planned.store):
            raise
    else:
        outcomes = backend.carry_out(planned, name, tracked)
    failures = {task: failure for task, failure in outcomes.items() if failure is not None}
    if failures:
        raise RunsFailedError(failures, len(planned.runs) + len(planned.bases))
    return flat.records(read(planned.store, [(run.name, run.evaluation_id) for run in planned.runs]))


def results(store: str | Path = "multirun", *names: str) -> Records:
    """Results as a list of flat dicts, for `pandas.DataFrame(bnft.results())` and for a notebook.

    Args:
        store: the folder that holds the runs.
        names: sweeps and runs, or `all`; without any, the newest sweep.

    Returns:
        One dict for each evaluation of a run: what it is, `clean_error` and `robust_error` in percent with their 95 %
        intervals (`clean_low`, `clean_high`) and numbers of images, the attack, and the seconds that it took.

    Raises:
        InputError: if there is no such sweep or run, or nothing at all.
        DamagedError: if a result is not whole.
    """
    return flat.records(_selected(store, names))


def table(store: str | Path = "multirun", *names: str) -> Table:
    """The table of `bnft table`, to be printed or shown in a notebook.

    Args:
        store: the folder that holds the runs.
        names: sweeps and runs, or `all`; without any, the newest sweep.

    Returns:
        The table; `str` of it is text.

    Raises:
        InputError: if there is no such sweep or run, or nothing at all.
        DamagedError: if a result is not whole.
    """
    return Table(_selected(store, names))


def load(run: str | Path, store: str | Path = "multirun") -> "nn.Module":
    """The trained model of a run. Needs no data.

    Args:
        run: the name of a run in the store, or the folder of a run.
        store: the folder that holds the runs.

    Returns:
        The model in eval mode, on the CPU. It maps float images (N, C, H, W) in [0, 1] to logits (N, classes).

    Raises:
        InputError: if there is no such run, it is not trained, or its source has been edited.
        DamagedError: if its files are not whole.
    """
    from bnft.runs.trained import trained_model

    named = Store(store).run(str(run))
    folder = named if named.begun else Store(Path(run).expanduser().absolute().parent).run(Path(run).name)
    if not folder.begun:
        raise rejected("run", run, f"the name of a run in {store}, or the folder of a run")
    return trained_model(folder)


def evaluate(
    module: "nn.Module",
    images: Any,
    labels: Any,
    eps: float | str = 8 / 255,
    norm: str = "Linf",
    attack: str = "pgd",
    *,
    version: str = "standard",
    attacks: Sequence[str] | None = None,
    iterations: int = 40,
    step_size: float | str | None = None,
    restarts: int = 1,
    batch_size: int = 100,
    seed: int = 0,
) -> "Scores":
    """Clean and robust error of any module, measured as those of runs are. The module is afterwards as it was.

    Args:
        module: maps float images (N, C, H, W) in [0, 1] to logits (N, classes), in fp32. It is evaluated in eval mode.
        images: float tensor or array of shape (N, C, H, W) in [0, 1]. All of them are attacked.
        labels: integer tensor or array of shape (N,).
        eps: the size of the budget in pixel units, as a number or as "8/255".
        norm: `Linf` or `L2`.
        attack: `pgd`, which is fast, or `autoattack`, which finds more and has the last word.
        version: of AutoAttack: `standard`, `plus`, `rand`, or `custom` with `attacks`.
        attacks: of AutoAttack with `version="custom"`, such as `["apgd-ce", "square"]`.
        iterations: of PGD.
        step_size: of PGD, in pixel units; a quarter of eps if None.
        restarts: of PGD.
        batch_size: images that are attacked at a time.
        seed: of the attack's random draws.

    Returns:
        Errors in percent with intervals, and what became of each image.

    Raises:
        InputError: for a module, images, labels or settings that cannot be.
        EvaluationError: if the module or an attack gives something from which no true number could come.
    """
    from bnft.config.compose import checked_evaluation
    from bnft.evaluation.scores import scored

    own = (
        {"version": version, "attacks": None if attacks is None else list(attacks)}
        if attack == "autoattack"
        else {"iterations": iterations, "step_size": step_size, "restarts": restarts}
    )
    count = max(1, len(images)) if hasattr(images, "__len__") else 1
    common = {"attack": attack, "norm": norm, "eps": eps, "n_images": count, "batch_size": batch_size, "seed": seed}
    return scored(module, images, labels, checked_evaluation({**common, **own}))


def _selected(store: str | Path, names: Sequence[str]) -> Selection:
    return select(Store(store), names)


def _planned(arguments: Sequence[str]) -> "tuple[Plan, Backend | None]":
    """The plan of a command line, and what would carry it out; None for a launcher that is not ours."""
    from hydra.core.plugins import Plugins
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from bnft.config.compat import context_of
    from bnft.config.compose import CONFIG_NAME, composing, quoted
    from bnft.runs.plan import plan as planned

    if isinstance(arguments, str):
        raise rejected("arguments", arguments, 'a list, such as ["policy=adv", "seed=0,1"]')
    for argument in arguments:
        if not isinstance(argument, str) or argument.startswith("-"):
            raise rejected("arguments", argument, "KEY=VALUE, as text")
    with composing() as loader:
        config = loader.load_configuration(CONFIG_NAME, [quoted(one) for one in arguments], RunMode.MULTIRUN)
        sweeper = Plugins.instance().instantiate_sweeper(
            hydra_context=context_of(loader), task_function=lambda _: None, config=config
        )
        if not hasattr(sweeper, "jobs"):
            raise InputError("hydra/sweeper: must be bnft, the default")
        overrides = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        backend = getattr(sweeper.launcher, "backend", None)
        return planned(sweeper.jobs(overrides), here=backend is None or backend.here), backend

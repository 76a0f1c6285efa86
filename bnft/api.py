"""The Python API, for notebooks and scripts. `bnft` exports it: `bnft.run(["policy=adv", "seed=0,1"])`.

Invalid input raises InputError, with one line that says what is wrong and what is allowed.
"""

import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnft.common.console import PLAIN_WIDTH
from bnft.common.errors import Failure, InputError, UnwritableError, rejected
from bnft.report import flat
from bnft.report.flat import Records
from bnft.report.rows import Selection, read, select
from bnft.report.table import render, show
from bnft.runs.store import Store

if TYPE_CHECKING:
    from torch import nn

    from bnft.evaluation.scores import Scores
    from bnft.report.transfer import Transfer
    from bnft.runs.plan import Plan
    from bnft.sweeps.backend import Backend

HTML = '<pre style="line-height: normal; white-space: pre; overflow-x: auto">{code}</pre>'


class RunsFailedError(RuntimeError):
    """Some runs failed. The results of all other runs are in the store.

    Attributes:
        failures: why each task failed, by the name of the task. The name is RUN for a training and RUN/EVALUATION for
            an evaluation.
    """

    def __init__(self, failures: dict[str, Failure], asked: int) -> None:
        self.failures = failures
        runs = {task.partition("/")[0]: failure for task, failure in reversed(failures.items())}
        reasons = "; ".join(f"{run}: {failure}" for run, failure in runs.items())
        super().__init__(f"{len(runs)} of {asked} runs failed: {reasons}")


class Table:
    """Results beside the paper's, with its claims, as `bnft table` shows them. `str(table)` is plain text."""

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
    """Plan the runs of a command line. Writes nothing.

    Args:
        arguments: arguments of `bnft run -m`, for example `["policy=bn_stats,bn_params", "seed=0,1"]` or
            `["+sweep=table2"]`.

    Returns:
        The runs and the bases that they need. Each has a name, a resolved configuration and, if it needs one, a base.

    Raises:
        InputError: if an argument is invalid.
    """
    return _planned(arguments)[0]


def run(arguments: Sequence[str]) -> Records:
    """Carry out the runs of a command line on this machine, several at a time, and wait for them.

    Runs that are done are not computed again. If the call is interrupted, the same call continues from the saved
    state. Runs are computed in processes of their own, which do not execute this script or notebook. A network of your
    own must therefore be in a module.

    Args:
        arguments: arguments of `bnft run -m`. `hydra.launcher.KEY=VALUE` sets how many runs work at a time, and where.

    Returns:
        The results of these runs; see `results`.

    Raises:
        InputError: if an argument is invalid. Nothing is written in this case.
        RunsFailedError: if runs failed. It is raised once all other runs are done.
        OutOfTimeError: if `hydra.launcher.minutes` is over before all runs are done. The same call continues.
    """
    from bnft.sweeps.local import Local
    from bnft.sweeps.record import record
    from bnft.sweeps.tasks import tasks, undone
    from bnft.tracking.background import tracked

    planned, backend = _planned(arguments)
    if not isinstance(backend, Local):
        raise InputError("hydra/launcher: must be local in bnft.run; `bnft run -m` supports others")
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
    """Return results as a list of flat dicts, for example for `pandas.DataFrame(bnft.results())`.

    Args:
        store: the folder that holds the runs.
        names: names of sweeps and runs, or `all`. The default is the newest sweep.

    Returns:
        One dict for each evaluation of a run. It contains the name and settings of the run, `clean_error` and
        `robust_error` in percent with 95 % intervals (`clean_low`, `clean_high`) and numbers of images, the attack, and
        the duration in seconds. Further numbers are `clean_error_900`, `robust_error_correct`,
        `constant_error` and `largest_class`, all in percent; see docs/protocol.md.

    Raises:
        InputError: if a sweep or run does not exist, or if the store is empty.
        DamagedError: if a file of a result is damaged.
    """
    return flat.records(_selected(store, names))


def table(store: str | Path = "multirun", *names: str) -> Table:
    """Return the table that `bnft table` shows, to print it or to display it in a notebook.

    Args:
        store: the folder that holds the runs.
        names: names of sweeps and runs, or `all`. The default is the newest sweep.

    Returns:
        The table. `str(table)` is plain text.

    Raises:
        InputError: if a sweep or run does not exist, or if the store is empty.
        DamagedError: if a file of a result is damaged.
    """
    return Table(_selected(store, names))


def transfer(store: str | Path = "multirun", *names: str, device: str = "auto") -> "Transfer":
    """Try the adversarial images of each row on the models of the others.

    Only rows with the same data, attack, norm, eps, images and budgets are compared, one for each model. Models of
    equal seeds are paired, and errors are means over seeds.

    Args:
        store: the folder that holds the runs.
        names: names of sweeps and runs, or `all`. The default is the newest sweep.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        A matrix. `str(transfer)` is a table, `transfer.records` is a list of dicts with one dict per cell, and
        `transfer.left_out` names the rows and seeds that are left out.

    Raises:
        InputError: if a sweep or run does not exist, or if no run has its model and its adversarial images.
        DamagedError: if a file of a result is damaged.
    """
    from bnft.report.transfer import measure

    return measure(_selected(store, names), device)


def load(run: str | Path, store: str | Path = "multirun") -> "nn.Module":
    """Load the trained model of a run. The data set is not needed.

    Args:
        run: the name of a run in the store, or the folder of a run.
        store: the folder that holds the runs.

    Returns:
        The model in eval mode, on the CPU. It maps float images (N, C, H, W) in [0, 1] to logits (N, classes).

    Raises:
        InputError: if the run does not exist, if it is not trained, or if the source of its model has been edited.
        DamagedError: if one of its files is damaged.
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
    attack: str = "quick",
    *,
    version: str = "standard",
    attacks: Sequence[str] | None = None,
    then: str | None = None,
    iterations: int = 40,
    step_size: float | str | None = None,
    restarts: int = 1,
    batch_size: int = 100,
    seed: int = 0,
) -> "Scores":
    """Measure the clean and robust error of any module, in the same way as for runs. The module is left unchanged.

    Args:
        module: maps float images (N, C, H, W) in [0, 1] to logits (N, classes), in fp32. It is evaluated in eval mode.
        images: float tensor or array of shape (N, C, H, W) in [0, 1]. All images are attacked.
        labels: integer tensor or array of shape (N,).
        eps: the maximal size of a perturbation in pixel units, as a number or as "8/255".
        norm: `Linf` or `L2`.
        attack: `quick`, `autoattack` or `pgd`. Quick finds almost all that AutoAttack finds, at a small part of the
            cost. PGD finds less; it is for comparisons with older papers.
        version: the version of AutoAttack: `standard`, `plus`, `rand`, or `custom` with `attacks`.
        attacks: the attacks of AutoAttack for `version="custom"`, for example `["apgd-ce", "square"]`.
        then: `quick` attacks what AutoAttack has not broken. The result is `strongest_error`.
        iterations: the number of iterations of PGD.
        step_size: the step size of PGD in pixel units. The default is a quarter of eps.
        restarts: the number of restarts of PGD and of the quick attack.
        batch_size: the number of images attacked together.
        seed: the seed of the attack's random draws.

    Returns:
        The errors in percent with intervals, and the outcome for each image.

    Raises:
        InputError: if the module, the images, the labels or a setting are invalid.
        EvaluationError: if the module or an attack returns invalid values, so that the errors would be wrong.
    """
    from bnft.config.check import checked_evaluation
    from bnft.evaluation.scores import scored

    own: dict[str, Any] = {"restarts": restarts}
    if attack == "autoattack":
        own = {"version": version, "attacks": None if attacks is None else list(attacks)}
        own |= {"then": then, "restarts": restarts} if then is not None else {}
    elif attack == "pgd":
        own |= {"iterations": iterations, "step_size": step_size}
    count = max(1, len(images)) if hasattr(images, "__len__") else 1
    common = {"attack": attack, "norm": norm, "eps": eps, "n_images": count, "batch_size": batch_size, "seed": seed}
    return scored(module, images, labels, checked_evaluation({**common, **own}))


def _selected(store: str | Path, names: Sequence[str]) -> Selection:
    return select(Store(store), names)


def _planned(arguments: Sequence[str]) -> "tuple[Plan, Backend | None]":
    """Return the plan of a command line and its backend. The backend is None for launchers other than bnft's."""
    from hydra.core.plugins import Plugins
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from bnft.config.compat import context_of
    from bnft.config.compose import CONFIG_NAME, composing, for_hydra
    from bnft.runs.plan import plan as planned

    if isinstance(arguments, str):
        raise rejected("arguments", arguments, 'a list, such as ["policy=adv", "seed=0,1"]')
    for argument in arguments:
        if not isinstance(argument, str) or argument.startswith("-"):
            raise rejected("arguments", argument, "KEY=VALUE, as text")
    with composing() as loader:
        config = loader.load_configuration(
            CONFIG_NAME, [for_hydra(argument) for argument in arguments], RunMode.MULTIRUN
        )
        sweeper = Plugins.instance().instantiate_sweeper(
            hydra_context=context_of(loader), task_function=lambda _: None, config=config
        )
        if not (hasattr(sweeper, "jobs") and hasattr(sweeper, "study")):
            raise InputError("hydra/sweeper: must be bnft, the default")
        overrides = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        backend = getattr(sweeper.launcher, "backend", None)
        return planned(sweeper.jobs(overrides), backend is None or backend.here, sweeper.study()), backend

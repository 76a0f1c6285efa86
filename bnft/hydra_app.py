"""`bnft run` and launch.py: one run, or many with `-m`.

`--help` and tab completion import this module, so it must import quickly.
"""

import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from bnft.common.compat import argparse_actions
from bnft.common.ending import OUT_OF_TIME, argparse_message, printing, refused, trouble
from bnft.common.errors import Failure, InputError, OutOfTimeError, UnwritableError, rejected
from bnft.common.files import reachable
from bnft.config import folders
from bnft.config.check import SCHEMA
from bnft.config.compat import flag_parser
from bnft.config.compose import CONFIG_NAME, for_hydra, register
from bnft.config.messages import about_input, library_message

HERE = (".LocalLauncher", ".BasicLauncher")  # launchers that a single run does not need

register()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run Hydra on a command line. Ends the process if it fails.

    Args:
        arguments: the arguments of `bnft run`. The default is `sys.argv`, for a script that calls this function.
    """
    if arguments is not None:
        sys.argv = ["bnft", *arguments]
    make_importable(Path.cwd())
    guarded(_main)


def make_importable(folder: Path) -> None:
    """Add a folder to the start of `sys.path`, as `python -m` does, so that components in it can be imported.

    If the folder contains another bnft, it is added to the end. Otherwise worker processes would import that bnft.
    """
    other = any((folder / name).exists() for name in ("bnft", "hydra_plugins")) and folder != folders.checkout()
    if str(folder) not in sys.path:
        sys.path.insert(len(sys.path) if other else 0, str(folder))


@hydra.main(version_base="1.3", config_path=str(folders.own()), config_name=CONFIG_NAME)
def _main(config: DictConfig) -> None:
    run_one()


def run_one() -> None:
    """Carry out the run that Hydra composed, and print its result.

    In a sweep, every error is raised, and the sweep continues without this run.
    """
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task)  # as written, interpolations included
    assert isinstance(overrides, list)
    launcher = _launcher()
    try:
        if not launcher:
            raise InputError("hydra.launcher: must be a launcher; hydra/launcher=NAME chooses one, --help lists them")
        with reachable():
            if HydraConfig.get().mode == RunMode.RUN and not launcher.endswith(HERE):
                _launch_one([str(override) for override in overrides])
            else:
                _run_one([str(override) for override in overrides])
    except Exception as error:
        message = trouble(error)
        if message is None or HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        sys.exit(refused(message))  # here, because Hydra would print a line of its own before raising the error again


def _launcher() -> str:
    """Return the name of the launcher's class, or "" if `hydra.launcher` is not a launcher."""
    hydra = OmegaConf.to_container(HydraConfig.get(), resolve=False)
    launcher = hydra["launcher"] if isinstance(hydra, dict) else None
    return str(launcher.get("_target_")) if isinstance(launcher, dict) else ""


def _launch_one(overrides: list[str]) -> None:
    """Launch a single run as a sweep of its own."""
    backend = getattr(instantiate(HydraConfig.get().launcher), "backend", None)
    if backend is None:
        raise InputError("hydra/launcher: must be local or slurm without -m; this one needs -m")
    from bnft.launching import sweep

    sweep([overrides], backend)


def _run_one(overrides: list[str]) -> None:
    from bnft.common.console import notice
    from bnft.common.stopping import STOP_SIGNALS, Requests, Stopped
    from bnft.runs.execution import execute
    from bnft.runs.plan import plan  # here and below: PyTorch takes seconds to import
    from bnft.runs.store import SWEEP_NAME
    from bnft.sweeps.record import commit
    from bnft.sweeps.tasks import tasks, undone
    from bnft.sweeps.terminal import Terminal
    from bnft.tracking.background import tracked

    local = HydraConfig.get().launcher if _launcher().endswith(".LocalLauncher") else None
    until = instantiate(local).backend.until if local is not None else math.inf
    planned = plan([overrides])
    (run,) = planned.runs
    if HydraConfig.get().mode == RunMode.RUN and run.config[SWEEP_NAME] is not None:
        raise rejected(SWEEP_NAME, run.config[SWEEP_NAME], "given with -m, since a single run is not a sweep")
    expected = {task.run.name: [run.evaluation_id] * task.evaluated for task in undone(tasks(planned), planned.store)}
    try:
        with (
            Requests(*STOP_SIGNALS, until=until) as requests,
            Terminal() as terminal,
            tracked(planned.store, expected, planned.wandb, terminal, commit=commit() if expected else None),
        ):
            result = execute(run, planned.store, terminal, pulse=requests.pulse)
    except Stopped as stop:
        if requests.received is None:
            raise OutOfTimeError({run.name: Failure(str(stop), stopped=True)}) from None
        raise KeyboardInterrupt from None
    except UnwritableError as error:
        if expected:
            raise
        notice(f"bnft: the run is done already; nothing was written ({error})")
        result = planned.store.run(run.name).evaluation(run.evaluation_id).result()
    if HydraConfig.get().mode == RunMode.RUN and result is not None:
        from bnft.report.table import print_result

        print_result(planned.store, run.name, run.evaluation_id)


def guarded(main: Callable[[], object]) -> None:
    """Call `main`, and end the process with an exit code if it fails.

    The code is 2 for errors that a user can correct, which print one line, 75 if the time is over, and 130 after an
    interruption. Any other error is a bug in bnft. It is raised, so that Python prints its traceback.
    """
    sys.argv[1:] = [for_hydra(argument) for argument in sys.argv[1:]]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints a shortened error and exits with 1
    with printing():
        folders.give(_checked_flags(sys.argv[1:]).config_dir)
        try:
            with reachable():
                main()
        except KeyboardInterrupt:
            print("interrupted; the same command continues from here", file=sys.stderr)
            sys.exit(130)
        except OutOfTimeError as error:
            print(error, file=sys.stderr)
            sys.exit(OUT_OF_TIME)
        except Exception as error:
            if not about_input(error):
                raise
            sys.exit(refused(library_message(error, SCHEMA)))


def _checked_flags(arguments: Sequence[str]) -> Any:
    """Parse Hydra's flags. Errors print one line, not the whole usage of Hydra's parser."""
    parser = flag_parser()
    flags = [option for action in argparse_actions(parser) for option in action.option_strings]

    def refuse(message: str) -> NoReturn:
        program = "bnft run" if sys.argv[0] == "bnft" else Path(sys.argv[0]).name
        sys.exit(refused(f"{argparse_message(message, flags)}; see {program} --help"))

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_args(arguments)

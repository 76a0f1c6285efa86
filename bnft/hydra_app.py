"""What `launch.py` does: one run, and the way out of errors. Light, since `--help` and tab completion import it."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from bnft.common.ending import argparse_message, printing, refused, trouble
from bnft.common.errors import InputError, UnwritableError
from bnft.common.files import reachable
from bnft.config.compose import CONFIG_NAME, SCHEMA, register
from bnft.config.messages import about_input, library_message

__all__ = ["CONFIG_NAME", "guarded", "run_one"]

HERE = (".LocalLauncher", ".BasicLauncher")  # launchers that a single run may do without

register()


def run_one() -> None:
    """Carry out the run that Hydra composed, and say what came of it.

    In a sweep, what a person can put right is raised like anything else, and the sweep goes on without this run.
    """
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task)  # as written, interpolations included
    assert isinstance(overrides, list)
    try:
        if HydraConfig.get().mode == RunMode.RUN and not _launcher().endswith(HERE):
            raise InputError("hydra/launcher: must be used with -m; without it, a run goes on this machine, at once")
        with reachable():
            _run_one([str(override) for override in overrides])
    except Exception as error:
        said = trouble(error)
        if said is None or HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        sys.exit(refused(said))  # here, since Hydra would print a line of its own before raising this again


def _launcher() -> str:
    """The class of the launcher; nothing if `hydra.launcher` was overridden by something else."""
    hydra = OmegaConf.to_container(HydraConfig.get(), resolve=False)
    launcher = hydra["launcher"] if isinstance(hydra, dict) else None
    return str(launcher.get("_target_")) if isinstance(launcher, dict) else ""


def _run_one(overrides: list[str]) -> None:
    from bnft.common.console import complain
    from bnft.common.stopping import STOP_SIGNALS, Requests, Stopped
    from bnft.runs.execution import execute
    from bnft.runs.plan import plan  # here and below: PyTorch takes seconds to import
    from bnft.sweeps.record import commit
    from bnft.sweeps.tasks import tasks, undone
    from bnft.sweeps.terminal import Terminal
    from bnft.tracking.background import tracked

    planned = plan([overrides])
    (run,) = planned.runs
    expected = {task.run.name: [run.evaluation_id] * task.evaluated for task in undone(tasks(planned), planned.store)}
    try:
        with (
            Requests(*STOP_SIGNALS) as requests,
            Terminal() as terminal,
            tracked(planned.store, expected, planned.wandb, terminal, commit=commit() if expected else None),
        ):
            result = execute(run, planned.store, terminal, pulse=requests.pulse)
    except Stopped:
        raise KeyboardInterrupt from None
    except UnwritableError as error:
        if expected:
            raise
        complain(f"bnft: it is done already; nothing was written ({error})")
        result = planned.store.run(run.name).evaluation(run.evaluation_id).result()
    if HydraConfig.get().mode == RunMode.RUN and result is not None:
        from bnft.report.table import print_result

        print_result(planned.store, run.name, run.evaluation_id)


def guarded(main: Callable[[], object]) -> None:
    """Call `main` and end the process: 0; 2 with one line for what a person can put right; 130 when interrupted.

    Anything else that is raised is a bug of ours and ends with its traceback.
    """
    sys.argv[1:] = [quoted(argument) for argument in sys.argv[1:]]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would otherwise print its own abbreviation and exit with 1
    with printing():
        _check_flags(sys.argv[1:])
        try:
            with reachable():
                main()
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            if not about_input(error):
                raise
            sys.exit(refused(library_message(error, SCHEMA)))


def _check_flags(arguments: Sequence[str]) -> None:
    """Refuse in one line what Hydra's parser would answer with its whole usage."""
    parser = get_args_parser()
    flags = [option for action in parser._actions for option in action.option_strings]

    def refuse(message: str) -> NoReturn:
        sys.exit(refused(f"{argparse_message(message, flags)}; see {Path(sys.argv[0]).name} --help"))

    parser.error = refuse  # type: ignore[method-assign]
    parser.parse_args(arguments)


def quoted(argument: str) -> str:
    """`base_overrides=[a=1,b=2]` with the quotes that Hydra's grammar wants around each item that has none."""
    name, _, items = argument.partition("=")
    one_list = items.startswith("[") and items.endswith("]") and "],[" not in items
    if name.lstrip("+") != "base_overrides" or not one_list:
        return argument
    bare = re.split(r",(?![^\[\]{}()]*[\]})])", items[1:-1])  # at commas outside brackets
    wrapped = [item if item[:1] in ("'", '"') or "=" not in item else f"'{item}'" for item in map(str.strip, bare)]
    return f"{name}=[{','.join(wrapped)}]"

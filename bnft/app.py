"""What `launch.py` does: one run, and the way out of errors. Light, since `--help` and tab completion import it."""

import os
import sys
from collections.abc import Callable

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from bnft.compose import CONFIG_NAME, SCHEMA, register
from bnft.errors import InputError
from bnft.messages import library_message

__all__ = ["CONFIG_NAME", "guarded", "run_one"]

register()


def run_one() -> None:
    """Carry out the run that Hydra composed, and say what came of it."""
    from bnft.plan import plan  # here and below: PyTorch takes seconds to import
    from bnft.progress import Terminal
    from bnft.run import execute

    overrides = list(HydraConfig.get().overrides.task)
    planned = plan([overrides])
    (run,) = planned.runs
    result = execute(run, planned.store, Terminal())
    if HydraConfig.get().mode == RunMode.RUN and result is not None:
        from bnft.report.table import print_result

        print_result(planned.store, run.name, run.evaluation_id)


def guarded(main: Callable[[], object]) -> None:
    """Call `main` and end the process: 0; 2 with one line for what a person can put right; 130 when interrupted.

    Anything else that is raised is a bug of ours and ends with its traceback.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would otherwise print its own abbreviation and exit with 1
    try:
        main()
    except InputError as error:
        sys.exit(_refused(str(error)))
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(_refused(library_message(error, SCHEMA)))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def _refused(message: str) -> int:
    print(f"bnft: {message}", file=sys.stderr)
    return 2

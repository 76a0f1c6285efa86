"""bnft: experiments on batch normalisation in adversarial training.

The command is `bnft`; `bnft run` trains and evaluates. The functions here do the same in notebooks and scripts; see
`bnft.api`. They are imported on first use, because importing PyTorch takes seconds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnft.api import RunsFailedError as RunsFailedError
    from bnft.api import Table as Table
    from bnft.api import evaluate as evaluate
    from bnft.api import load as load
    from bnft.api import plan as plan
    from bnft.api import results as results
    from bnft.api import run as run
    from bnft.api import table as table
    from bnft.api import transfer as transfer
    from bnft.common.errors import DamagedError as DamagedError
    from bnft.common.errors import InputError as InputError
    from bnft.common.errors import OutOfTimeError as OutOfTimeError

__version__ = "0.2.0.dev0"

_ERRORS = ("DamagedError", "InputError", "OutOfTimeError")
_API = ("RunsFailedError", "Table", "evaluate", "load", "plan", "results", "run", "table", "transfer")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _ERRORS or name in _API:
        return getattr(import_module("bnft.common.errors" if name in _ERRORS else "bnft.api"), name)
    raise AttributeError(f"module 'bnft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ERRORS, *_API})

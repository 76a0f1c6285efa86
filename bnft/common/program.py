"""The program of this process: `bnft run`, or a script such as launch.py."""

import shlex
import sys
from pathlib import Path


def command() -> str:
    """Return the command line of this process, to be used again."""
    return shlex.join(sys.argv) if _is_script() else f"bnft run {shlex.join(sys.argv[1:])}".rstrip()


def folder() -> Path:
    """Return the folder of a user's own code: that of the script, or for `bnft run` the current folder."""
    return Path(sys.argv[0]).resolve().parent if _is_script() else Path.cwd()


def _is_script() -> bool:
    return sys.argv[0].endswith(".py")

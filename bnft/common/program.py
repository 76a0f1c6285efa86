"""The program that this process is: `bnft run`, or a script such as launch.py."""

import shlex
import sys
from pathlib import Path


def command() -> str:
    """The command line, as it can be typed again."""
    return shlex.join(sys.argv) if _is_script() else f"bnft run {shlex.join(sys.argv[1:])}".rstrip()


def folder() -> Path:
    """Where a person's own code lies: beside the script; for `bnft run`, the current folder."""
    return Path(sys.argv[0]).resolve().parent if _is_script() else Path.cwd()


def _is_script() -> bool:
    return sys.argv[0].endswith(".py")

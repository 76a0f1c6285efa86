"""The commands with which users find their way in a store: `list`, `show`, `diff`, `why` and `remove`."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

WHY = "why"


def add(commands: "argparse._SubParsersAction[Any]", store: Callable[[str], Any]) -> None:
    """Add the commands.

    Args:
        commands: the subcommands of `bnft`.
        store: converts the argument of --store.
    """
    listed = commands.add_parser("list", help="list the sweeps of a store, newest first")
    listed.set_defaults(call=_list)
    for command in (listed,):
        command.add_argument("--format", default="terminal", choices=("terminal", "json"), help="default: %(default)s")
    for command in (listed,):
        command.add_argument(
            "--store", type=store, default="multirun", help="the folder that holds the runs (default: %(default)s)"
        )


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def _list(options: argparse.Namespace) -> None:
    from bnft.report import listing

    sweeps = listing.listed(options.store)
    if options.format == "json":
        _print_json(listing.fields(sweeps))
    else:
        listing.show(sweeps)

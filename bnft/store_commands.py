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
    diff = commands.add_parser("diff", help="show what makes two runs different, and their results side by side")
    diff.add_argument("a", metavar="A", help="a run")
    diff.add_argument("b", metavar="B", help="another run")
    diff.set_defaults(call=_diff)
    shown = commands.add_parser("show", help="show what a run is, its results, its files and the command that makes it")
    shown.add_argument("run", metavar="RUN", help="a run")
    shown.set_defaults(call=_show)
    for command in (listed, shown, diff):
        command.add_argument("--format", default="terminal", choices=("terminal", "json"), help="default: %(default)s")
    for command in (listed, shown, diff):
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


def _diff(options: argparse.Namespace) -> None:
    from bnft.report import comparison
    from bnft.report.one_run import one_run

    runs = one_run(options.store, options.a), one_run(options.store, options.b)
    if options.format == "json":
        _print_json(comparison.fields(*runs))
    else:
        comparison.show(*runs)


def _show(options: argparse.Namespace) -> None:
    from bnft.report import shown_run
    from bnft.sweeps.status import reached

    run = shown_run.read(options.store, options.run, reached(options.store))
    if options.format == "json":
        _print_json(run.fields())
    else:
        shown_run.show(run)

"""The command `bnft`: what there is to do with finished runs."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from bnft import __version__
from bnft.errors import InputError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand; ends with 2 and one line for what a person can put right."""
    options = _parser().parse_args(arguments)
    try:
        options.call(options)
    except InputError as error:
        print(f"bnft: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()


class _Parser(argparse.ArgumentParser):
    """Refuses in one line, as everything else does, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bnft: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bnft", description="What batch normalisation can and cannot do. Runs are made with launch.py."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    table = commands.add_parser("table", help="Table 2, ours beside the paper's, and the paper's claims")
    table.add_argument("names", nargs="*", metavar="NAME", help="sweeps or runs, or all; the newest sweep if none")
    table.add_argument("--store", default="multirun", help="the folder that holds the runs (default: %(default)s)")
    table.add_argument(
        "--format", default="terminal", choices=("terminal", "md", "csv", "tex", "json"), help="default: %(default)s"
    )
    table.set_defaults(call=_table)
    return parser


def _table(options: argparse.Namespace) -> None:
    from bnft.report import table
    from bnft.report.rows import select
    from bnft.store import Store

    selection = select(Store(options.store), options.names)
    if options.format == "terminal":
        table.show(selection, table._console())
    else:
        sys.stdout.write(table.render(selection, options.format))

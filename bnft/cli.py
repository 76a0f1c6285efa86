"""The command `bnft`: what there is to do with finished runs."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bnft import __version__
from bnft.common.compat import argparse_actions
from bnft.common.ending import argparse_message, printing, refused, trouble
from bnft.common.errors import InputError
from bnft.common.files import reachable

if TYPE_CHECKING:  # `--help` needs no store
    from bnft.runs.store import Store

RUN = "run"
JOB = "job"  # which only jobs on a cluster call


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand; ends with 2 and one line for what a person can put right."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == [RUN]:  # Hydra reads the rest
        from bnft import hydra_app

        return hydra_app.main(words[1:])
    with printing():
        try:
            if words[:1] == ["-sc"]:
                return _complete(words)
            parser = _parser()
            options = parser.parse_args(words)
            if "call" not in options:
                parser.error("a COMMAND must be given")
            with reachable():
                options.call(options)
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            said = trouble(error)
            if said is None:
                raise
            sys.exit(refused(said))
    return None


class _Parser(argparse.ArgumentParser):
    """Refuses in one line, as everything else does, without the usage."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """A subcommand refuses what it does not know itself, since it has the names that could have been meant."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, []

    def error(self, message: str) -> NoReturn:
        names = ((*action.option_strings, *(action.choices or ())) for action in argparse_actions(self))
        sys.exit(refused(f"{argparse_message(message, chain.from_iterable(names))}; see {self.prog} --help"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bnft", description="What batch normalisation can and cannot do in adversarial training.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND")
    commands.add_parser(RUN, add_help=False, help="train and evaluate runs; `bnft run --help` lists all settings")
    table = commands.add_parser("table", help="Table 2, ours beside the paper's, and the paper's claims")
    table.add_argument("names", nargs="*", metavar="NAME", help="sweeps or runs, or all; the newest sweep if none")
    table.add_argument(
        "--format", default="terminal", choices=("terminal", "md", "csv", "tex", "json"), help="default: %(default)s"
    )
    table.set_defaults(call=_table)
    report = commands.add_parser("report", help="a page with the table, the paper's figures and more, and PDFs of them")
    report.add_argument("names", nargs="*", metavar="NAME", help="sweeps or runs, or all; the newest sweep if none")
    report.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where it goes (default: reports/NAME in the store)"
    )
    report.set_defaults(call=_report)
    export = commands.add_parser("export", help="a small copy of results, to keep beside a paper")
    export.add_argument("folder", type=_store, metavar="FOLDER", help="where to; a store, as --store takes it")
    export.add_argument("names", nargs="*", metavar="NAME", help="sweeps or runs, or all; the newest sweep if none")
    export.add_argument(
        "--models",
        nargs="+",
        default=[],
        metavar="POLICY",
        help="whose models go with it, for base=FOLDER/RUN",
    )
    export.set_defaults(call=_export)
    status = commands.add_parser("status", help="where runs stand: the store and SLURM's queue together")
    status.add_argument("names", nargs="*", metavar="SWEEP", help="sweeps; the whole store if none")
    how = status.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="go on showing until nothing more happens")
    how.add_argument("--json", action="store_true", help="a list of objects, one a run")
    status.set_defaults(call=_status)
    wait = commands.add_parser("wait", help="wait for a sweep, and end with 0 if all of it is done, else with 1")
    wait.set_defaults(call=_wait)
    cancel = commands.add_parser("cancel", help="end what was launched or submitted for a sweep, and nothing else")
    cancel.set_defaults(call=_cancel)
    sync = commands.add_parser("sync", help="upload runs to W&B, each row once, however often it is called")
    sync.add_argument("names", nargs="*", metavar="NAME", help="sweeps or runs, or all; the newest sweep if none")
    sync.add_argument("--entity", help="whose project it is in W&B (default: what the runs were asked for with)")
    sync.add_argument("--project", help="where they go (default: what the runs were asked for with)")
    sync.set_defaults(call=_sync)
    dashboard = commands.add_parser("dashboard", help="a W&B workspace and a report that compare a sweep")
    dashboard.add_argument("sweep", nargs="?", metavar="SWEEP", help="the newest if none")
    dashboard.add_argument("--entity", required=True, help="whose project it is in W&B: a user or a team")
    dashboard.add_argument("--project", required=True, help="where the runs were tracked")
    dashboard.add_argument("--layer", metavar="NAME", help="whose histograms are shown (default: the 8th BN layer)")
    dashboard.add_argument("--dry-run", action="store_true", help="only write what would be sent; needs no credentials")
    dashboard.add_argument(
        "--output", type=Path, metavar="FILE", help="for the specification (default: dashboard-SWEEP.json in the store)"
    )
    dashboard.set_defaults(call=_dashboard)
    job = commands.add_parser(JOB)  # without help, since it is not for people
    job.add_argument("store", type=Path)
    job.add_argument("tasks", type=Path)
    job.set_defaults(call=_job)
    wait.add_argument("names", nargs="*", metavar="SWEEP", help="sweeps; if none, the newest that is not finished")
    cancel.add_argument(
        "names", nargs="*", metavar="SWEEP", help="sweeps; if none, the newest of which something is queued or running"
    )
    for command in (table, report, export, status, wait, cancel, sync, dashboard):
        command.add_argument(
            "--store", type=_store, default="multirun", help="the folder that holds the runs (default: %(default)s)"
        )
    return parser


def _store(path: str) -> "Store":
    from bnft.runs.store import Store, checked

    return Store(checked(path))


def _complete(words: list[str]) -> None:
    """Answer a shell that Hydra's script for tab completion is installed in: what can come next in $COMP_LINE."""
    line = re.match(r"\s*\S+\s+(\S*)(\s.*)?$", os.environ.get("COMP_LINE", ""))
    if line is None or line[2] is None:
        print(*_commands(_parser()))
    elif line[1] == RUN:
        from bnft import hydra_app

        os.environ["COMP_LINE"] = f"bnft{line[2]}"
        hydra_app.main(words)


def _commands(parser: argparse.ArgumentParser) -> list[str]:
    """What `--help` lists."""
    (commands,) = (action for action in argparse_actions(parser) if isinstance(action.choices, dict))
    return [name for name in commands.choices or () if name != JOB]


def _table(options: argparse.Namespace) -> None:
    from bnft.report import table
    from bnft.report.rows import select
    from bnft.runs.selection import meant

    store = options.store
    with meant(store, options.names) as names:
        selection = select(store, names)
    if options.format == "terminal":
        table.show(selection, table._console())
    else:
        sys.stdout.write(table.render(selection, options.format))
    table.tell(selection)


def _report(options: argparse.Namespace) -> None:
    from bnft.report.write import report
    from bnft.runs.selection import meant

    store = options.store
    with meant(store, options.names) as names:
        page = report(store, names, options.output)
    print(f"report: {page}")


def _export(options: argparse.Namespace) -> None:
    from bnft.report.export import export
    from bnft.runs.selection import meant

    store = options.store
    with meant(store, options.names) as names:
        runs = export(store, names, options.folder, options.models)
    size = sum(file.stat().st_size for run in runs for file in run.path.rglob("*") if file.is_file())
    print(f"exported: {len(runs)} run{'s' * (len(runs) != 1)}, {size / 1e6:.1f} MB in {options.folder.root}")


def _status(options: argparse.Namespace) -> None:
    import json

    from rich.console import Console

    from bnft.common.console import notice
    from bnft.runs.selection import readable, some_sweeps
    from bnft.sweeps import run_table
    from bnft.sweeps.status import StoreStatus
    from bnft.sweeps.terminal import Terminal
    from bnft.sweeps.wait import watch

    store = options.store
    names = some_sweeps(store, options.names) if options.names else None
    if options.watch:
        with Terminal(console=Console(highlight=False)) as terminal:
            standings = watch(store, names or [name for name, _ in readable(store)], terminal)
    else:
        try:
            view = StoreStatus(store)
        except InputError as error:
            notice(f"bnft: SLURM does not answer, so this is what the store says alone ({error})")
            view = StoreStatus(store, jobs=())
        standings = view.statuses(names)
    if not standings:
        raise InputError(f"store={store.root}: must be a folder with runs; this one has none")
    if options.json:
        sys.stdout.write(json.dumps([standing.fields() for standing in standings], indent=1) + "\n")
    else:
        run_table.show([standing.line() for standing in standings])


def _wait(options: argparse.Namespace) -> None:
    from bnft.runs.selection import some_sweeps, tell
    from bnft.sweeps.run_table import counts
    from bnft.sweeps.wait import look, watch

    store = options.store
    names = some_sweeps(store, options.names)
    if not names:
        view = look(store)
        found = view.newest(view.is_unfinished)
        which = "the newest that is not finished" if found else "the newest, as nobody works on any"
        names = [found or [*view.sweeps][-1]]
        tell(f"sweep {names[0]} ({which})")
    standings = watch(store, names)
    print(f"sweep {', '.join(names)}: {counts([standing.line() for standing in standings])}")
    for standing in standings:
        if standing.state != "done":
            detail = f": {standing.detail}" if standing.detail else ""
            log = f" (log: {standing.log})" if standing.log else ""
            print(f"{standing.state}: {standing.run}{detail}{log}")
    sys.exit(0 if all(standing.state == "done" for standing in standings) else 1)


def _cancel(options: argparse.Namespace) -> None:
    from bnft.runs.selection import some_sweeps, tell
    from bnft.sweeps.status import StoreStatus, cancel

    store = options.store
    names = some_sweeps(store, options.names)
    if not names:
        view = StoreStatus(store)
        found = view.newest(view.can_be_cancelled)
        if found is None:
            print(f"nothing of any sweep in {store.root} is queued or running")
            return
        names = [found]
    for name in names:
        ended = cancel(StoreStatus(store), name)
        if not options.names:
            tell(f"sweep {name} (the newest of which something is queued or running)")
        print(f"sweep {name}: {ended}")


def _job(options: argparse.Namespace) -> None:
    from bnft.sweeps.slurm.job import job
    from bnft.tracking.background import tracked

    sys.exit(job(options.store, options.tasks, tracked))


def _sync(options: argparse.Namespace) -> None:
    from bnft.tracking.sync import sync

    sys.exit(sync(options.store, options.names, options.entity, options.project))


def _dashboard(options: argparse.Namespace) -> None:
    from bnft.common.console import notice
    from bnft.runs.selection import ALL, meant
    from bnft.tracking.dashboard.sending import make

    store, send = options.store, not options.dry_run
    with meant(store, [options.sweep] if options.sweep else []) as (name,):
        sweep = None if name == ALL else name
        made = make(store, options.entity, options.project, sweep, options.layer, send, options.output)
    for note in made.notes:
        notice(f"bnft: {note}")
    for url in made.urls:
        print(url)
    print(f"specification: {made.file}")

"""The command `bnft` and its subcommands."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bnft import __version__, store_commands
from bnft.common.compat import argparse_actions
from bnft.common.ending import argparse_message, printing, refused, trouble
from bnft.common.errors import InputError
from bnft.common.files import reachable

if TYPE_CHECKING:  # keeps `--help` fast
    from bnft.runs.store import Store

RUN = "run"
JOB = "job"  # called by jobs on a cluster only


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand. Errors that a user can correct print one line and exit with code 2."""
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
            message = trouble(error)
            if message is None:
                raise
            sys.exit(refused(message))
    return None


class _Parser(argparse.ArgumentParser):
    """Prints errors in one line, without the usage."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse unknown arguments in the parser of the subcommand, which knows the names to suggest."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, []

    def error(self, message: str) -> NoReturn:
        names = ((*action.option_strings, *(action.choices or ())) for action in argparse_actions(self))
        sys.exit(refused(f"{argparse_message(message, chain.from_iterable(names))}; see {self.prog} --help"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bnft", description="Experiments on batch normalisation in adversarial training.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND")
    commands.add_parser(RUN, add_help=False, help="train and evaluate runs; `bnft run --help` lists all settings")
    table = commands.add_parser("table", help="show results, with the published numbers and claims of their study")
    table.add_argument("names", nargs="*", metavar="NAME", help="sweeps, runs or all (default: the newest sweep)")
    table.add_argument(
        "--format", default="terminal", choices=("terminal", "md", "csv", "tex", "json"), help="default: %(default)s"
    )
    table.set_defaults(call=_table)
    report = commands.add_parser("report", help="write a page with tables and figures, and the figures as PDF and PNG")
    report.add_argument("names", nargs="*", metavar="NAME", help="sweeps, runs or all (default: the newest sweep)")
    report.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where to write it (default: reports/NAME in the store)"
    )
    report.add_argument(
        "--layer", metavar="LAYER", help="the BN layer of Figure 1, by name or number (default: that of the study)"
    )
    report.add_argument(
        "--rows",
        metavar="TITLES",
        help='rows that figures show, such as "ADV, BN PARAMS" (default: those of the study)',
    )
    report.add_argument("--live", action="store_true", help="serve the page on this machine while a sweep runs")
    report.add_argument("--port", type=int, default=0, help="the port of --live (default: a free one)")
    report.set_defaults(call=_report)
    transfer = commands.add_parser("transfer", help="try the adversarial images of each row on the other models")
    transfer.add_argument("names", nargs="*", metavar="NAME", help="sweeps, runs or all (default: the newest sweep)")
    transfer.add_argument(
        "--format", default="terminal", choices=("terminal", "csv", "json"), help="default: %(default)s"
    )
    transfer.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    transfer.set_defaults(call=_transfer)
    export = commands.add_parser("export", help="write a small copy of results, or what a sweep needs to continue")
    export.add_argument(
        "folder",
        type=_target,
        metavar="FOLDER",
        help="the folder to write to; other commands read it with --store; or a file NAME.tar.xz, an archive of it",
    )
    export.add_argument("names", nargs="*", metavar="NAME", help="sweeps, runs or all (default: the newest sweep)")
    export.add_argument(
        "--models",
        nargs="+",
        default=[],
        metavar="POLICY",
        help="policies whose models are included, for base=FOLDER/RUN",
    )
    export.add_argument(
        "--unfinished",
        action="store_true",
        help="include all that runs of these sweeps that are not done need to continue on another machine",
    )
    export.set_defaults(call=_export)
    store_commands.add(commands, _store)
    layers = commands.add_parser("layers", help="show the layers of a model, and the parameters that a selector picks")
    layers.add_argument("model", nargs="?", metavar="MODEL", help="a value of model=; without it, print all values")
    layers.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for `bnft run`, such as policy=bn_params")
    layers.add_argument(
        "--select", nargs="+", metavar="SELECTOR", help="selectors to show (default: freeze_policy.parameters)"
    )
    layers.set_defaults(call=_layers)
    status = commands.add_parser("status", help="show the state of runs, from the store and SLURM's queue")
    status.add_argument("names", nargs="*", metavar="SWEEP", help="sweeps (default: the whole store)")
    how = status.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="update until no run is queued or running")
    how.add_argument("--json", action="store_true", help="print a list of objects, one per run")
    status.set_defaults(call=_status)
    wait = commands.add_parser("wait", help="wait for a sweep; exit with 0 if all of its runs are done, else with 1")
    wait.set_defaults(call=_wait)
    cancel = commands.add_parser("cancel", help="end what was launched or submitted for a sweep, and nothing else")
    cancel.set_defaults(call=_cancel)
    sync = commands.add_parser("sync", help="upload the records that W&B does not have yet")
    sync.add_argument("names", nargs="*", metavar="NAME", help="sweeps, runs or all (default: the newest sweep)")
    sync.add_argument("--entity", help="a user or team in W&B (default: wandb.entity of the runs)")
    sync.add_argument("--project", help="a project in W&B (default: wandb.project of the runs)")
    sync.set_defaults(call=_sync)
    dashboard = commands.add_parser("dashboard", help="make a W&B workspace and a report that compare a sweep")
    dashboard.add_argument("sweep", nargs="?", metavar="SWEEP", help="the sweep (default: the newest)")
    dashboard.add_argument("--entity", required=True, help="the user or team that owns the project in W&B")
    dashboard.add_argument("--project", required=True, help="the project in W&B that has the runs")
    dashboard.add_argument("--layer", metavar="NAME", help="BN layer shown in histograms (default: the 8th)")
    dashboard.add_argument(
        "--dry-run", action="store_true", help="only write the specification to a file; needs no credentials"
    )
    dashboard.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write it (default: dashboard-SWEEP.json in the store)"
    )
    dashboard.set_defaults(call=_dashboard)
    job = commands.add_parser(JOB)  # no help: not for users
    job.add_argument("store", type=Path)
    job.add_argument("tasks", type=Path)
    job.set_defaults(call=_job)
    wait.add_argument("names", nargs="*", metavar="SWEEP", help="sweeps (default: the newest that is not finished)")
    cancel.add_argument(
        "names", nargs="*", metavar="SWEEP", help="sweeps (default: the newest that is queued or running)"
    )
    for command in (table, report, transfer, export, status, wait, cancel, sync, dashboard):
        command.add_argument(
            "--store", type=_store, default="multirun", help="the folder that holds the runs (default: %(default)s)"
        )
    return parser


def _store(path: str) -> "Store":
    from bnft.runs.store import Store, checked

    return Store(checked(path))


def _target(path: str) -> Path:
    from bnft.runs.store import checked

    file = Path(path)
    return checked(str(file.parent)) / file.name if file.suffixes[-2:] == [".tar", ".xz"] else checked(path)


def _complete(words: list[str]) -> None:
    """Print the completions of $COMP_LINE, for the script that Hydra installs in a shell."""
    line = re.match(r"\s*\S+\s+(\S*)(\s.*)?$", os.environ.get("COMP_LINE", ""))
    if line is None or line[2] is None:
        print(*_commands(_parser()))
    elif line[1] in (RUN, store_commands.WHY):
        from bnft import hydra_app

        os.environ["COMP_LINE"] = f"bnft{line[2]}"
        hydra_app.main(words)


def _commands(parser: argparse.ArgumentParser) -> list[str]:
    """Return the names of the commands that `--help` lists."""
    (commands,) = (action for action in argparse_actions(parser) if isinstance(action.choices, dict))
    return [name for name in commands.choices or () if name != JOB]


def _table(options: argparse.Namespace) -> None:
    from bnft.common.console import output
    from bnft.report import table
    from bnft.report.rows import select
    from bnft.runs.selection import meant

    store = options.store
    with meant(store, options.names) as names:
        selection = select(store, names)
    if options.format == "terminal":
        table.show(selection, output())
    else:
        sys.stdout.write(table.render(selection, options.format))
    table.tell(selection)


def _report(options: argparse.Namespace) -> None:
    store = options.store
    if options.live:
        from bnft.report.live import serve

        serve(store, options.names, lambda line: print(line, flush=True), options.port)
        return
    from bnft.report.write import report
    from bnft.runs.selection import meant

    with meant(store, options.names) as names:
        page = report(store, names, options.output, options.layer, options.rows)
    print(f"report: {page}")


def _transfer(options: argparse.Namespace) -> None:
    from bnft.common.console import output
    from bnft.hydra_app import make_importable
    from bnft.report.rows import select
    from bnft.report.table import tell
    from bnft.report.transfer import measure, print_matrix, render
    from bnft.runs.selection import meant

    make_importable(Path.cwd())
    store = options.store
    with meant(store, options.names) as names:
        selection = select(store, names)
        transfer = measure(selection, options.device)
    if options.format == "terminal":
        print_matrix(transfer, output())
    else:
        sys.stdout.write(render(transfer, options.format))
    tell(selection)


def _export(options: argparse.Namespace) -> None:
    from bnft.report.export import export_to
    from bnft.runs.selection import meant

    store = options.store
    with meant(store, options.names) as names:
        count, size = export_to(store, names, options.folder, options.models, options.unfinished)
    print(f"exported: {count} run{'s' * (count != 1)}, {size / 1e6:.1f} MB in {options.folder}")


def _layers(options: argparse.Namespace) -> None:
    from bnft.hydra_app import make_importable
    from bnft.report import layers

    if options.model is None:
        if options.select:
            raise InputError("MODEL: must be given before --select; `bnft layers` lists the models")
        print(*layers.choices(), sep="\n")
        return
    make_importable(Path.cwd())
    layers.show(options.model, options.overrides, options.select or [])


def _status(options: argparse.Namespace) -> None:
    import json

    from rich.console import Console

    from bnft.runs.selection import readable, some_sweeps
    from bnft.sweeps import run_table
    from bnft.sweeps.status import reached
    from bnft.sweeps.terminal import Terminal
    from bnft.sweeps.wait import watch

    store = options.store
    names = some_sweeps(store, options.names) if options.names else None
    if options.watch:
        with Terminal(console=Console(highlight=False)) as terminal:
            statuses = watch(store, names or [name for name, _ in readable(store)], terminal)
    else:
        statuses = reached(store).statuses(names)
    if not statuses:
        raise InputError(f"store={store.root}: must be a folder with runs; this one has none")
    if options.json:
        sys.stdout.write(json.dumps([status.fields() for status in statuses], indent=1) + "\n")
    else:
        run_table.show([status.line() for status in statuses])


def _wait(options: argparse.Namespace) -> None:
    from bnft.runs.selection import some_sweeps, tell
    from bnft.sweeps.run_table import counts
    from bnft.sweeps.wait import look, watch

    store = options.store
    names = some_sweeps(store, options.names)
    if not names:
        view = look(store)
        unfinished = view.newest(view.is_unfinished)
        which = "the newest that is not finished" if unfinished else "the newest; none is queued or running"
        names = [unfinished or [*view.sweeps][-1]]
        tell(f"sweep {names[0]} ({which})")
    statuses = watch(store, names)
    print(f"sweep {', '.join(names)}: {counts([status.line() for status in statuses])}")
    for status in statuses:
        if status.state != "done":
            detail = f": {status.detail}" if status.detail else ""
            log = f" (log: {status.log})" if status.log else ""
            print(f"{status.state}: {status.run}{detail}{log}")
    sys.exit(0 if all(status.state == "done" for status in statuses) else 1)


def _cancel(options: argparse.Namespace) -> None:
    from bnft.runs.selection import some_sweeps, tell
    from bnft.sweeps.status import StoreStatus, cancel

    store = options.store
    names = some_sweeps(store, options.names)
    if not names:
        view = StoreStatus(store)
        newest = view.newest(view.can_be_cancelled)
        if newest is None:
            print(f"no sweep in {store.root} is queued or running")
            return
        names = [newest]
    for name in names:
        ended = cancel(StoreStatus(store), name)
        if not options.names:
            tell(f"sweep {name} (the newest that is queued or running)")
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

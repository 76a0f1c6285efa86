"""The commands with which users find their way in a store: `list`, `show`, `diff`, `compare`, `why` and `remove`."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
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
    compare = commands.add_parser("compare", help="test two rows on the same images and seeds, and draw the difference")
    compare.add_argument("a", metavar="A", help="the title of a row, or the name of a run or a sweep")
    compare.add_argument("b", metavar="B", help="what to compare it with")
    compare.add_argument(
        "--measure", default="robust_error", help="such as clean_error or mean_m (default: %(default)s)"
    )
    compare.add_argument(
        "--sweep", default="", metavar="SWEEP", help="the sweep that has the rows (default: the newest)"
    )
    compare.set_defaults(call=_compare)
    why = commands.add_parser(WHY, help="show what `bnft run` would do for the same arguments, and why; run nothing")
    why.add_argument(
        "arguments", nargs="*", metavar="ARGUMENT", help="as for `bnft run -m`, such as policy=adv seed=0,1"
    )
    why.add_argument("-m", "--multirun", action="store_true", help="changes nothing; as in the command that would run")
    why.add_argument("--config-dir", metavar="FOLDER", help="as for `bnft run`")
    why.set_defaults(call=_why)
    remove = commands.add_parser(
        "remove", help="remove runs and sweeps, or parts of runs; without --yes, only show them"
    )
    remove.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="runs or sweeps; a sweep goes with those of its runs that no other sweep lists",
    )
    what = remove.add_mutually_exclusive_group()
    what.add_argument("--sweeps", action="store_true", help="remove only the records of sweeps, and keep their runs")
    what.add_argument("--only", choices=("checkpoints", "models"), help="remove only these files of the runs")
    remove.add_argument("--force", action="store_true", help="remove what other sweeps list or other runs need, too")
    remove.add_argument("--yes", action="store_true", help="do it")
    remove.set_defaults(call=_remove)
    for command in (listed, shown, diff, compare, why):
        command.add_argument("--format", default="terminal", choices=("terminal", "json"), help="default: %(default)s")
    for command in (listed, shown, diff, compare, remove):
        command.add_argument(
            "--store", type=store, default="multirun", help="the folder that holds the runs (default: %(default)s)"
        )
    why.add_argument("--store", metavar="FOLDER", help="the same as store=FOLDER")


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


def _compare(options: argparse.Namespace) -> None:
    from bnft.common.console import notice
    from bnft.report import compared

    found = compared.compare(options.store, options.a, options.b, options.measure, options.sweep)
    if options.format == "json":
        _print_json([one.fields() for one in found])
    else:
        for one in found:
            print(compared.text(one))
    if any(one.difference is not None for one in found):
        from bnft.report.figures.compared import differences
        from bnft.report.write import printed

        figure = differences(found)
        assert figure is not None
        stem = compared.file_of(options.store, options.a, options.b, options.measure)
        printed(figure, stem)
        notice(f"figure: {stem}.pdf and .png")


def _show(options: argparse.Namespace) -> None:
    from bnft.report import shown_run
    from bnft.sweeps.status import reached

    run = shown_run.read(options.store, options.run, reached(options.store))
    if options.format == "json":
        _print_json(run.fields())
    else:
        shown_run.show(run)


def _why(options: argparse.Namespace) -> None:
    from bnft.api import plan
    from bnft.config import folders
    from bnft.hydra_app import make_importable
    from bnft.report import why
    from bnft.sweeps.status import reached

    make_importable(Path.cwd())
    folders.give(options.config_dir)
    planned = plan([*options.arguments, *([f"store={options.store}"] if options.store is not None else [])])
    found = why.reasons(planned, reached(planned.store))
    if options.format == "json":
        _print_json(why.fields(found))
    else:
        why.show(found)


def _remove(options: argparse.Namespace) -> None:
    from bnft.common.sizes import in_bytes
    from bnft.sweeps.removal import carry_out, removal
    from bnft.sweeps.status import StoreStatus

    planned = removal(
        StoreStatus(options.store),
        options.names,
        only=options.only,
        keep_runs=options.sweeps,
        force=options.force,
    )
    sizes = [item.size for item in planned.items]
    if options.yes:
        carry_out(options.store, planned)
    verb = "removed" if options.yes else "would remove"
    for item, size in zip(planned.items, sizes, strict=True):
        print(f"{verb} {item.kind} {item.name}, {in_bytes(size)}")
    for name, reason in planned.kept.items():
        print(f"keeps {name}: {reason}")
    total = f"{len(sizes)} in all, {in_bytes(sum(sizes))}" if sizes else "nothing to remove"
    print(total if options.yes or not sizes else f"{total}; nothing was removed yet, --yes removes it")

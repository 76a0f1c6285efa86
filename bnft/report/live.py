"""`bnft report --live`: the report of a sweep that is still running, as a page that this machine serves to itself.

The page shows the state of every run, training curves and BN histograms of the runs that have begun, and below them the
report of the runs that are done. It only reads the store. The server listens on 127.0.0.1 only. It answers only
requests with the random token in the address and with a `Host` of this machine, so that other pages in the browser
cannot read it.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bnft.batchnorm.record import BatchNormRecord
from bnft.common.errors import DamagedError, InputError
from bnft.report import page
from bnft.report.content import StudyDrawings, content
from bnft.report.drawing import drawn
from bnft.report.figures import batchnorm, runs
from bnft.report.figures.base import Figure
from bnft.report.groups import Group, Series
from bnft.report.recorded import RowRecords
from bnft.report.rows import Row, select
from bnft.report.style import looks
from bnft.runs import layout
from bnft.runs.selection import newest
from bnft.runs.store import Store
from bnft.studies.study import Study
from bnft.sweeps.status import SETTLED, RunStatus, StoreStatus

ADDRESS = "127.0.0.1"
LEAST_SECONDS = 2.0  # between two looks at the store
SHOWN = 6  # rows that histograms show at first: those that come last in the sweep
MOST_SHARE = 4  # a page that takes a second to make is made at most every 4 seconds
WATCHED = (layout.HISTORY, layout.BATCHNORM, layout.STATUS, layout.MODEL)


@dataclass
class Begun:
    """The runs of a row that have begun: their histories and BN records by seed, as far as they can be read."""

    histories: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    records: dict[int, BatchNormRecord] = field(default_factory=dict)


class Live:
    """The page of a sweep, made again whenever a file of its runs has changed."""

    def __init__(self, store: Store, sweep: str | None = None) -> None:
        name = sweep or newest(store)
        if name is None:
            raise InputError(f"store={store.root}: must be a folder with sweeps; this one has none")
        self.store, self.sweep = store, name
        record = store.sweep(name)
        self._study = Study.decoded(record["study"]) if record.get("study") else None
        self._titles = {entry["run"]: entry.get("row") for entry in record["runs"]}
        self._lock = threading.Lock()
        self._version, self._page, self._made, self._seconds = "", b"", 0.0, 0.0

    def version(self) -> str:
        """Return the version of the page, which is made again if necessary."""
        self.page()
        return self._version

    def _files(self) -> str:
        """Return a text that changes when the files of a run do."""
        stamps = []
        for run in self._titles:
            folder = self.store.root / run
            files = [*(folder / name for name in WATCHED), *folder.glob(f"{layout.EVALUATION}/*/{layout.RESULT}")]
            stamps += [_stamp(file) for file in files]
        return f"{hash(tuple(stamps)) & 0xFFFFFFFF:08x}"

    def page(self) -> bytes:
        """Return the page. It is made again if files have changed, but not all the time."""
        with self._lock:
            waited = time.monotonic() - self._made
            if not self._page or (waited > max(LEAST_SECONDS, MOST_SHARE * self._seconds)):
                version = self._files()
                if version != self._version:
                    started = time.monotonic()
                    self._page, self._version = self._rendered(version).encode(), version
                    self._seconds = time.monotonic() - started
                self._made = time.monotonic()
            return self._page

    def _rendered(self, version: str) -> str:
        selection = select(self.store, [self.sweep])
        studies = [StudyDrawings(study) for study in selection.studies()] if selection.results else []
        for one in studies:
            one.figures = [[(figure, None) for figure in drawn(read)] for read in one.groups]
        statuses = StoreStatus(self.store).statuses([self.sweep])
        done = sum(status.state == "done" for status in statuses)
        running = any(status.state not in SETTLED for status in statuses)
        summary = f"{self.sweep}: {done} of {len(statuses)} done. Errors in percent, eps in pixel units."
        values = content(selection, studies, self._study.title if self._study else f"Sweep {self.sweep}", summary)
        live = {
            "version": version,
            "running": running,
            "states": [_state(status, self._titles.get(status.run)) for status in statuses],
            "figures": [page.drawn(figure, "live", None) for figure in self._figures()],
        }
        return page.render({**values, "missing": [], "previewed": [], "live": live})

    def _figures(self) -> Iterator[Figure]:
        """Draw the training curves and BN histograms of all runs that have begun."""
        begun = self._begun()
        look = looks(begun, self._study)
        series = [Series(label, Row(()), look[label]) for label in begun]
        curves = runs.training(Group("", tuple(series)), {label: one.histories for label, one in begun.items()})
        records = {label: RowRecords(one.records, {}, ()) for label, one in begun.items() if one.records}
        layer = self._study.layer if self._study else 1
        shown = [one for one in series if one.label in records]
        histograms = batchnorm.figure1(shown, records, shown=shown[-SHOWN:], layer=layer) if shown else None
        yield from (figure for figure in (curves, histograms) if figure is not None)

    def _begun(self) -> dict[str, Begun]:
        """Return the runs that have begun, by the title of their row."""
        found: dict[str, Begun] = {}
        for run, title in self._titles.items():
            folder = self.store.run(run)
            with suppress(DamagedError):  # not begun, or being written
                record, history = folder.record(), folder.history()
                seed = int(record.identity.get("seed", 0))
                row = found.setdefault(title or record.title, Begun())
                row.histories[seed] = history
                row.records[seed] = folder.batchnorm()
        return found


def _stamp(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _state(status: RunStatus, title: str | None) -> dict[str, str]:
    line = status.line()
    return {
        "run": status.run,
        "title": title or "",
        "state": line.state,
        "detail": line.detail,
        "clean": line.clean,
        "robust": line.robust,
    }


def server(live: Live, token: str | None = None, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """Return a server of the page on this machine, and the address of the page.

    Args:
        live: the page.
        token: the secret part of the address; a random one by default.
        port: the port; a free one by default.
    """
    secret = token or secrets.token_urlsafe(18)

    class Handler(BaseHTTPRequestHandler):
        server_version = "bnft"
        sys_version = ""

        def do_GET(self) -> None:
            known = {f"/{secret}/": self._page, f"/{secret}/version": self._version}
            hosts = {f"{name}:{self.connection.getsockname()[1]}" for name in (ADDRESS, "localhost")}
            answer = known.get(self.path) if self.headers.get("Host") in hosts else None
            if answer is None:
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                answer()

        def _page(self) -> None:
            self._send(live.page(), "text/html; charset=utf-8")

        def _version(self) -> None:
            self._send(live.version().encode(), "text/plain")

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(HTTPStatus.OK)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                ("Referrer-Policy", "no-referrer"),
                ("X-Content-Type-Options", "nosniff"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Print nothing: the terminal may show a board."""

    found = ThreadingHTTPServer((ADDRESS, port), Handler)
    found.daemon_threads = True
    return found, f"http://{ADDRESS}:{found.server_port}/{secret}/"


def serve(store: Store, names: Sequence[str], say: Callable[[str], None], port: int = 0) -> None:
    """Serve the page of a sweep until Ctrl-C.

    Raises InputError if several names are given, or none of them is a sweep.
    """
    if len(names) > 1:
        raise InputError(f"{', '.join(names)}: must be one sweep with --live")
    live = Live(store, names[0] if names else None)
    try:
        running, address = server(live, port=port)
    except OSError as error:
        raise InputError(f"--port {port}: must be a free port of this machine ({error.strerror})") from None
    say(f"{address}  (sweep {live.sweep}; Ctrl-C ends)")
    with running, suppress(KeyboardInterrupt):
        running.serve_forever(poll_interval=0.2)

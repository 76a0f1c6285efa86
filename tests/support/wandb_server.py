"""A W&B server on loopback that keeps what it is sent, as far as the real one does: a run's lines by their place.

It answers what wandb's service process asks: GraphQL for a run's state, the file stream for its history, PUT for files.
Beside it, what the tests of tracking share: reading offline runs back, and finding processes.
"""

import gzip
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = "0123456789abcdef" * 2 + "01234567"  # what a key looks like
ENTITY = "someone"


@dataclass
class Kept:
    """One run as the server has it. `received` counts every time that a line came for a place in `history`."""

    project: str
    fields: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    received: dict[int, int] = field(default_factory=dict)
    changed: list[int] = field(default_factory=list)  # places whose line came again and was another
    events: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        found = json.loads(self.fields.get("config") or "{}")
        return {key: value["value"] for key, value in found.items() if not key.startswith("_")}

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The history in order; it has no holes."""
        assert sorted(self.history) == list(range(len(self.history))), sorted(self.history)
        return [self.history[place] for place in sorted(self.history)]


class WandbServer:
    """Runs in a thread; a context manager. `trouble` makes it answer otherwise: a status for requests that match."""

    def __init__(self) -> None:
        self.runs: dict[str, Kept] = {}
        self.requests: list[tuple[str, str]] = []  # method and path, or the GraphQL operation
        self.status: int | None = None  # answered to everything, in place of what was asked for
        self.status_of: dict[str, int] = {}  # to requests whose path or operation has this in it
        self.delay = 0.0  # seconds before anything is answered
        self.unknown: list[str] = []
        self.lock = threading.RLock()
        server = self

        class Handler(_Handler):
            kept = server

        self._http = _Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> "WandbServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """What leads W&B here, and nowhere else."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    # what it answers

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            answering = getattr(self, f"_{operation}", None)
            if answering is None:
                self.unknown.append(operation)
                return {}
            return dict(answering(variables))

    def _ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - named as it is asked for
        return {"serverInfo": {"features": []}}

    def _Viewer(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        return {
            "viewer": {
                "id": "1", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": teams,
            }
        }  # fmt: skip

    def _RunResumeStatus(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.runs.get(asked["name"])
        bucket = None
        if run is not None:
            tail = [json.dumps(line) for line in run.lines[-1:]]
            bucket = {
                "name": asked["name"],
                "summaryMetrics": json.dumps(run.summary),
                "displayName": run.fields.get("displayName"),
                "logLineCount": 0,
                "historyLineCount": len(run.history),
                "eventsLineCount": run.events,
                "historyTail": json.dumps(tail),
                "eventsTail": "[]",
                "config": run.fields.get("config") or "{}",
                "tags": run.fields.get("tags") or [],
                "notes": "",
                "wandbConfig": json.dumps({"t": 1}),
            }
        return {"model": {"name": asked["project"], "entity": {"name": ENTITY}, "bucket": bucket}}

    def _UpsertBucket(self, sent: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name = sent.get("name") or sent.get("id")
        inserted = name not in self.runs
        run = self.runs.setdefault(str(name), Kept(sent.get("project") or ""))
        run.fields.update({key: value for key, value in sent.items() if value is not None})
        project = {"id": "p", "name": run.project, "entity": {"id": "e", "name": sent.get("entity") or ENTITY}}
        bucket = {
            "id": f"id-{name}", "name": name, "displayName": run.fields.get("displayName"), "description": "",
            "config": run.fields.get("config"), "sweepName": None, "project": project,
            "historyLineCount": len(run.history),
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _CreateRunFiles(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [
            {"name": name, "uploadUrl": f"{self.url}/upload/{asked['run']}?file={name}"} for name in asked["files"]
        ]
        return {"createRunFiles": {"runID": f"id-{asked['run']}", "uploadHeaders": [], "files": files}}

    def _RunLines(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.runs.get(asked["name"])
        return {"model": {"bucket": run and {"historyLineCount": len(run.history)}}}

    def _MarkRunFilesUploaded(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"markRunFilesUploaded": {"success": True}}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        """Take in a request of the file stream: lines go where their offset says."""
        with self.lock:
            run = self.runs[name]
            history = sent.get("files", {}).get("wandb-history.jsonl")
            if history:
                for place, line in enumerate(history["content"], start=history["offset"]):
                    value = json.loads(line)
                    run.received[place] = run.received.get(place, 0) + 1
                    if place in run.history and run.history[place] != value:
                        run.changed.append(place)
                    run.history[place] = value
            summary = sent.get("files", {}).get("wandb-summary.json")
            if summary:
                run.summary = json.loads(summary["content"][0])
            events = sent.get("files", {}).get("wandb-events.jsonl")
            if events:
                run.events = events["offset"] + len(events["content"])
            if sent.get("complete"):
                run.exit_code = sent.get("exitcode")


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # the files of a run come all at once

    def handle_error(self, *_: object) -> None:
        """A client that went away in mid-request is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kept: WandbServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._take("GET", self.path, lambda: self._reply({}))

    def do_PUT(self) -> None:
        body = self._body()
        self._take("PUT", self.path, lambda: self._put(body))

    def do_POST(self) -> None:
        body = self._body()
        if self.path.startswith("/graphql"):
            asked = json.loads(body)
            named = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            operation = asked.get("operationName") or (named.group(1) if named else "anonymous")
            answer = self.kept.answer
            self._take("POST", operation, lambda: self._reply({"data": answer(operation, asked["variables"] or {})}))
        elif stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self._take("POST", self.path, lambda: self._stream(stream.group(1), json.loads(body)))
        else:
            self.kept.unknown.append(self.path)
            self._reply({})

    def _stream(self, run: str, sent: dict[str, Any]) -> None:
        self.kept.stream(run, sent)
        self._reply({"limits": {}})

    def _put(self, body: bytes) -> None:
        found = re.fullmatch(r"/upload/([^/?]+)\?file=(.+)", self.path)
        if found:
            with self.kept.lock:
                self.kept.runs[found.group(1)].files[found.group(2)] = body
        self._reply({})

    def _take(self, method: str, what: str, reply: Any) -> None:
        server = self.kept
        time.sleep(server.delay)
        with server.lock:
            server.requests.append((method, what))
        status = server.status or next((code for part, code in server.status_of.items() if part in what), None)
        if status is not None:
            self._reply({"error": "trouble"}, status)
        else:
            reply()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def read_back(folder: Path) -> list[dict[str, Any]]:
    """The records of an offline W&B run, as W&B's own tool reads them."""
    (file,) = folder.glob("*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(file)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in said.stdout.splitlines()]


def without_credentials(monkeypatch: Any, folder: Path) -> None:
    """W&B as it is where nobody has logged in."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("NETRC", raising=False)


def children(parent: int, part: str) -> list[int]:
    """The processes that `parent` started and whose command line has `part` in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, above = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended meanwhile
                continue
            if int(above) == parent and state != "Z" and part in command:
                found.append(int(entry.name))
    return found

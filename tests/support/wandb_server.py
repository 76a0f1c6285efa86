"""A W&B server on loopback that keeps everything that it receives. Like the real one, it keeps lines by their place.

It answers the requests of wandb's service process: GraphQL for a run's state, the file stream for its history, PUT for
files. This module also has other helpers for tests of tracking: they read offline runs back and find processes.
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

KEY = "0123456789abcdef" * 2 + "01234567"  # the format of a key
ENTITY = "someone"


@dataclass
class Kept:
    """One run on the server. `received` counts the lines that were received for each place in `history`."""

    project: str
    fields: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    received: dict[int, int] = field(default_factory=dict)
    changed: list[int] = field(default_factory=list)  # places whose line was received again with other content
    events: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        config = json.loads(self.fields.get("config") or "{}")
        return {key: value["value"] for key, value in config.items() if not key.startswith("_")}

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The history in order. Asserts that it has no gaps."""
        assert sorted(self.history) == list(range(len(self.history))), sorted(self.history)
        return [self.history[place] for place in sorted(self.history)]


class WandbServer:
    """A context manager that runs the server in a thread. `status` and `status_of` make it answer with errors."""

    def __init__(self) -> None:
        self.runs: dict[str, Kept] = {}
        self.requests: list[tuple[str, str]] = []  # method and path, or the GraphQL operation
        self.status: int | None = None  # the answer to all requests instead of the usual ones
        self.status_of: dict[str, int] = {}  # the answer to requests whose path or operation contains the key
        self.delay = 0.0  # seconds before each answer
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
        """The environment variables with which W&B uses only this server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    # operations that it answers

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            answering = getattr(self, f"_{operation}", None)
            if answering is None:
                self.unknown.append(operation)
                return {}
            return dict(answering(variables))

    def _ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the name of the operation
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
        """Store a request of the file stream. The offset is the place of its first line."""
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
    request_queue_size = 128  # the files of a run are uploaded at the same time

    def handle_error(self, *_: object) -> None:
        """Ignore clients that end during a request, because some tests kill them."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kept: WandbServer

    def log_message(self, *_: object) -> None:
        """Print nothing."""

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
        upload = re.fullmatch(r"/upload/([^/?]+)\?file=(.+)", self.path)
        if upload:
            with self.kept.lock:
                self.kept.runs[upload.group(1)].files[upload.group(2)] = body
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
    """Return the records of an offline W&B run, read with W&B's own tool."""
    (file,) = folder.glob("*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def without_credentials(monkeypatch: Any, folder: Path) -> None:
    """Set up W&B as on a machine without credentials."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("NETRC", raising=False)


def children(parent: int, part: str) -> list[int]:
    """Return the processes that `parent` started, and whose command line contains `part`."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, above = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # the process has ended meanwhile
                continue
            if int(above) == parent and state != "Z" and part in command:
                pids.append(int(entry.name))
    return pids

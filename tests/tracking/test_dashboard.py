"""`bnft dashboard`: its specification against wandb-workspaces' own models, and what it sends, to a loopback server."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from support import table2, warm
from support.command import TINY, Outcome
from wandb_workspaces.reports.v2 import internal as report_models
from wandb_workspaces.reports.v2.interface import Report
from wandb_workspaces.workspaces import internal as workspace_models
from wandb_workspaces.workspaces.interface import Workspace

from bnft import cli
from bnft.batchnorm.record import QUANTITIES
from bnft.common import files
from bnft.common.errors import InputError
from bnft.report.style import COLOURS
from bnft.runs import identity
from bnft.runs.store import Store
from bnft.tracking import keys
from bnft.tracking.dashboard.comparison import compare
from bnft.tracking.dashboard.sending import make

LAYERS = [f"layer{number}.bn" for number in range(1, 10)]
KEY = "0123456789abcdef" * 2 + "01234567"  # what a key looks like


def put_run(store: Store, policy: str, seed: int = 0, **recipe: Any) -> str:
    """A run as far as a dashboard looks at it: its configuration and the record of its BN layers."""
    named = {"policy": policy, "seed": seed, **recipe}
    name = f"{policy}-{identity.digest(named)}"
    title = table2.by_policy()[policy].title
    record = {"name": name, "policy": policy, "title": title, "overrides": {}, "identity": named}
    config = {"run": record, "seed": seed, "title": title}
    files.write_yaml(store.run(name).path / "config.yaml", config)
    arrays = {"epochs": torch.tensor([0])}
    arrays |= {
        f"{layer}.{name}": torch.ones(1, 2) for layer in LAYERS for name in ("gamma", "beta", "mean", "variance")
    }
    files.write_tensors(store.run(name).path / "batchnorm.safetensors", arrays, {"eps": dict.fromkeys(LAYERS, 1e-5)})
    return name


def put_sweep(store: Store, names: list[str]) -> str:
    return table2.sweep(store, [table2.placed({"run": name, "evaluation": "pgd-0"}, {}) for name in names])


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with the eleven rows as its only sweep, in another order than the paper's, in the working directory."""
    monkeypatch.chdir(tmp_path)
    found = Store("multirun")
    put_sweep(found, [put_run(found, row.policy) for row in reversed(table2.study().rows)])
    return found


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network and no credentials: whoever opens a socket or starts a process fails."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("this must not need a network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def written(store: Store, **options: Any) -> dict[str, Any]:
    """The specification that a dry run writes."""
    return dict(files.read_json(make(store, "someone", "bnft", send=False, **options).file))


def panels(specification: dict[str, Any]) -> list[dict[str, Any]]:
    """All panels, of the workspace and of the report."""
    bank = specification["workspace"]["spec"]["section"]["panelBankConfig"]
    found = [panel for section in bank["sections"] for panel in section["panels"]]
    return found + [panel for grid in grids(specification) for panel in grid["panelBankSectionConfig"]["panels"]]


def grids(specification: dict[str, Any]) -> list[dict[str, Any]]:
    return [block["metadata"] for block in specification["report"]["spec"]["blocks"] if block["type"] == "panel-grid"]


def metrics(panel: dict[str, Any]) -> set[str]:
    """Every metric that a panel names."""
    config = panel["config"]
    found = [*config.get("metrics", []), *config.get("mediaKeys", []), config.get("xAxis"), config.get("yAxis")]
    found += [column["accessor"] for column in config.get("columns", [])]
    found += re.findall(r"test/cascade", json.dumps(config))
    return {name.removeprefix("summary:") for name in found if name and name != "_step"}


def essence(text: str) -> Any:
    """JSON without what the package itself changes when it reads: comments on texts, the layout of Weave's panels."""

    def kept(value: dict[str, Any]) -> dict[str, Any]:
        lost = {"inlineComments", "layout"} if value.get("viewType") == "Weave" else {"inlineComments"}
        return {key: item for key, item in value.items() if key not in lost}

    return json.loads(text, object_hook=kept)


@pytest.mark.usefixtures("offline")
class TestSpecification:
    def test_the_packages_own_models_take_it_and_give_it_back(self, store: Store) -> None:
        specification = written(store)
        sent = specification["workspace"]
        spec = workspace_models.WorkspaceViewspec.model_validate_json(json.dumps(sent["spec"]))
        assert json.loads(spec.model_dump_json(by_alias=True, exclude_none=True)) == sent["spec"]
        view = workspace_models.View(
            entity=sent["entityName"], project=sent["projectName"], display_name="", name=sent["name"], id="", spec=spec
        )
        again = Workspace._from_model(view)._to_model().spec
        assert json.loads(again.model_dump_json(by_alias=True, exclude_none=True)) == sent["spec"]

        report = specification["report"]
        place = {"name": report["projectName"], "entityName": report["entityName"]}
        words = report_models.ReportViewspec.model_validate({"spec": json.dumps(report["spec"]), "project": place})
        for read in (words.spec, Report._from_model(words)._to_model().spec):
            text = read.model_dump_json(by_alias=True, exclude_none=True)
            assert essence(text)["blocks"] == essence(json.dumps(report["spec"]))["blocks"]

    def test_no_panel_is_unknown_to_the_package(self, store: Store) -> None:
        known = set(report_models.panel_type_mapping)
        assert {panel["viewType"] for panel in panels(written(store))} <= known

    def test_every_metric_is_one_that_runs_log(self, store: Store) -> None:
        logged = {*keys.TRAINING, *keys.TEST, keys.CASCADE, keys.EXAMPLES, *map(keys.mean_m, LAYERS)}
        logged |= {keys.bn(layer, quantity) for layer in LAYERS for quantity in QUANTITIES}
        named = set().union(*map(metrics, panels(written(store))))
        assert named <= logged
        assert {keys.TEST_CLEAN_ERROR, keys.TEST_ROBUST_ERROR, keys.CASCADE, keys.mean_m(LAYERS[0])} <= named

    def test_errors_on_held_out_images_have_panels_if_a_run_measures_them(self, store: Store) -> None:
        measured = {keys.MONITOR_CLEAN_ERROR, keys.MONITOR_ROBUST_ERROR}
        assert not measured & set().union(*map(metrics, panels(written(store))))
        put_sweep(store, [put_run(store, "adv"), put_run(store, "bn_params", monitor={"every": 5})])
        assert measured <= set().union(*map(metrics, panels(written(store))))

    def test_sections_answer_the_questions_in_order(self, store: Store) -> None:
        sections = written(store)["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
        assert [section["name"] for section in sections] == [
            "Table 2", "Robust against clean error", "Training curves", "Mean m per layer", "BN histograms",
            "Attacks",
        ]  # fmt: skip
        scatter = sections[1]["panels"][0]["config"]
        assert (scatter["xAxis"], scatter["yAxis"]) == ("summary:test/clean_error", "summary:test/robust_error")

    def test_only_the_sweeps_runs_by_policy_in_its_colour(self, store: Store) -> None:
        specification = written(store)
        section = specification["workspace"]["spec"]["section"]
        runset, colours = section["runSets"][0], section["customRunColors"]
        assert [(item["key"]["name"], item["value"]) for item in runset["filters"]["filters"]] == [
            ("group", store.sweeps()[0])
        ]
        assert runset["grouping"] == [{"section": "config", "name": "title.value"}]
        assert {colours[run.name] for run in store.runs()} == {row.colour for row in table2.study().rows}
        assert len(colours) == 2 * len(table2.study().rows)  # each run and each group
        assert section["settings"]["maxRuns"] >= len(table2.study().rows)  # it is 10 unless told
        bars = grids(specification)[0]
        number = bars["runSets"][0]["id"]
        assert bars["customRunColors"][f"{number}-config:title.value:ADV"] == table2.by_policy()["adv"].colour

    def test_report_sets_the_rows_histograms_side_by_side_in_the_order_of_the_study(self, store: Store) -> None:
        shown = [grid["runSets"][0]["filters"]["filters"] for grid in grids(written(store))]
        named = [
            item["value"]
            for filters in shown
            for item in filters
            if (item.get("key", {}).get("name"), item.get("op")) == ("name", "IN")
        ]
        policies = [[run.rpartition("-")[0] for run in runs] for runs in named]
        assert policies == [[row.policy] for row in table2.study().rows]

    def test_a_run_that_another_sweep_asked_for_too_is_found_by_name(self, store: Store) -> None:
        shared = put_run(store, "adv")
        put_sweep(store, [shared, put_run(store, "adv", seed=1)])
        filters = written(store)["workspace"]["spec"]["section"]["runSets"][0]["filters"]["filters"]
        assert filters[1]["connector"] == "OR"
        assert (filters[1]["key"]["name"], filters[1]["op"], filters[1]["value"]) == ("name", "IN", [shared])

    def test_runs_that_differ_in_more_than_their_seed_are_not_averaged(self, store: Store) -> None:
        put_sweep(store, [put_run(store, "adv", seed=seed) for seed in (0, 1)])
        assert compare(store).grouped
        put_sweep(store, [put_run(store, "adv"), put_run(store, "adv", eps=0.1)])
        specification = written(store)
        assert specification["workspace"]["spec"]["section"]["runSets"][0]["grouping"] == []
        assert "more than their seed" in " ".join(compare(store).notes)

    def test_histograms_are_of_the_eighth_layer_unless_told(self, store: Store) -> None:
        def shown(**options: Any) -> set[str]:
            named = set().union(*map(metrics, panels(written(store, **options))))
            return {name for name in named if name.startswith("bn/")}

        assert shown() == {keys.bn(LAYERS[7], quantity) for quantity in QUANTITIES}
        assert shown(layer=LAYERS[0]) == {keys.bn(LAYERS[0], quantity) for quantity in QUANTITIES}
        with pytest.raises(InputError, match=r"--layer=nothing: must be one of layer1\.bn, "):
            written(store, layer="nothing")

    def test_a_slip_in_the_sweeps_name_is_refused(self, store: Store) -> None:
        with pytest.raises(InputError, match="sweep elsewhere: must be one of those"):
            compare(store, "elsewhere")

    def test_a_sweep_of_another_machine_has_no_rows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # where the specification goes if there is no store
        store = Store(tmp_path / "empty")
        specification = written(store, sweep="elsewhere")
        assert not {name for panel in panels(specification) for name in metrics(panel) if name.startswith("bn")}
        assert any(panel["config"].get("metricRegex") == "^bn_mean_m/.*" for panel in panels(specification))
        notes = compare(store, "elsewhere").notes
        assert len(notes) == 2 and "--layer" in notes[1]
        with_layer = written(store, sweep="elsewhere", layer="l8")
        assert {len(grid["runSets"][0]["filters"]["filters"]) for grid in grids(with_layer)} == {1}, "of the sweep"
        assert with_layer["workspace"]["spec"]["section"]["panelBankConfig"]["sections"][0]["name"] == "Runs"

    def test_making_it_again_changes_nothing(self, store: Store) -> None:
        assert written(store) == written(store)


def test_table_2_is_ours_where_runs_are_done(launch: Callable[..., Outcome]) -> None:
    assert launch("policy=normal", *TINY).code == 0
    store = Store("multirun")
    run = store.runs()[0]
    entry = {"run": run.name, "evaluation": run.evaluations()[0].path.name}
    table2.sweep(store, [table2.placed(entry, {})])
    table = compare(store).table
    assert table.startswith("**Table 2 on digits") and "| NORMAL" in table
    store.save_sweep([entry], [], "", None)
    without = compare(store)
    assert without.table.startswith("**Runs on digits") and (without.title, without.study) == ("Runs", None)
    assert without.colours == {"NORMAL": COLOURS[0]}


@pytest.mark.usefixtures("offline")
class TestDryRun:
    def test_says_where_it_wrote(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        cli.main(["dashboard", "--entity", "someone", "--project", "bnft", "--dry-run"])
        file = f"multirun/dashboard-{store.sweeps()[0]}.json"
        assert capsys.readouterr().out == f"specification: {file}\n"
        assert set(json.loads(Path(file).read_text())) == {"sweep", "layer", "workspace", "report", "made"}

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["--project", "p"], "bnft: the following arguments are required: --entity"),
            (["--entity", "a/b", "--project", "p"], "bnft: --entity=a/b: must be a name"),
            (["--entity", "e", "--project", "p", "it's"], "bnft: sweep=it's: must be at most 64 letters"),
            (["--entity", "e", "--project", "p", "--store", "none"], "bnft: store=none: has no sweep"),
            (["--entity", "e", "--project", "p", "--output", "/"], "bnft: /: cannot be read"),
            (["--entity", "e", "--project", "p", "--output", "list.json"], "bnft: list.json: must be a dashboard's"),
        ],
    )
    def test_refuses_in_one_line(
        self, store: Store, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
    ) -> None:
        Path("list.json").write_text("[]")
        with pytest.raises(SystemExit) as end:
            cli.main(["dashboard", "--dry-run", *arguments])
        said = capsys.readouterr()
        assert (end.value.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert said.err.startswith(line)


class Views(ThreadingHTTPServer):
    """As much of W&B as a dashboard asks for: keeps the views that are upserted, by their id."""

    daemon_threads = True
    views: dict[str, dict[str, Any]]
    project: str | None = "bnft"

    def answer(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        if operation == "Viewer":
            return {"viewer": {"id": "1", "entity": "e", "username": "e", "email": "", "flags": "{}", "teams": None}}
        if operation == "View":
            nodes = [{"node": view} for view in self.views.values() if view["name"] == asked["viewName"]]
            return {"project": {"allViews": {"edges": nodes}} if self.project else None}
        if operation == "GetProjects":
            node = {
                "__typename": "Project",
                "id": "p",
                "name": self.project,
                "entityName": "e",
                "createdAt": "2026-01-01",
            }
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            edges = [{"node": {**node, "createdAt": "2026-01-01T00:00:00", "isBenchmark": False, "user": None}}]
            return {"models": {"pageInfo": page, "edges": edges}}
        assert operation in ("UpsertView2", "upsertView"), operation
        number = asked.get("id") or f"VmlldzoxM{len(self.views)}="
        self.views[number] = {**asked, "id": number}
        project = {"id": "p", "name": asked["projectName"], "entityName": asked["entityName"]}
        return {"upsertView": {"view": {**self.views[number], "project": project}, "inserted": not asked.get("id")}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Views

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b"{}"
        if self.path == "/graphql":
            asked = json.loads(body)
            found = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            answer = self.server.answer(found.group(1) if found else "", asked.get("variables") or {})
            content = json.dumps({"data": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def served() -> Iterator[Views]:
    server = Views(("127.0.0.1", 0), Handler)
    server.views = {}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def dashboard(port: int, *arguments: str, key: str | None = KEY, seconds: int = 10) -> subprocess.CompletedProcess[str]:
    """`bnft dashboard` in a process of its own, led to a port of this machine; W&B reads its settings but once."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment |= {
        "WANDB_BASE_URL": f"http://127.0.0.1:{port}",
        "WANDB_HTTP_TIMEOUT": str(seconds),
        "HOME": os.getcwd(),
    }
    if key:
        environment["WANDB_API_KEY"] = key
    command = [
        sys.executable,
        "-c",
        "from bnft.cli import main; main()",
        "dashboard",
        "--entity",
        "e",
        "--project",
        "bnft",
    ]
    return warm.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=60)


class TestSending:
    def test_sends_what_a_dry_run_shows_and_renews_it(self, store: Store) -> None:
        specification = dict(files.read_json(make(store, "e", "bnft", send=False).file))
        with served() as server:
            first = dashboard(server.server_port)
            assert (first.returncode, first.stderr) == (0, f"bnft: sweep {store.sweeps()[0]} (the newest)\n")
            workspace, report = server.views.values()
            for sent, name in ((workspace, "workspace"), (report, "report")):
                expected = specification[name]
                assert {key: sent[key] for key in expected if key != "spec"} == {
                    key: value for key, value in expected.items() if key != "spec"
                }
                assert json.loads(sent["spec"]) == expected["spec"]
            urls = first.stdout.splitlines()[:2]
            assert "/e/bnft?nw=" in urls[0] and "/e/bnft/reports/" in urls[1]

            put_sweep(store, [put_run(store, "adv")])  # by now, not the newest
            second = dashboard(server.server_port, store.sweeps()[0])
            assert (second.returncode, second.stdout.splitlines()[:2]) == (0, urls)
            assert len(server.views) == 2  # no other than the first two

    def test_project_that_is_not_there(self, store: Store) -> None:
        with served() as server:
            server.project = None
            ended = dashboard(server.server_port)
        assert (ended.returncode, ended.stderr.count("\n"), server.views) == (2, 1, {})
        assert "`e/bnft` not found" in ended.stderr

    def test_without_credentials_it_says_so_and_asks_nothing(self, store: Store) -> None:
        ended = dashboard(1, key=None)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert re.fullmatch(
            r"bnft: W&B at http://127\.0\.0\.1:1: no credentials; .*--dry-run needs none\n", ended.stderr
        )

    def test_server_that_never_answers_is_given_up(self, store: Store) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and that is all
            began = time.monotonic()
            ended = dashboard(silent.getsockname()[1], seconds=2)
        assert time.monotonic() - began < 20
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
        assert re.match(r"bnft: W&B at http://127\.0\.0\.1:\d+: no answer within 2 s", ended.stderr)

"""Tracking beside runs: what is logged, read back from real offline runs, and where it goes."""

import json
import os
import pty
import subprocess
import sys
import time

import numpy as np
import pytest
from support.command import ROOT, TINY
from support.wandb_server import KEY, WandbServer, read_back, without_credentials

from bnft.batchnorm.record import QUANTITIES
from bnft.common import files
from bnft.runs.store import Store
from bnft.tracking import keys
from bnft.tracking.histograms import BATCHNORM, TEST, histogram
from bnft.tracking.rows import Records, order_of, trained_values

RUN = ("policy=normal", *TINY)


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    without_credentials(monkeypatch, tmp_path)


def test_counts_sum_to_the_values_wherever_they_lie():
    edges = BATCHNORM["variance"]
    found = histogram(np.array([0.0, 1e-9, 1.0, 1e9, np.inf, np.nan, -np.inf]), edges)
    assert sum(found.counts) == 7
    assert found.counts[0] == 3 and found.counts[-1] == 3
    assert found.edges == tuple(edges)


def test_errors_on_held_out_images_are_logged_where_they_were_measured():
    line = {"epoch": 1, "loss": 1.0, "error": 2.0, "clean_error": 3.0, "lr": 0.1, "images": 64, "seconds": 2.0}
    measured = {"monitor_clean_error": 4.0, "monitor_robust_error": 50.0, "monitor_seconds": 1.0}
    plain, found = (trained_values(one, adversarial=True) for one in (line, line | measured))
    assert found == plain | {keys.MONITOR_CLEAN_ERROR: 4.0, keys.MONITOR_ROBUST_ERROR: 50.0}
    assert {keys.MONITOR_CLEAN_ERROR, keys.MONITOR_ROBUST_ERROR} <= set(keys.TRAINING) and found.keys() <= {
        *keys.TRAINING
    }


@pytest.mark.parametrize("edges", [*BATCHNORM.values(), *TEST.values()])
def test_edges_rise_and_are_few(edges):
    assert (np.diff(edges) > 0).all() and len(edges) <= 65


def test_every_quantity_has_edges():
    assert set(BATCHNORM) == set(QUANTITIES)


def test_an_offline_sweep_reads_back_as_what_the_store_has(launch, nobody):
    sweep = ("-m", "policy=adv,bn_stats", *RUN[1:], "schedule.epochs=2", "hydra.launcher.workers=2")
    ended = launch(*sweep, "wandb.tags=[a,b]", "wandb.project=mine")
    assert ended.code == 0
    assert "W&B  offline (no credentials; `wandb login` stores them), in multirun/wandb; `bnft sync`" in ended.err
    store = Store("multirun")
    (name,) = store.sweeps()
    assert len(store.runs()) == 3
    edges = set()
    for run in store.runs():
        (folder,) = (store.root / "wandb").glob(f"offline-run-*-{run.name}")
        records = read_back(folder)
        (told,) = [record["run"] for record in records if record["type"] == "run"]
        assert told["run_id"] == told["display_name"] == run.name
        assert told["run_group"] == name and told["project"] == "mine" and told["tags"] == ["a", "b"]
        assert told["job_type"] == run.config()["run"]["policy"]
        assert told["git"]["commit"] == store.sweep(name)["commit"]
        configured = {}
        for record in records:
            configured |= {"run": told, **record}.get("config", {}).get("update", {})
        told_config = {**told["config"]["update"], **configured}
        assert told_config["schedule"] == run.config()["schedule"]
        assert told_config["versions"]["torch"] and told_config["git_commit"] == store.sweep(name)["commit"]
        items = [record["history"]["item"] for record in records if record["type"] == "history"]
        assert_is_the_store(run, items)
        if run.evaluations():
            assert_examples(run)
        edges |= {json.dumps(value) for item in items for key, value in item.items() if key.endswith("/variance.bins")}
        assert [record["exit"]["exit_code"] for record in records if record["type"] == "exit"] == [0]
    assert len(edges) == 1, "all runs, layers and epochs have the same edges"


def assert_is_the_store(run, items):
    """A row a step: the BN layers at each epoch, the history's lines, and the evaluations."""
    history, record, results = run.history(), run.batchnorm(), [folder.result() for folder in run.evaluations()]
    assert [item["_step"] for item in items] == list(range(len(history) + 1 + len(results)))
    adversarial = bool(run.config()["attack"])
    for place, item in enumerate(items[: len(history) + 1]):
        for layer in record.layers:
            assert item[keys.mean_m(layer)] == pytest.approx(float(record.values(layer, "m")[place].mean()))
            for quantity in QUANTITIES:
                values = record.values(layer, quantity)[place]
                counts = np.histogram(
                    np.clip(values, BATCHNORM[quantity][0], BATCHNORM[quantity][-1]), BATCHNORM[quantity]
                )
                assert item[f"{keys.bn(layer, quantity)}.values"] == counts[0].tolist()
    for line, item in zip(history, items[1:], strict=False):
        assert item[keys.EPOCH] == line["epoch"]
        assert item[keys.TRAIN_LOSS] == line["loss"] and item[keys.TRAIN_CLEAN_ERROR] == line["clean_error"]
        assert item[keys.TRAIN_IMAGES_PER_SECOND] == pytest.approx(line["images"] / line["seconds"])
        assert (item.get(keys.TRAIN_ADVERSARIAL_ERROR), item.get(keys.TRAIN_PGD_LOSS)) == (
            (line["error"], line["loss"]) if adversarial else (None, None)
        )
    for result, item in zip(results, items[len(history) + 1 :], strict=True):
        assert item[keys.TEST_CLEAN_ERROR] == result.clean.error
        assert item[keys.TEST_ROBUST_ERROR] == result.robust.error
        assert item[keys.TEST_PGD_LOSS] == result.pgd_loss
        assert item[keys.after("pgd-2")] == result.cascade[-1].error
        assert sum(item[f"{keys.CLEAN_CONFIDENCE}.values"]) == result.robust.images
        assert item[f"{keys.EXAMPLES}._type"] == "images/separated" and item[f"{keys.EXAMPLES}.count"] == 16
        assert item[f"{keys.CASCADE}._type"] == "table-file"


def assert_examples(run):
    """Each example image stands before its adversarial version."""
    records = Records(run, order_of((), run.evaluations()))
    outcomes = run.evaluations()[0].outcomes()
    clean, adversarial = records.row(len(records) - 1).pictures[keys.EXAMPLES][:2]
    assert clean.pixels.shape == (8, 8, 1)
    assert (clean.pixels[..., 0] == np.rint(255 * outcomes["originals"][0, 0])).all()
    assert (adversarial.pixels[..., 0] == np.rint(255 * outcomes["adversarial"][0, 0])).all()
    assert clean.caption.startswith(f"0: class {outcomes['labels'][0]}, classified as ")


# where it goes


def tracked_runs():
    return sorted(path.name.split("-2")[0] for path in Store("multirun").root.glob("wandb/*run-2*"))


@pytest.mark.parametrize(
    ("mode", "environment", "credentials", "goes"),
    [
        ("auto", "", True, "run"),
        pytest.param("auto", "offline", True, "offline-run", marks=pytest.mark.long),
        ("auto", "disabled", True, None),
        pytest.param("online", "disabled", True, "run", marks=pytest.mark.long),
        ("online", "", False, "offline-run"),
        pytest.param("offline", "online", True, "offline-run", marks=pytest.mark.long),
        ("disabled", "online", True, None),
    ],
)
def test_modes(launch, nobody, monkeypatch, mode, environment, credentials, goes):
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        if environment:
            monkeypatch.setenv("WANDB_MODE", environment)
        if credentials:
            monkeypatch.setenv("WANDB_API_KEY", KEY)
        ended = launch(*RUN, f"wandb.mode={mode}")
        assert ended.code == 0
        assert tracked_runs() == ([goes] if goes else [])
        assert bool(server.requests) == (goes == "run")
        assert not server.unknown
        assert ("W&B" in ended.err) == (goes is not None)
        if goes == "run":
            assert f"W&B  online, {server.url}, project bnft" in ended.err
            ((name, kept),) = server.runs.items()
            assert [line["_step"] for line in kept.lines] == [0, 1, 2] and kept.exit_code == 0
            assert name == Store("multirun").runs()[0].name and kept.fields["jobType"] == "normal"
        launch(*RUN, f"wandb.mode={mode}")
        assert len(tracked_runs()) <= 1, "what is done is not tracked again"


@pytest.mark.long
def test_credentials_are_found_where_login_keeps_them(launch, nobody, monkeypatch, tmp_path):
    with WandbServer() as server:
        place = server.url.removeprefix("http://")
        (tmp_path / ".netrc").write_text(f"machine {place}\n  login user\n  password {KEY}\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert launch(*RUN).code == 0
        assert len(server.runs) == 1


@pytest.mark.parametrize("mode", ["online", pytest.param("auto", marks=pytest.mark.long)])
def test_a_terminal_is_never_asked(nobody, tmp_path, mode):
    """With a controlling terminal, on which a question could be put."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "launch.py"), *RUN, f"wandb.mode={mode}"],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # which makes it the controlling one
    )
    os.close(theirs)
    said, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        try:
            part = os.read(ours, 4096)
        except OSError:  # nobody has the other end any more
            break
        said += part
    assert process.wait(10) == 0, said
    os.close(ours)
    text = said.decode()
    assert "W&B" in text and "API key" not in text and "choice" not in text
    assert tuple((tmp_path / "multirun" / "wandb").glob("offline-run-*"))


@pytest.mark.long
def test_settings_of_wandb_itself_can_disable_it(launch, nobody, monkeypatch, tmp_path):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nmode = disabled\n")
    ended = launch(*RUN)
    assert ended.code == 0 and "W&B  disabled by W&B's own settings" in ended.err
    assert tracked_runs() == []


def test_a_resumed_run_continues_its_wandb_run(launch, nobody, monkeypatch):
    """Two evaluations of one run, asked for one after the other, have a step each."""
    with WandbServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        assert launch(*RUN).code == 0
        (name,) = server.runs
        assert launch(*RUN, "evaluation.eps=0.02").code == 0
        kept = server.runs[name]
        assert [line["_step"] for line in kept.lines] == [0, 1, 2, 3]
        assert set(kept.received.values()) == {1}
        assert [line.get(keys.TEST_EPS) for line in kept.lines] == [None, None, 0.15, 0.02]
        assert len(files.read_json(Store("multirun").run(name).path / "tracking.json")["evaluations"]) == 2

"""The program itself, in processes of its own: sweeps, asking again, being killed, and two at once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file

COUNTED = str(Path(__file__).with_name("counted.py"))
BIN = Path(sys.executable).parent


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "WORK": str(folder / "work"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, COUNTED, *arguments, "threads=1"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    return out, err


def work(folder: Path) -> str:
    file = folder / "work"
    return file.read_text() if file.exists() else ""


def test_a_sweep_of_three_rows_its_table_and_asking_again(tmp_path):
    line = ("-m", "policy=normal,bn_stats,bn_params", *TINY)
    out, err = finish(start(tmp_path, *line))
    assert "Table 2 on digits" in out
    assert [name in out for name in ("NORMAL", "BN STATS (reset)", "BN PARAMS")] == [True] * 3
    assert "training" in err, "progress is shown"

    done = work(tmp_path)
    assert done.count("t") == 3 * 5, "three runs of 5 batches; the base is one of them and is trained once"
    store = tmp_path / "multirun"
    runs = sorted(path.name for path in store.iterdir() if (path / "config.yaml").exists())
    assert [name.rpartition("-")[0] for name in runs] == ["bn_params", "bn_stats", "normal"]
    for name in runs:
        found = {path.name for path in (store / name).iterdir()}
        assert found == {
            "config.yaml",
            "status.json",
            "history.jsonl",
            "batchnorm.safetensors",
            "model.safetensors",
            "evaluation",
        }
        assert json.loads((store / name / "status.json").read_text())["state"] == "done"
    assert not [path for path in store.rglob("*") if path.suffix in (".pkl", ".pt", ".pickle", ".tmp")]
    assert {path.name for path in tmp_path.iterdir()} == {"work", "multirun"}, "Hydra leaves nothing of its own"

    finish(start(tmp_path, *line))
    assert work(tmp_path) == done, "asking again does no work"

    finish(start(tmp_path, "-m", "policy=bn_stats,bn_only_params", *TINY, "store=elsewhere"))
    assert sorted(path.name.rpartition("-")[0] for path in (tmp_path / "elsewhere").glob("*-*")) == [
        "bn_only_params",
        "bn_stats",
        "normal",
    ], "the base is made in the store of the sweep"
    done = work(tmp_path)

    finish(start(tmp_path, *line, "evaluation.n_images=10"))
    assert work(tmp_path).count("t") == done.count("t"), "another evaluation trains nothing"
    assert work(tmp_path).count("a") > done.count("a")

    (table,) = [
        subprocess.run([BIN / "bnft", "table", "--format", "json"], cwd=tmp_path, capture_output=True, text=True)
    ]
    rows = json.loads(table.stdout)
    assert [row["policy"] for row in rows] == ["normal", "bn_stats", "bn_params"]
    assert {row["robust_images"] for row in rows} == {10}, "the newest sweep"
    assert {row["clean_images"] for row in rows} == {500}


KILLED = (
    "policy=bn_params",
    "base_overrides=[schedule.epochs=3]",
    "schedule.epochs=4",
    "model.width=2",
    "schedule.batch_size=128",
    "attack.iterations=2",
    "evaluation.version=custom",
    "evaluation.attacks=[apgd-ce,apgd-dlr,fab-t]",
    "evaluation.n_images=60",
    "evaluation.batch_size=10",
)
STEPS_AN_EPOCH = 1297 // 128


def tensors(store: Path) -> dict[str, torch.Tensor]:
    """Every tensor that runs leave, by file and name."""
    files = [*store.glob("*/*.safetensors"), *store.glob("*/evaluation/*/*.safetensors")]
    return {f"{file.relative_to(store)}:{name}": value for file in files for name, value in load_file(file).items()}


def test_killed_at_random_moments_equals_undisturbed_and_repeats_little(tmp_path):
    """SIGKILL in the training of base and run and in the evaluation; the counted work bounds what was redone."""
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    calm.mkdir()
    stormy.mkdir()
    finish(start(calm, *KILLED))
    undisturbed = work(calm)
    steps = undisturbed.count("t")
    assert steps == (3 + 4) * STEPS_AN_EPOCH

    moments = random.Random(time.time_ns())
    fractions = [moments.uniform(0.02, 0.4), moments.uniform(0.45, 0.85), moments.uniform(0.88, 0.99)]
    for kill_at in [int(fraction * len(undisturbed)) for fraction in fractions]:
        before = len(work(stormy))
        process = start(stormy, *KILLED)
        while len(work(stormy)) < max(kill_at, before + 1) and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(stormy, *KILLED))

    expected, found = tensors(calm / "multirun"), tensors(stormy / "multirun")
    assert found.keys() == expected.keys()
    different = [name for name, value in expected.items() if not torch.equal(value, found[name])]
    assert not different, f"killed after {fractions} of the work"
    (calm_result,), (stormy_result,) = (list(folder.rglob("result.json")) for folder in (calm, stormy))
    results = [json.loads(file.read_text()) for file in (calm_result, stormy_result)]
    assert results[0]["robust"] == results[1]["robust"] and results[0]["clean"] == results[1]["clean"]

    redone = work(stormy)
    assert redone.count("t") <= steps + 3 * STEPS_AN_EPOCH, "at most one epoch is trained again after each kill"
    assert redone.count("a") <= undisturbed.count("a") + 3, "at most one batch is attacked again after each kill"
    assert not list((stormy / "multirun").rglob("*.tmp")), "what the kills left behind is cleared away"
    assert not list((stormy / "multirun").rglob("checkpoint.safetensors"))


def test_two_processes_build_their_common_base_once(tmp_path):
    line = [argument for argument in TINY if not argument.startswith("base_overrides")]
    slow_base = "base_overrides=[schedule.epochs=80,schedule.batch_size=256]"
    both = [start(tmp_path, f"policy={policy}", *line, slow_base) for policy in ("bn_stats", "bn_params")]
    said = [finish(process)[1] for process in both]
    assert work(tmp_path).count("t") == (80 + 1 + 1) * 5
    assert sum("waiting" in err for err in said) == 1, "the other one waited"


def test_a_damaged_model_is_said_and_trained_again(tmp_path):
    finish(start(tmp_path, "policy=normal", *TINY))
    (model,) = (tmp_path / "multirun").glob("*/model.safetensors")
    whole = {name: value.clone() for name, value in load_file(model).items()}  # load_file maps the file
    model.write_bytes(model.read_bytes()[:-100])
    (result,) = (tmp_path / "multirun").rglob("result.json")
    result.unlink()
    _, err = finish(start(tmp_path, "policy=normal", *TINY))
    assert "training again" in err and "damaged" in err
    again = load_file(model)
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_a_folder_of_another_run_is_refused(tmp_path):
    finish(start(tmp_path, "policy=normal", *TINY))
    (folder,) = (path for path in (tmp_path / "multirun").iterdir() if path.name.startswith("normal-"))
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    _, err = finish(start(tmp_path, "policy=normal", *TINY), code=2)
    assert "config.yaml" in err.splitlines()[-1] and "move its folder away" in err


@pytest.mark.parametrize("kind", ["run", "folder", "file"])
def test_base_as_run_name_folder_and_file(tmp_path, kind):
    finish(start(tmp_path, "policy=normal", *TINY))
    (folder,) = (path for path in (tmp_path / "multirun").iterdir() if path.name.startswith("normal-"))
    base = {"run": folder.name, "folder": str(folder), "file": str(folder / "model.safetensors")}[kind]
    finish(start(tmp_path, "policy=bn_stats", *TINY, f"base={base}"))
    finish(start(tmp_path, "policy=bn_stats", *TINY))
    stats = [path.name for path in (tmp_path / "multirun").iterdir() if path.name.startswith("bn_stats-")]
    assert len(stats) == (2 if kind == "file" else 1), "a run is named alike however it is pointed at"
    assert work(tmp_path).count("t") == 5 * (1 + len(stats))

"""The program itself, in processes of its own: sweeps, asking again, bases, and two at once."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import warm
from support.command import TINY
from support.programs import finish, start, work

BIN = Path(sys.executable).parent


def test_a_sweep_of_three_rows_its_table_and_asking_again(tmp_path):
    line = ("-m", "policy=normal,bn_stats,bn_params", *TINY)
    out, err = finish(start(tmp_path, *line))
    assert "Runs on digits" in out
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

    finish(start(tmp_path, *line, "evaluation.n_images=20,10"))
    assert work(tmp_path).count("t") == done.count("t"), "another evaluation trains nothing"
    attacked = work(tmp_path).count("a") - done.count("a")
    assert 0 < attacked <= done.count("a"), "and asking again for the first one does no work"

    command = [str(BIN / "bnft"), "table", "--format", "json"]
    table = warm.run(command, cwd=tmp_path, capture_output=True, text=True)
    rows = json.loads(table.stdout)["rows"]
    assert [row["policy"] for row in rows[::2]] == ["normal", "bn_stats", "bn_params"]
    assert sorted(row["robust_images"] for row in rows) == [10, 10, 10, 20, 20, 20], "the newest sweep"
    assert {row["clean_images"] for row in rows} == {500}


def test_a_base_is_made_in_the_store_of_the_sweep(launch, tmp_path):
    said = launch("-m", "policy=bn_stats,bn_only_params", *TINY, "store=elsewhere")
    assert said.code == 0
    made = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "elsewhere").glob("*-*"))
    assert made == ["bn_only_params", "bn_stats", "normal"]


@pytest.mark.long
def test_two_processes_build_their_common_base_once(tmp_path):
    line = [argument for argument in TINY if not argument.startswith("base_overrides")]
    slow_base = "base_overrides=[schedule.epochs=80,schedule.batch_size=256]"
    both = [start(tmp_path, f"policy={policy}", *line, slow_base) for policy in ("bn_stats", "bn_params")]
    said = [finish(process)[1] for process in both]
    assert work(tmp_path).count("t") == (80 + 1 + 1) * 5
    assert sum("waiting" in err for err in said) == 1, "the other one waited"


def stored(folder: Path, policy: str) -> list[Path]:
    """The folders of a policy's runs."""
    return sorted((folder / "multirun").glob(f"{policy}-*"))


def test_a_damaged_model_is_said_and_trained_again(launch, tmp_path):
    assert launch("policy=normal", *TINY).code == 0
    model = stored(tmp_path, "normal")[0] / "model.safetensors"
    whole = {name: value.clone() for name, value in load_file(model).items()}  # load_file maps the file
    model.write_bytes(model.read_bytes()[:-100])
    (result,) = (tmp_path / "multirun").rglob("result.json")
    result.unlink()
    said = launch("policy=normal", *TINY)
    assert said.code == 0 and "training again" in said.err and "damaged" in said.err
    again = load_file(model)
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_a_folder_of_another_run_is_refused(launch, tmp_path):
    assert launch("policy=normal", *TINY).code == 0
    config = stored(tmp_path, "normal")[0] / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    said = launch("policy=normal", *TINY)
    assert said.code == 2
    assert "config.yaml" in said.err.splitlines()[-1] and "move its folder away" in said.err


@pytest.mark.long
def test_base_as_run_name_folder_and_file(launch, tmp_path):
    assert launch("policy=normal", *TINY).code == 0
    (folder,) = stored(tmp_path, "normal")
    assert launch("policy=bn_stats", *TINY).code == 0
    for base in (folder.name, str(folder)):
        said = launch("policy=bn_stats", *TINY, f"base={base}")
        assert said.code == 0 and "training" not in said.err
        assert len(stored(tmp_path, "bn_stats")) == 1, "a run is named alike however it is pointed at"
    assert launch("policy=bn_stats", *TINY, f"base={folder / 'model.safetensors'}").code == 0
    first, second = (load_file(run / "model.safetensors") for run in stored(tmp_path, "bn_stats"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())

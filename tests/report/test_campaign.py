"""`scripts/cifar10.py`: what it asks for is one study from one base, and a slice goes on where the last one ended."""

import importlib
from dataclasses import replace

import numpy as np
import pytest
from support import table2
from support.command import ROOT
from support.made_store import MadeStore

from bnft.common.errors import InputError
from bnft.config.compose import quoted
from bnft.report.rows import select
from bnft.runs.plan import plan
from bnft.runs.store import Store


@pytest.fixture
def campaign(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("cifar10")


@pytest.fixture
def photographs(tmp_path):
    """A file of as many random images as the smallest campaign trains on, and more."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 600), ("test", 120)):
        arrays[f"x_{split}"] = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 10
    np.savez(tmp_path / "images.npz", **arrays)  # type: ignore[arg-type]
    return tmp_path / "images.npz"


def test_it_asks_for_the_eleven_rows_from_one_base(campaign, hydra, tmp_path, photographs):
    scale, store = campaign.SCALES["toy"], tmp_path / "store"
    data = campaign.data_overrides(photographs, scale, store)
    runs = []
    for stage in campaign.stages(scale):
        _, *line = campaign.arguments(stage, scale, data)
        chosen = [part.split("=", 1) for part in line]
        sweeps = [value.split(",") if key in ("policy", "threat.eps") else [value] for key, value in chosen]
        lines = [[]]
        for (key, _), values in zip(chosen, sweeps, strict=True):
            lines = [[*one, f"{key}={value}"] for one in lines for value in values]
        planned = plan([[*map(quoted, one), f"store={store}", "device=cpu"] for one in lines])
        assert {base.name for base in planned.bases} <= {run.name for run in runs}, "no base beside NORMAL of stage 1"
        runs += planned.runs
        assert campaign.seconds(stage, scale)[1] > 0
    assert {run.policy for run in runs if not run.overrides} == set(table2.by_policy())
    assert len({run.name for run in runs if run.policy == "normal"}) == 1, "smaller eps train no other NORMAL"
    assert {run.config["schedule"]["shape"]["_target_"] for run in runs} == {"one_cycle"}
    with np.load(data[1].removeprefix("data.path=")) as subset:
        assert (len(subset["x_train"]), len(subset["x_test"])) == (scale.images, scale.tests)
    with pytest.raises(InputError, match="must have 25,000 training and 1,000 test images"):
        campaign.data_overrides(photographs, campaign.SCALES["cpu"], store)


def asked(campaign, *arguments):
    """Ask for what is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["cifar10.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            campaign.main()
    assert ended.value.code == 2


def test_bad_input_is_one_line(campaign, tmp_path, capsys):
    store = ("--store", str(tmp_path / "store"))
    asked(campaign, "run", "--scale", "toy", "--data", "none.npz", *store)
    assert "there is no such file" in capsys.readouterr().err
    asked(campaign, "run", "--scale", "toy", "--from", str(tmp_path), *store)
    assert "must be a folder with the resume-* of the last slice" in capsys.readouterr().err
    asked(campaign, "gather", str(tmp_path / "keep-*"), *store)
    assert "there is no such file" in capsys.readouterr().err
    (tmp_path / "keep-1.00").write_bytes(b"half of it")
    asked(campaign, "gather", str(tmp_path / "keep-1.00"), *store)
    assert "all parts of an archive" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_a_slice_sends_what_is_new_and_what_the_next_one_needs(campaign, tmp_path, monkeypatch):
    monkeypatch.setattr("slices.PART_BYTES", 10_000)
    made = MadeStore(Store(tmp_path / "first" / "store")).add(("normal", "bn_stats", "bn_params"))
    begun = made.store.run("adv-0000000000").path
    begun.mkdir()
    (begun / "config.yaml").write_text("{}")
    (begun / "checkpoint.safetensors").write_bytes(b"halfway")
    out = tmp_path / "out"
    campaign.pack(made.store.root, out, "1")
    assert all(part.stat().st_size <= 10_000 for part in out.iterdir())
    assert len(list(out.glob("keep-1.*"))) > 1, "in parts"

    second = tmp_path / "second" / "store"
    campaign.unpack(list(out.glob("resume-*")), second)
    assert (second / begun.name / "checkpoint.safetensors").read_bytes() == b"halfway"
    models = {file.parent.name.rpartition("-")[0] for file in second.glob("*/model.safetensors")}
    assert models == {"normal"}, "the others are at home already"
    (second / begun.name / "checkpoint.safetensors").unlink()
    MadeStore(Store(second)).add(("adv",))
    campaign.pack(second, out, "2")

    home = tmp_path / "home"
    campaign.unpack(list(out.glob("keep-2.*")), home)
    assert [run.name.rpartition("-")[0] for run in Store(home).runs()] == ["adv"], "the rest was sent before"
    campaign.unpack(sorted(out.glob("keep-*")), home)
    found = select(Store(home), ["all"])
    assert sorted(result.run.policy for result in found.results) == ["adv", "bn_params", "bn_stats", "normal"]
    models = {file.parent.name.rpartition("-")[0] for file in home.glob("*/model.safetensors")}
    assert models == {"normal", "adv", "bn_params"}
    MadeStore(Store(second)).add(("bn_params",), seeds=(1,))
    campaign.pack(second, out, "3")  # though the model of the first seed is at home and not here
    campaign.unpack(list(out.glob("keep-3.*")), tmp_path / "third")
    assert [run.trained for run in Store(tmp_path / "third").runs()] == [True]


def test_what_is_asked_for_beside_goes_to_every_run(campaign):
    scale = replace(campaign.SCALES["gpu"], extra=("seed=3",))
    for stage in campaign.stages(scale):
        assert campaign.arguments(stage, scale, ["data=cifar10"])[-1] == "seed=3"


def test_a_stage_that_is_done_is_not_asked_for_again(campaign, tmp_path, monkeypatch):
    asked, codes = [], iter([0, 1, *[0] * 20])

    class Launched:
        def __init__(self, command):
            asked.append(command[2:])
            self.returncode = next(codes)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def wait(self, timeout):
            assert timeout is None

    monkeypatch.setattr(campaign.subprocess, "Popen", Launched)
    scale, store = campaign.SCALES["toy"], tmp_path
    assert not campaign.run(scale, ["data=cifar10"], store, None)
    count = len(campaign.stages(scale))
    assert len(asked) == count, "one that fails does not stop those after it"
    assert campaign.run(scale, ["data=cifar10"], store, None)
    assert len(asked) == count + 1 and asked[-1] == asked[1]

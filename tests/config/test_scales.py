"""Scales: one file says how long and how large, for each kind of row; what is typed on the command line wins."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import table2
from support.command import ROOT

from bnft import api
from bnft.common.errors import InputError
from bnft.config.compose import compose, for_hydra
from bnft.runs.plan import ModelFile, plan

SCALES = sorted(file.stem for file in (ROOT / "conf" / "scale").glob("*.yaml"))
KINDS = {  # of rows from scratch; the others start from NORMAL
    "normal": ("scratch", "clean"),
    "adv": ("scratch", "adversarial"),
    "normal_bn_only": ("scratch_bn", "clean"),
    "normal_bn_only_logits_conv1": ("scratch_bn", "clean"),
    "bn_only": ("scratch_bn", "adversarial"),
    "bn_only_logits_conv1": ("scratch_bn", "adversarial"),
}
LENGTHS: dict[str, dict[str, Any]] = {  # epochs and peak learning rates
    "paper": {"scratch": (150, 150), "scratch_bn": (150, 150), "finetune": 30, "statistics": 5, "lr": (0.05, 0.05)},
    "gpu": {"scratch": (40, 20), "scratch_bn": (12, 6), "finetune": 6, "statistics": 1, "lr": (0.2, 0.1)},
    "cpu": {"scratch": (20, 5), "scratch_bn": (6, 2), "finetune": 2, "statistics": 1, "lr": (0.2, 0.1)},
    "toy": {"scratch": (2, 1), "scratch_bn": (1, 1), "finetune": 1, "statistics": 1, "lr": (0.2, 0.1)},
}


@pytest.fixture
def photographs(tmp_path: Path) -> str:
    """A file with more training images than `scale=toy` needs."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 600), ("test", 20)):
        arrays[f"x_{split}"] = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 10
    np.savez(tmp_path / "images.npz", **arrays)  # type: ignore[arg-type]
    return str(tmp_path / "images.npz")


@pytest.mark.usefixtures("hydra")
@pytest.mark.parametrize("scale", LENGTHS)
@pytest.mark.parametrize("policy", table2.by_policy())
def test_each_row_has_the_length_of_its_kind(policy, scale):
    schedule = compose([f"policy={policy}", "data=cifar10", f"scale={scale}"]).config["schedule"]
    lengths = LENGTHS[scale]
    if policy in KINDS:
        kind, examples = KINDS[policy]
        epochs, lr = lengths[kind][examples == "adversarial"], lengths["lr"][0]
    else:
        kind = "statistics" if "stats" in policy else "finetune"
        epochs, lr = lengths[kind], lengths["lr"][1]
    shape = "step" if scale == "paper" else "one_cycle"
    assert (schedule["kind"], schedule["epochs"]) == (kind, epochs)
    assert (schedule["lr"], schedule["shape"]["_target_"]) == (lr, shape)


@pytest.mark.usefixtures("hydra")
def test_a_scale_says_the_width_and_the_images():
    config = compose(["data=cifar10", "scale=cpu"]).config
    assert config["model"]["width"] == 16 and config["data"]["training_images"] == 25_000
    assert (config["evaluation"]["n_images"], config["evaluation"]["batch_size"]) == (300, 100)
    config = compose(["data=cifar10", "scale=gpu"]).config
    assert config["model"]["width"] == 64 and config["data"]["training_images"] is None
    assert (config["evaluation"]["n_images"], config["evaluation"]["batch_size"]) == (1000, 250)


@pytest.mark.usefixtures("hydra")
def test_the_usual_lengths_of_cifar10_are_the_papers_and_any_data_set_can_have_them():
    for policy in table2.by_policy():
        usual, scaled = (compose([f"policy={policy}", "data=cifar10", *more]).config for more in ([], ["scale=paper"]))
        assert usual["schedule"] == scaled["schedule"]
        assert compose([f"policy={policy}", "scale=paper"]).config["schedule"] == usual["schedule"], "on the digits"
        assert compose([f"policy={policy}", "scale=none"]).config["schedule"]["epochs"] == usual["schedule"]["epochs"]


@pytest.mark.usefixtures("hydra")
def test_the_command_line_wins_over_the_scale():
    line = ["data=cifar10", "scale=cpu", "schedule.epochs=7", "model.width=8", "schedule/shape=cosine"]
    config = compose([*line, "data.training_images=null"]).config
    assert (config["schedule"]["epochs"], config["model"]["width"]) == (7, 8)
    assert (config["data"]["training_images"], config["schedule"]["shape"]["_target_"]) == (None, "cosine")
    config = compose(["policy=adv", "scale=cpu", "scale.epochs.scratch.adversarial=3"]).config
    assert config["schedule"]["epochs"] == 3


@pytest.mark.usefixtures("hydra")
def test_all_rows_are_those_of_the_paper_and_start_from_the_row_normal(photographs, tmp_path):
    line = ["data=npz", f"data.path={photographs}", "scale=toy", f"store={tmp_path}"]
    planned = plan([[f"policy={policy}", *line] for policy in table2.by_policy()])
    assert planned.bases == (), "the base of BN PARAMS is the row NORMAL"
    assert not any(run.overrides for run in planned.runs)
    (run,) = plan([["policy=bn_params", *line, "scale.epochs.scratch.clean=3"]]).runs
    assert not isinstance(run.base, ModelFile) and run.base is not None
    assert run.base.identity["schedule"]["epochs"] == 3 and run.overrides == {}


@pytest.mark.usefixtures("hydra")
def test_the_identity_has_what_the_scale_says_but_not_the_scale(photographs, tmp_path):
    common = ["data=npz", f"data.path={photographs}", f"store={tmp_path}", "policy=adv"]
    values = ["schedule.epochs=1", "schedule.lr=0.2", "schedule/shape=one_cycle", "model.width=4"]
    images = ["data.training_images=512", "data.n_images=10", "data.attack_batch_size=10"]
    (scaled,) = plan([[*common, "scale=toy"]]).runs
    (typed,) = plan([[*common, *values, *images, "schedule.kind=finetune"]]).runs
    assert (scaled.name, scaled.evaluation_id) == (typed.name, typed.evaluation_id)
    assert "scale" not in scaled.identity and "kind" not in scaled.identity["schedule"]


def test_a_plus_before_the_scale_is_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [api.plan(["policy=bn_params", f"{sign}scale=paper"]).runs[0].name for sign in ("", "+")]
    assert names[0] == names[1] != api.plan(["policy=bn_params"]).runs[0].name
    assert for_hydra("+scale.epochs.scratch=3") == "+scale.epochs.scratch=3", "a key of a scale of one's own"


def test_a_scale_of_ones_own_is_a_few_lines(tmp_path, monkeypatch):
    (tmp_path / "conf" / "scale").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "scale" / "short.yaml").write_text(
        "# @package _global_\n"
        "scale: {scratch: 3, finetune: 2}\n"
        "schedule: {epochs: '${scale.${schedule.kind}}'}\n"
        "model: {width: 4}\n"
    )
    (run,) = api.plan(["policy=bn_params", "scale=short"]).runs
    assert not isinstance(run.base, ModelFile) and run.base is not None
    assert [one.identity["schedule"]["epochs"] for one in (run.base, run)] == [3, 2]
    with pytest.raises(InputError) as raised:
        api.plan(["policy=bn_stats", "scale=short"])
    assert str(raised.value).endswith(
        "scale.statistics: must be given in the file of the scale, because schedule.epochs refers to it"
    )


@pytest.mark.usefixtures("hydra")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["scale=huge"], f"scale=huge: must be one of {', '.join(SCALES)}"),
        (["schedule.kind=scrach"], "schedule.kind=scrach: must be one of scratch, scratch_bn, finetune, statistics"),
        (["schedule.kind=null"], "scale=none chooses no scale"),
        (["scale=none", "schedule.kind=scrach"], "schedule.kind=scrach: must be one of scratch"),
        (["scale.epochs.scrach=3"], "did you mean scale.epochs.scratch?"),
        (["scale=cpu", "model=torchvision", "model.name=resnet18"], "model.width=16: no such key"),
    ],
)
def test_what_is_refused(line, said):
    with pytest.raises(InputError) as raised:
        compose(line)
    assert said in str(raised.value)

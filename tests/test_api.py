"""bnft in notebooks and scripts: plans, runs, results, trained models, and the evaluation of any module."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.version import getbase, setbase
from support import warm
from support.command import TINY
from torch import nn

import bnft
from bnft.data.dataset import prepare
from bnft.data.digits import load as digits

LINE = [*TINY, "hydra.launcher.workers=1"]


def python(*arguments: str, folder: Path, script: str | None = None) -> str:
    """What a script prints, in a process of its own."""
    line = [sys.executable, *arguments]
    done = warm.run(line, cwd=folder, input=script, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a script without a main guard made two runs."""
    place = tmp_path_factory.mktemp("script")
    arguments = ["policy=adv,bn_stats", *LINE]
    script = f"""
import bnft
print("once")
found = bnft.run({arguments!r})
print(sorted(one["policy"] for one in found), sorted(found[0])[:2])
"""
    (place / "script.py").write_text(script)
    assert python("script.py", folder=place) == "once\n['adv', 'bn_stats'] ['attack', 'base']\n"
    return place


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10))


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    x, y = prepare(digits(), 10).test
    return x[:30], y[:30]


def test_importing_bnft_is_light(tmp_path: Path) -> None:
    line = [sys.executable, "-c", "import bnft, sys; print('torch' in sys.modules, 'run' in dir(bnft))"]
    assert subprocess.run(line, cwd=tmp_path, capture_output=True, text=True).stdout == "False True\n"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        bnft.nothing  # noqa: B018


def test_a_plan_is_that_of_a_command_line_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planned = bnft.plan(["policy=bn_stats,bn_params", "seed=0,1"])
    assert [(run.policy, run.config["seed"]) for run in planned.runs] == [
        ("bn_stats", 0),
        ("bn_stats", 1),
        ("bn_params", 0),
        ("bn_params", 1),
    ]
    assert [base.name.rpartition("-")[0] for base in planned.bases] == ["normal", "normal"]
    assert planned.runs[0].base_name == planned.bases[0].name
    assert repr(planned).startswith(f"Plan(runs=['{planned.runs[0].name}', ") and len(repr(planned)) < 300
    assert len(bnft.plan(["+sweep=table2"]).runs) == 11
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["policy=nope"], r"^policy=nope: must be one of"),
        (["seed=-1"], r"^seed=-1: must be a whole number, at least 0"),
        ("policy=adv", r"^arguments=policy=adv: must be a list"),
        (["-m"], r"^arguments=-m: must be KEY=VALUE"),
        (["policy=glob(nope*)"], r"^policy=glob\(nope\*\): must match at least one option"),
        (["hydra.launcher.nope=1"], r"hydra\.launcher\.nope"),
        (["hydra/sweeper=basic"], r"^hydra/sweeper: must be bnft"),
    ],
)
def test_a_plan_refuses_in_one_line(arguments: Any, message: str) -> None:
    with pytest.raises(bnft.InputError, match=message) as refused:
        bnft.plan(arguments)
    assert "\n" not in str(refused.value)


def test_hydra_is_left_to_the_program_that_uses_it(tmp_path: Path) -> None:
    setbase("1.2")
    with initialize_config_dir(str(tmp_path), version_base="1.2"):
        theirs = GlobalHydra.instance().hydra
        bnft.plan(["policy=adv"])
        with pytest.raises(bnft.InputError):
            bnft.plan(["policy=nope"])
        assert GlobalHydra.instance().hydra is theirs and str(getbase()) == "1.2"
    GlobalHydra.instance().clear()
    bnft.plan(["policy=adv"])
    assert not GlobalHydra.instance().is_initialized()


def test_results_and_table(folder: Path) -> None:
    found = bnft.results(folder / "multirun")
    assert [one["policy"] for one in found] == ["adv", "bn_stats"]
    adv = found[0]
    assert adv["title"] == "ADV" and adv["data"] == "digits" and adv["attack"] == "pgd" and adv["seed"] == 0
    assert adv["clean_low"] < adv["clean_error"] < adv["clean_high"] and adv["clean_images"] == 500
    assert adv["robust_images"] == 20 and adv["learning_percent"] == 100 and adv["seconds"] > 0
    assert all(isinstance(value, (str, int, float, type(None))) for one in found for value in one.values())
    assert found._repr_html_().count("<tr>") == 3 and "&lt;" not in found._repr_html_()
    assert bnft.results(folder / "multirun", adv["run"]) == [adv]
    table = bnft.table(folder / "multirun")
    assert "Runs on digits" in str(table) and "BN STATS (reset)" in table._repr_html_()
    with pytest.raises(bnft.InputError, match="nope: must be a sweep or a run"):
        bnft.results(folder / "multirun", "nope")


def test_from_standard_input_runs_that_are_done_cost_nothing_and_a_failure_is_raised(folder: Path) -> None:
    script = f"""
import bnft
line = {LINE!r}
print(len(bnft.run(["policy=adv", *line])))
planned = bnft.plan(["policy=normal", "seed=5", *line])
(planned.store.root / planned.runs[0].name).mkdir()
(planned.store.root / planned.runs[0].name / "mine.txt").write_text("not a run")
try:
    bnft.run(["policy=adv,normal", "seed=5", *line])
except bnft.RunsFailedError as error:
    print(len(error.failures), error)
print([one["policy"] for one in bnft.results("multirun")])
"""
    first, second, third = python("-", folder=folder, script=script).splitlines()
    assert first == "1" and second.startswith("1 1 of 2 runs failed: normal-") and "holds no config.yaml" in second
    assert third == "['adv']"


def test_a_trained_model_is_loaded_without_data(folder: Path, images: tuple[torch.Tensor, torch.Tensor]) -> None:
    store = folder / "multirun"
    (adv,) = (one for one in bnft.results(store, "all") if one["policy"] == "adv" and one["seed"] == 0)
    model = bnft.load(adv["run"], store)
    assert not model.training and torch.equal(model(images[0]), bnft.load(store / adv["run"])(images[0]))
    x, y = prepare(digits(), 10).test
    assert 100 * float((model(x).argmax(1) != y).float().mean()) == pytest.approx(adv["clean_error"])
    with pytest.raises(bnft.InputError, match=r"^run=nope: must be the name of a run"):
        bnft.load("nope", store)


def test_a_model_that_is_not_whole_is_refused(folder: Path, tmp_path: Path) -> None:
    (source,) = (folder / "multirun").glob("bn_stats-*")
    copy = tmp_path / source.name
    copy.mkdir()
    (copy / "config.yaml").write_bytes((source / "config.yaml").read_bytes())
    with pytest.raises(bnft.InputError, match=r"holds no model\.safetensors"):
        bnft.load(copy)
    content = bytearray((source / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(bnft.DamagedError, match="does not match its checksum"):
        bnft.load(copy)


def test_any_module_is_evaluated_and_left_as_it_was(
    network: nn.Module, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    network.train()
    network.get_submodule("3").eval()
    network.get_parameter("0.bias").requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(1)
    drawn = torch.get_rng_state()
    found = bnft.evaluate(network, *images, eps="8/255", attack="pgd", iterations=3, restarts=2, batch_size=16)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [part.training for part in network.children()] == [True, True, True, False, True]
    assert [parameter.requires_grad for parameter in network.parameters()] == [True, False, True, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(part._forward_pre_hooks for part in network.modules())
    network.eval()
    wrong = (network(images[0]).argmax(1) != images[1]).numpy()
    assert (found.misclassified == wrong).all() and found.clean_error == pytest.approx(100 * wrong.mean())
    assert found.robust_error == pytest.approx(100 * (found.misclassified | found.broken).mean())
    assert ((found.broken_by != "") == found.broken).all() and found.images == 30
    assert np.abs(found.adversarial - images[0].numpy()).max() <= 8 / 255 + 1e-6
    assert "30 images, Linf eps 8/255" in repr(found) and "pgd-3 (2)" in repr(found)
    again = bnft.evaluate(
        network, images[0].double().numpy(), images[1].numpy(), attack="pgd", iterations=3, restarts=2
    )
    assert again.robust_error <= 100 and len(again.broken) == 30


def test_images_can_have_any_memory_layout() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    images = torch.rand(4, 8, 8, 3).permute(0, 3, 1, 2)
    labels = network(images).argmax(1)
    settings: dict[str, Any] = {"attack": "autoattack", "version": "custom", "attacks": ["apgd-t"]}
    found = bnft.evaluate(network, images, labels, **settings)
    assert found.robust_error == bnft.evaluate(network, images.contiguous(), labels, **settings).robust_error


def test_the_precision_that_a_program_chose_is_put_back(tmp_path: Path) -> None:
    """Each choice in a process of its own, forked from one that has imported PyTorch."""
    choices = [
        "torch.backends.fp32_precision = 'tf32'",
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
        "torch.backends.cuda.matmul.allow_tf32 = True",
        "torch.set_float32_matmul_precision('medium')",
    ]
    script = f"""
import os, torch, traceback
from bnft.evaluation.scores import undisturbed
b = torch.backends
def chosen():
    return [x.fp32_precision for x in (b, b.cuda.matmul, b.cudnn, b.cudnn.conv, b.mkldnn.matmul, b.mkldnn.conv)]
def put_back(choice):
    usual = chosen()
    exec(choice)
    before = chosen()
    with undisturbed(torch.device("cpu")):
        inside = chosen()[1::2]
    return before != usual, inside, chosen() == before
for choice in {choices!r}:
    if not os.fork():
        try:
            print(put_back(choice), flush=True)
        except Exception:
            traceback.print_exc()
        os._exit(0)
    os.wait()
"""
    expected = "(True, ['ieee', 'ieee', 'ieee'], True)\n"
    assert python("-c", script, folder=tmp_path) == expected * len(choices)


def test_it_is_the_evaluation_of_runs(folder: Path) -> None:
    store = folder / "multirun"
    (adv,) = (one for one in bnft.results(store, "all") if one["policy"] == "adv" and one["seed"] == 0)
    x, y = prepare(digits(), 10).test
    torch.set_num_threads(1)
    found = bnft.evaluate(bnft.load(adv["run"], store), x[:20], y[:20], adv["eps"], attack="pgd", iterations=2)
    assert found.robust_error == adv["robust_error"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module": 3}, r"^module: must be a torch\.nn\.Module, not a int"),
        ({"module": nn.Linear(3, 3)}, r"^module: cannot take images of shape \(1, 8, 8\)"),
        ({"module": nn.Flatten(0)}, r"^module: gives outputs of shape \(128,\) for 2 images"),
        ({"module": nn.Linear(64, 10).double()}, r"^module: must be in fp32; its weight is float64"),
        ({"images": torch.zeros(5, 8, 8)}, r"^images: must be floats of shape \(N, C, H, W\)"),
        ({"images": torch.zeros(5, 1, 8, 8, dtype=torch.uint8)}, r"^images: .* these are uint8"),
        ({"images": torch.zeros(0, 1, 8, 8)}, r"^images: .* of shape \(0, 1, 8, 8\)"),
        ({"images": torch.full((5, 1, 8, 8), 255.0)}, r"^images: must be in \[0, 1\]; .* 255 to 255"),
        ({"images": torch.full((5, 1, 8, 8), float("nan"))}, r"^images: must be in \[0, 1\]"),
        ({"images": "nope"}, r"^images: must be a tensor or an array, not a str"),
        ({"images": 3}, r"^images: must be floats"),
        ({"labels": torch.zeros(4, dtype=torch.long)}, r"^labels: must be integers of shape \(5,\)"),
        ({"labels": torch.zeros(5)}, r"^labels: must be integers .* float32"),
        ({"labels": torch.full((5,), 10)}, r"^labels: must be from 0 to 9, .* not 10"),
        ({"eps": 0}, r"^eps=0: must be a number, above 0"),
        ({"eps": 8}, r"^eps=8: must be at most 1"),
        ({"norm": "L1"}, r"^norm=L1: must be one of Linf, L2"),
        ({"attack": "fgsm"}, r"^attack=fgsm: must be one of autoattack, quick, pgd"),
        ({"iterations": 0}, r"^iterations=0: must be a whole number, at least 1"),
        ({"attack": "autoattack", "version": "custom"}, r"attacks=null: must be a list"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(
    network: nn.Module, change: dict[str, Any], message: str
) -> None:
    usual = {
        "module": network,
        "images": torch.zeros(5, 1, 8, 8),
        "labels": torch.arange(5),
        "attack": "pgd",
        "iterations": 1,
    }
    with pytest.raises(bnft.InputError, match=message) as refused:
        bnft.evaluate(**{**usual, **change})
    assert "\n" not in str(refused.value)

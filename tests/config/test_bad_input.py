"""Bad commands, files and arrays: one line that names the key, the value and what is allowed; exit code 2; no trace.

And the opposite: a bug of ours is never mistaken for any of these.
"""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf.errors import InterpolationResolutionError
from safetensors.torch import save_file
from support.command import ROOT, Outcome, refusal, tree
from torch import nn

from bnft import cli
from bnft.common import files
from bnft.models import build
from bnft.models.resnet import ResNet
from bnft.runs import identity

POLICIES = "one of adv, adv_bn_clean, bn_only, bn_only_logits_conv1, bn_only_params, bn_params, bn_params_beta"
AUTOATTACK = "apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square"
WEIGHTS = "a .safetensors file"

Launch = Callable[..., Outcome]


@pytest.fixture
def refused(launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Launch a command that must be refused and leave everything as it was; returns the line that it printed."""
    monkeypatch.setattr("bnft.runs.execution.execute", lambda *_, **__: pytest.fail("was not refused"))

    def call(*arguments: str) -> str:
        before = tree(tmp_path)
        line = refusal(launch(*arguments))
        assert tree(tmp_path) == before
        return line

    return call


def cases(*rows: tuple[str, ...]) -> pytest.MarkDecorator:
    """Parametrize over (what is asked for, what the line must say...)."""
    return pytest.mark.parametrize(("command", "said"), [(row[0], row[1:]) for row in rows], ids=[r[0] for r in rows])


# keys that do not exist

KEYS = (
    ("seeed=3", "seeed=3", "did you mean seed?", "the configuration has title, base,"),
    ("+nonsense=3", "nonsense=3", "no such key", "the configuration has title, base,"),
    ("polcy=adv", "polcy=adv", "did you mean policy?"),
    ("schedule.epoch=3", "schedule.epoch=3", "did you mean schedule.epochs?", "schedule has epochs, batch_size"),
    ("schedule.shape.warmpu=3", "schedule.shape.warmpu=3", "did you mean schedule.shape.warmup?", "start, final"),
    ("attack.epsilon=0.1", "attack.epsilon=0.1", "did you mean attack.eps?", "iterations, step_size"),
    ("model.widht=3", "model.widht=3", "did you mean model.width?", "model has channels, num_classes, width, blocks"),
    ("data.augmentatoin=none", "data.augmentatoin=none", "did you mean data.augmentation?", "data has test_images"),
    ("freeze_policy.parameter=[all]", "freeze_policy.parameter=[all]", "has parameters, statistics"),
    ("evaluation.n_image=10", "evaluation.n_image=10", "did you mean evaluation.n_images?", "evaluation has attack,"),
)

# values that a key does not take

VALUES = (
    ("schedule.epochs=-1", "schedule.epochs=-1", "a whole number, at least 0"),
    ("schedule.epochs=many", "schedule.epochs=many", "a whole number, at least 0"),
    ("schedule.epochs=${nope}", "schedule.epochs=${nope}", "a whole number, at least 0", "'nope' not found"),
    ("schedule.batch_size=5000", "schedule.batch_size=5000", "at most the 1297 training images"),
    ("schedule.lr=0", "schedule.lr=0", "a number, above 0"),
    ("schedule.momentum=0", "schedule.momentum=0", "above 0 with schedule.nesterov=true"),
    ("schedule.shape.warmup=1", "schedule.shape.warmup=1", "a number, above 0, below 1"),
    ("schedule/shape=step schedule.shape.milestones=[0.5,2]", "milestones=[0.5,2]", "a number, at least 0, at most 1"),
    ("schedule.shape=cosine", "schedule.shape=cosine", "a group of keys", "schedule/shape=NAME"),
    ("policy=adv attack.eps=2", "attack.eps=2:", "at most 1 with attack.norm=Linf"),
    ("policy=adv attack.eps=0", "attack.eps=0", "a number, above 0"),
    ("policy=adv attack.eps=nan", "attack.eps=nan", "a number, above 0, finite"),
    ("policy=adv attack.eps=8/0", "attack.eps=8/0", "a number, above 0"),
    ("policy=normal attack.eps=abc", "attack.eps=abc", "a number, above 0"),
    ("policy=normal attack.norm=bf16", "attack.norm=bf16", "one of Linf, L2"),
    ("policy=adv attack.examples=hard", "${attack.examples}", "'augmentations.hard' not found"),
    ("threat.eps=256/255", "threat.eps=1.00392", "at most 1 with threat.norm=Linf"),
    ("data.eps=0.1", "data.eps=0.1", "data.eps is now threat.eps (threat.eps=VALUE)"),
    ("data.augmentation=mixup", "data.augmentation=mixup", "one of none, crop, crop_flip, autoaugment"),
    ("data.num_classes=5", "the label 9", "from 0 to 4 (data.num_classes)"),
    ("data.channels=3", "data.channels=3", "must be 1"),
    ("data.mean=[0.1,0.2]", "data.mean=[0.1,0.2]", "a list of 1 numbers"),
    ("data.std=[0]", "data.std=[0]", "a list (each a number, above 0), or null"),
    ("model.width=true", "model.width=true", "a whole number, at least 1"),
    ("model.blocks=[1,0]", "model.blocks=[1,0]", "a list (each a whole number, at least 1)"),
    ("freeze_policy.parameters=all", "freeze_policy.parameters=all", "a list of all, batchnorm, logits, first_conv,"),
    ("freeze_policy.parameters=[layer1.*]", "freeze_policy.parameters=layer1.*", "a pattern that matches a parameter"),
    ("freeze_policy.parameters=[batchnorm@stage4]", "parameters=batchnorm@stage4", "one of @stage1, @stage2, @stage3"),
    ("freeze_policy.parameters=[random:77083]", "parameters=random:77083", "random:N with N from 1 to 77082"),
    ("schedule.batchnorm_weight_decay=-1", "schedule.batchnorm_weight_decay=-1", "a number, at least 0, or null"),
    ("monitor.every=0", "monitor.every=0", "a whole number, at least 1, or null"),
    ("monitor.every=16", "monitor.every=16", "at most the 15 epochs of schedule.epochs, or null"),
    ("monitor.keep=best", "monitor.keep=best", "last with monitor.every=null", "set monitor.every"),
    ("monitor.every=1 monitor.keep=first", "monitor.keep=first", "one of last, best"),
    ("monitor.every=1 monitor.images=1297", "monitor.images=1297", "below the 1297 training images"),
    ("monitor.every=1 monitor.images=1200", "schedule.batch_size=128", "at most the 97 training images"),
    ("monitor.every=1 monitor.images=900 data.validation=400", "monitor.images=900", "below the 897 training images"),
    ("monitor.every=1 monitor.eps=2", "monitor.eps=2", "at most 1 with monitor.norm=Linf"),
    ("monitor.eps=null", "monitor.eps=null", "a number, above 0"),
    ("policy=bn_params monitor.every=20 schedule.epochs=30", "base=normal: monitor.every=20", "at most the 15 epochs"),
    ("freeze_policy.statistics=thaw", "freeze_policy.statistics=thaw", "one of update, frozen, reset"),
    ("evaluation.version=fast", "evaluation.version=fast", "one of standard, plus, rand, custom"),
    ("evaluation.version=custom", "evaluation.attacks=null", f"a list of {AUTOATTACK}"),
    ("evaluation.version=custom evaluation.attacks=[apgd]", "attacks=[apgd]", f"a list of {AUTOATTACK}"),
    ("evaluation.attacks=[fab]", "evaluation.attacks=[fab]", "null with evaluation.version=standard"),
    ("evaluation.attack=pgd", "evaluation.iterations=null", "a whole number, at least 1 with evaluation.attack=pgd"),
    ("evaluation.eps=null", "evaluation.eps=null", "a number, above 0"),
    ("evaluation=curve evaluation.eps=null", "evaluation.eps=null", "a number, above 0"),
    ("evaluation=curve evaluation.eps=0.6", "evaluation.budgets=[0.15,0.3,0.45,0.6,0.9,1.2]", "at most 1 with", "Linf"),
    ("evaluation=curve evaluation.budgets=3", "evaluation.budgets=3", "a list of numbers above 0 in increasing order"),
    (
        "evaluation=curve evaluation.budgets=[8/255,0.15,x]",
        "[8/255,0.15,x]",
        "a list of numbers above 0 in increasing",
    ),
    ("evaluation=curve evaluation.budgets=[0.15,8/255]", "evaluation.budgets=[0.15,8/255]", "in increasing order"),
    ("evaluation=curve evaluation.budgets=[]", "evaluation.budgets=[]", "a list that contains evaluation.eps=0.15"),
    ("evaluation=curve evaluation.budgets=[0,0.15]", "evaluation.budgets=[0,0.15]", "numbers above 0"),
    ("evaluation=curve evaluation.budgets=[8/255]", "evaluation.budgets=[8/255]", "contains evaluation.eps=0.15"),
    ("evaluation=curve evaluation.restarts=50", "evaluation.budgets=[0.0375,", "at most 2 numbers with"),
    ("evaluation=quick evaluation.restarts=122", "evaluation.restarts=122", "at most 121"),
    ("evaluation=strongest evaluation.restarts=122", "evaluation.restarts=122", "at most 121"),
    ("evaluation.budgets=[0.15]", "evaluation.budgets=[0.15]", "null with evaluation.attack=autoattack"),
    ("preview=pgd", "preview=pgd", "one of quick or null"),
    ("evaluation.n_images=501", "evaluation.n_images=501", "at most the 500 test images"),
    ("data.n_images=501", "data.n_images=501", "at most the 500 test images"),
    ("device=cuda:7", "device=cuda:7", "one of auto, cpu"),
    ("threads=0", "threads=0", "a whole number, at least 1, at most 1024, or null"),
    ("seed=-1", "seed=-1", "a whole number, at least 0"),
    ("precision=fp8", "precision=fp8", "one of auto, bf16, fp32"),
)

# options that a group does not have, and what is not given

OPTIONS = (
    ("policy=foo", "policy=foo", POLICIES),
    ("~policy", "policy: must be given", POLICIES),
    ("freeze_policy=foo", "freeze_policy=foo", "one of all, batchnorm, batchnorm_beta, batchnorm_frozen_statistics"),
    ("attack=foo", "attack=foo", "one of none, pgd"),
    ("attack=null", "attack=null", "must be a string", "--help"),
    ("model=foo", "model=foo", "one of resnet20, resnet8, torchvision"),
    ("data=foo", "data=foo", "one of cifar10, digits, npz"),
    ("schedule/shape=foo", "schedule/shape=foo", "one of cosine, one_cycle, step"),
    ("-m +sweep=foo", "sweep=foo", "one of table2"),
    ("model=torchvision", "model.name: must be given", "model.name=VALUE"),
    ("data=npz", "data.path: must be given", "data.path=VALUE"),
    ("model=torchvision model.name=resnet19", "model.name=resnet19", "a classification model", "resnet18"),
)

# what is no override

GRAMMAR = (
    ("schedule.epochs=[1,2", "schedule.epochs=[1,2:", "KEY=VALUE"),
    ("schedule.epochs", "schedule.epochs:", "KEY=VALUE"),
    ("model.blocks.first=3", "model.blocks.first=3", "--help"),
    ("seed=0,1", "seed=0,1", "add --multirun"),
    ("policy=bn_params base_overrides=[seed=1", "base_overrides=[seed=1:", "with quotes around special characters"),
)

# components by _target_

TARGETS = (
    ("model._target_=nowhere.Net", "model._target_=nowhere.Net", "can be imported (No module named 'nowhere')"),
    ("model._target_=torch.nn.Net", "model._target_=torch.nn.Net", "can be imported", "no attribute 'Net'"),
    ("model._target_=math.pi", "model._target_=math.pi", "a class or function, not a float"),
    ("model._target_=builtins.int", "model._target_=builtins.int", "whose parameters can be read"),
    ("model._target_=torch.nn.Linear", "model.in_features: must be given", "a whole number"),
    ("model._target_=test_bad_input.TooWide", "outputs of shape (2, 11)", "logits of shape (2, 10)"),
    ("model._target_=test_bad_input.Picky", "model: cannot take images of shape (1, 8, 8)", "only large images"),
    ("model._target_=test_bad_input.Refusing", "test_bad_input.Refusing cannot be built", "never in the mood"),
    ("policy=bn_only model._target_=test_bad_input.Plain", "freeze_policy.parameters=batchnorm", "no BN layers"),
    ("policy=bn_stats model._target_=test_bad_input.Plain", "freeze_policy.statistics=reset", "with BN layers"),
    ("policy=bn_stats model._target_=test_bad_input.NoStatistics", "statistics=reset", "with running statistics"),
)

# sweeps with a bad point that is not the first: none of the good ones may have begun

SWEEPS = (
    ("-m policy=normal,nope", "policy=nope", POLICIES),
    ("-m schedule.epochs=1,-1", "schedule.epochs=-1", "a whole number, at least 0"),
    ("-m seed=0,1 evaluation.n_images=20,501", "evaluation.n_images=501", "at most the 500 test images"),
    ("-m policy=normal,bn_params freeze_policy.parameters=[all],[x]", "freeze_policy.parameters=x", "a pattern that"),
    ("-m store=here,there", "store=[here,there]", "one folder for all runs of a sweep"),
    ("-m policy=glob(zzz*)", "policy=glob(zzz*)", "must match at least one option"),
    ("-m +sweep=table2 seed=0,x", "seed=x", "a whole number, at least 0"),
)


class User(nn.Module):
    """A user's own model; takes whatever keys model=resnet8 has."""

    def __init__(self, num_classes: int, **others: object) -> None:
        super().__init__()
        self.logits: nn.Module = nn.Linear(64, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits(images.flatten(1))


class Plain(User):
    """No BN layer and no convolution."""


class TooWide(User):
    """One class too many."""

    def __init__(self, num_classes: int, **others: object) -> None:
        super().__init__(num_classes + 1)


class Picky(User):
    """Fails on small images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise ValueError("only large images")


class Refusing(User):
    """Cannot be built."""

    def __init__(self, num_classes: int, **others: object) -> None:
        raise ValueError("never in the mood")


class NoStatistics(User):
    """BN without running statistics."""

    def __init__(self, num_classes: int, **others: object) -> None:
        super().__init__(num_classes)
        self.logits = nn.Sequential(self.logits, nn.BatchNorm1d(num_classes, track_running_stats=False))


@cases(*KEYS, *VALUES, *OPTIONS, *GRAMMAR, *TARGETS, *SWEEPS)
def test_commands(refused: Callable[..., str], command: str, said: tuple[str, ...]) -> None:
    line = refused(*shlex.split(command, posix=False))
    for words in said:
        assert words in line


@pytest.mark.parametrize("eps", ["8/255", "' 8 / 255 '", "0.03137254901960784"])
def test_a_fraction_is_a_number(launch: Launch, monkeypatch: pytest.MonkeyPatch, eps: str) -> None:
    asked = []
    monkeypatch.setattr("bnft.runs.execution.execute", lambda run, *_, **__: asked.append(run))
    assert launch("policy=adv", f"threat.eps={eps}").code == 0
    config = asked[0].config
    assert config["threat"]["eps"] == config["attack"]["eps"] == config["evaluation"]["eps"] == 8 / 255
    assert config["attack"]["step_size"] == pytest.approx(0.007, rel=1e-6)


# data sets that people bring

ARRAYS = (
    ("x_train=x_train.astype(float32)", "x_train has dtype float32", "must be uint8"),
    ("x_train=x_train*nan", "x_train holds NaN", "must be uint8"),
    ("x_test=x_test[...,0]", "x_test has shape (30, 8, 8)", "must be 4-dimensional"),
    ("x_test=x_test[:,:4]", "x_test has images of shape (4, 8, 3)", "(8, 8, 3)", "the same height, width and channels"),
    ("x_test=x_test[:0]; y_test=y_test[:0]", "x_test holds no images", "at least one"),
    ("y_train=y_train[:-1]", "y_train has shape (59,)", "must be (60,)"),
    ("y_train=y_train*1.5", "y_train has dtype float64", "integers from 0 to 2"),
    ("y_test=y_test*nan", "y_test holds NaN", "integers from 0 to 2"),
    ("y_train=y_train-1", "y_train holds the label -1", "from 0 to 2"),
    ("y_train=y_train+1; y_test=y_test+1", "y_train holds labels from 1 to 3", "counted from 0", "subtract 1"),
    ("x_train=x_train.transpose(0,3,1,2); x_test=x_test.transpose(0,3,1,2)", "(60, 3, 8, 8)", "x_train.transpose"),
    ("y_train=y_train*0; y_test=y_test*0", "data.num_classes=1", "at least 2"),
    ("y_train=y_train.astype(object)", "data.path=images.npz", "the array y_train needs pickle, which is refused"),
    ("y_test=None", "data.path=images.npz", "with the arrays x_train, y_train, x_test, y_test", "not y_test"),
)


@cases(*ARRAYS)
def test_arrays(
    refused: Callable[..., str], tmp_path: Path, images: dict[str, np.ndarray], command: str, said: tuple[str, ...]
) -> None:
    scope = {**images, **vars(np)}
    changes = dict(change.split("=", 1) for change in command.split("; "))
    arrays = {**images, **{name: eval(value, scope) for name, value in changes.items()}}
    np.savez(tmp_path / "images.npz", **{name: value for name, value in arrays.items() if value is not None})
    line = refused("data=npz", "data.path=images.npz", "model=resnet8", "schedule.batch_size=16")
    for words in said:
        assert words in line


def test_a_label_beyond_the_classes(refused: Callable[..., str], tmp_path: Path, images: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "images.npz", **{**images, "y_test": images["y_test"] + 5})  # type: ignore[arg-type]
    line = refused("data=npz", "data.path=images.npz", "data.num_classes=4")
    assert "y_test holds the label 5" in line and "from 0 to 3 (data.num_classes)" in line


NO_ARCHIVE: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "there is no such file"),
    "empty": (b"", "this file is not an archive"),
    "text": (b"not an archive", "this file is not an archive"),
    "cut": (b"PK\x03\x04" + bytes(40), "this file is not an archive"),
}


@pytest.mark.parametrize("kind", NO_ARCHIVE)
def test_no_archive(refused: Callable[..., str], tmp_path: Path, kind: str) -> None:
    content, said = NO_ARCHIVE[kind]
    if content is not None:
        (tmp_path / "images.npz").write_bytes(content)
    line = refused("data=npz", "data.path=images.npz")
    assert "data.path=images.npz" in line and "an .npz file with the arrays x_train" in line and said in line


def test_what_else_is_no_archive(refused: Callable[..., str], tmp_path: Path, images: dict[str, np.ndarray]) -> None:
    np.save(tmp_path / "x.npy", images["x_train"])
    assert "this file holds a single array" in refused("data=npz", "data.path=x.npy")
    (tmp_path / "folder").mkdir()
    assert "data.path=folder: must be an .npz file" in refused("data=npz", "data.path=folder")
    assert "data.root=nowhere: must be a folder" in refused("data=cifar10", "data.root=nowhere", "data.download=false")


# bases


def weights(width: int = 16) -> dict[str, torch.Tensor]:
    return build(lambda: ResNet(1, 10, width, [1, 1, 1]), [0.5], [0.5], seed=0).state_dict()


def no_batchnorm_weights() -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights().items() if ".bn" not in name}


def write_run(folder: Path, named: bool = True) -> None:
    """A run in the store that is not trained yet; unless `named`, the folder of another."""
    contents = {"model": {"width": 16}, "seed": 7}
    name = f"normal-{identity.digest(contents)}" if named else "normal-0123456789"
    files.write_yaml(
        folder / "multirun" / name / "config.yaml",
        {"run": {"name": name, "policy": "normal", "title": "NORMAL", "identity": contents}},
    )


BASES: dict[str, tuple[Callable[[Path], object], str, tuple[str, ...]]] = {
    "unknown": (lambda folder: None, "nope", ("a policy (`bnft run --help` lists them)", "a run in multirun", WEIGHTS)),
    "empty folder": (lambda folder: (folder / "f").mkdir(), "f", ("a folder with model.safetensors", WEIGHTS)),
    "text": (lambda folder: (folder / "f").write_text("text"), "f", ("a .safetensors file with weights",)),
    "pickle": (
        lambda folder: torch.save(weights(), folder / "f.pt"),
        "f.pt",
        ("a .safetensors file with weights",),
    ),
    "another model's": (
        lambda folder: save_file({"a": torch.zeros(3)}, folder / "f.safetensors"),
        "f.safetensors",
        ("must fit the model: ", " is missing (58 missing, 1 too many)"),
    ),
    "without BN": (
        lambda folder: save_file(no_batchnorm_weights(), folder / "f.safetensors"),
        "f.safetensors",
        ("must fit the model: network.bn.bias is missing",),
    ),
    "too narrow": (
        lambda folder: save_file(weights(width=3), folder / "f.safetensors"),
        "f.safetensors",
        ("must fit the model: ", " has shape (3, 1, 3, 3) and must have (16, 1, 3, 3)"),
    ),
    "itself": (lambda folder: None, "bn_params", ("a policy that does not start from itself",)),
    "not trained": (
        write_run,
        f"normal-{identity.digest({'model': {'width': 16}, 'seed': 7})}",
        ("must be a trained run",),
    ),
}


@pytest.mark.parametrize("kind", BASES)
def test_bases(refused: Callable[..., str], tmp_path: Path, kind: str) -> None:
    prepare, base, said = BASES[kind]
    prepare(tmp_path)
    line = refused("policy=bn_params", f"base={base}")
    assert f"base={base}: must " in line
    for words in said:
        assert words in line


def test_a_base_whose_folder_is_anothers(refused: Callable[..., str], tmp_path: Path) -> None:
    write_run(tmp_path, named=False)
    line = refused("policy=bn_params", "base=normal-0123456789")
    assert "multirun/normal-0123456789/config.yaml" in line and "does not belong to the run normal-0123456789" in line


def test_the_overrides_of_a_base(refused: Callable[..., str]) -> None:
    line = refused("policy=bn_params", "base_overrides=[schedule.epochs=-1]")
    assert "base=normal: schedule.epochs=-1: must be a whole number, at least 0" in line
    line = refused("policy=bn_params", "base=bn_stats", "base_overrides=[base=bn_params]")
    assert "base=bn_stats: base=bn_params: must be a policy that does not start from itself" in line
    assert "base=normal: schedule.epochs:" in refused("policy=bn_params", "base_overrides=[schedule.epochs]")


def test_a_base_is_held_to_its_own_rules_only(
    launch: Launch, tmp_path: Path, images: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not evaluated, so the number of images that evaluation would attack is no concern of it."""
    np.savez(tmp_path / "images.npz", **images)  # type: ignore[arg-type]
    monkeypatch.setattr("bnft.runs.execution.execute", lambda *_, **__: None)
    data = ("data=npz", "data.path=images.npz", "model=resnet8", "data.augmentation=none")
    small = ("schedule.batch_size=16", "base_overrides=[schedule.batch_size=16]", "evaluation.n_images=30")
    assert launch("policy=bn_params", *data, *small) == Outcome(0, "", "")


# the store, and configurations of one's own


@pytest.mark.parametrize("store", ["occupied", "occupied/deeper/still"])
def test_a_store_that_is_a_file(refused: Callable[..., str], tmp_path: Path, store: str) -> None:
    (tmp_path / "occupied").write_text("something else")
    assert f"store={store}: must be a folder; occupied is a file" in refused(f"store={store}")
    assert f"store={store}: must be a folder; occupied is a file" in refused("-m", f"store={store}", "seed=0,1")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("# @package _global_\ntitle: [unclosed", "mine.yaml"),
        ("# @package _global_\ndefaults: [override /freeze: all]\ntitle: MINE", "Could not override 'freeze'"),
        ("# @package _global_\nschedule: {epoch: 3}\ntitle: MINE", "schedule.epoch"),
        ("# @package _global_\nbase: null", "title: must be given, text"),
    ],
    ids=["not YAML", "unknown group", "unknown key", "no title"],
)
def test_a_policy_of_ones_own(refused: Callable[..., str], tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "extra" / "policy").mkdir(parents=True)
    (tmp_path / "extra" / "policy" / "mine.yaml").write_text(content)
    assert said in refused("--config-dir=extra", "policy=mine")


# bnft table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), ("store=multirun", "must be a folder with runs")),
        (("--store", "nowhere"), ("store=nowhere", "must be a folder with runs")),
        (("2026-11-22T00-00-00.000",), ("2026-11-22T00-00-00.000", "must be a sweep or a run in multirun, or all")),
        (("--format", "xlsx"), ("--format", "'xlsx'", "choose from 'terminal', 'md', 'csv', 'tex', 'json'")),
        (("--wide",), ("--wide", "bnft table --help")),
    ],
    ids=["empty store", "no store", "unknown sweep", "unknown format", "unknown option"],
)
def test_table(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["table", *arguments])
    line = refusal(Outcome(int(end.value.code or 0), *capsys.readouterr()))
    for words in said:
        assert words in line
    assert tree(tmp_path) == {}


def test_a_damaged_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path)
    (config,) = tmp_path.glob("multirun/*/config.yaml")
    files.write(config.parent / "evaluation" / "pgd-0" / "result.json", b'{"clean": ')
    with pytest.raises(SystemExit) as end:
        cli.main(["table", "all", "--store", str(tmp_path / "multirun")])
    line = refusal(Outcome(int(end.value.code or 0), *capsys.readouterr()))
    assert "result.json: is damaged, it must be JSON" in line


# the program itself, and bugs of ours


def test_the_program_refuses_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "launch.py"), "schedule.epochs=-1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    line = refusal(Outcome(done.returncode, done.stdout, done.stderr))
    assert line == "bnft: schedule.epochs=-1: must be a whole number, at least 0\n"
    assert tree(tmp_path) == {}


def broken(*arguments: object, **keywords: object) -> None:
    raise ValueError("a bug of ours")


@pytest.mark.parametrize(
    "place",
    [
        "bnft.runs.execution.execute",
        "bnft.runs.plan.plan",
        "bnft.config.compose.check",
        "bnft.config.build.dataset",
        "bnft.config.build.model",
    ],
)
def test_a_bug_is_not_swallowed(launch: Launch, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setattr(place, broken)
    with pytest.raises(ValueError, match=r"^a bug of ours$"):
        launch("policy=bn_params")


def test_a_bug_in_a_resolver_is_not_swallowed(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnft.data.npz.channels", broken)
    with pytest.raises(InterpolationResolutionError, match="a bug of ours"):
        launch("data=npz", "data.path=images.npz")


def test_a_bug_ends_the_program_with_its_traceback(tmp_path: Path) -> None:
    program = (
        "import bnft.hydra_app, launch\n"
        "def broken(overrides): raise ValueError('a bug of ours')\n"
        "bnft.hydra_app._run_one = broken\n"
        "bnft.hydra_app.guarded(launch.main)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stdout == ""
    assert "Traceback (most recent call last)" in done.stderr and done.stderr.endswith("ValueError: a bug of ours\n")


def test_a_sweep_goes_on_after_a_bug_and_says_so(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnft.runs.execution.execute", broken)
    outcome = launch("-m", "seed=0,1", "hydra/launcher=basic")
    assert outcome.code == 1
    assert outcome.err.count("ValueError: a bug of ours") >= 2 and "Traceback" in outcome.err
    assert "2 of 2 runs failed" in outcome.err

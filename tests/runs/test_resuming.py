"""A run that is stopped anywhere goes on to the same bits, and nothing that it leaves stands in the way later."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from support import mischief
from support.command import TINY, Outcome
from support.evaluating import Watched
from support.programs import finish, start, statuses, until
from torch import nn

from bnft.attacks.pgd import pgd
from bnft.batchnorm.counts import Counts
from bnft.batchnorm.freezing import Freezing
from bnft.common import files
from bnft.common.devices import Hardware
from bnft.common.errors import InputError
from bnft.common.stopping import Stopped
from bnft.data.augmentation import crop, none
from bnft.data.dataset import Arrays, Dataset, prepare
from bnft.data.digits import load
from bnft.evaluation.cascade import Attack, Cascade, run
from bnft.evaluation.evaluate import evaluate
from bnft.evaluation.passes import Counter
from bnft.evaluation.settings import Evaluation
from bnft.evaluation.summary import Passes
from bnft.models import build
from bnft.models.resnet import ResNet
from bnft.runs.evaluation_folder import EvaluationFolder
from bnft.runs.result import TrainingRecord
from bnft.runs.run_folder import RunFolder
from bnft.tracking.state import Tracking
from bnft.training.loop import train
from bnft.training.monitor import Monitoring, best_of
from bnft.training.recipe import Recipe
from bnft.training.shapes import one_cycle
from bnft.training.state import TrainingState

CPU = Hardware(torch.device("cpu"), "fp32", 1)


def grey(images: int) -> Dataset:
    """Grey images as they come from a file: (N, H, W, 1), one after another in memory."""
    random = np.random.RandomState(0)
    x, y = random.randint(0, 256, (images, 8, 8, 1)).astype(np.uint8), np.arange(images) % 10
    return prepare(Arrays(x, y, x, y), 10)


def narrow(data: Dataset, width: int = 2) -> nn.Module:
    return CPU.place(build(lambda: ResNet(1, 10, width, [1, 1]), data.mean, data.std, seed=0))


class Stops:
    """Stops what goes on at the call of that number, whichever of its methods is called."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.calls = at, 0

    def pulse(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise Stopped


# training


class Keeper(Stops):
    """Keeps a training in a run's folder."""

    def __init__(self, folder: RunFolder, at: int | None = None) -> None:
        super().__init__(at)
        self.folder, self.steps = folder, 0

    def save(self, model: nn.Module, progress: TrainingState) -> None:
        self.folder.save_logs(progress, {})
        self.folder.save_checkpoint(model.state_dict(), progress, TrainingRecord(counts=Counts(1, 1)))

    def stepped(self, progress: TrainingState, steps: int) -> None:
        self.steps += 1
        self.pulse()


def attack(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return pgd(model, inputs, labels, generator=generator, eps=0.1, iterations=1, step_size=0.05)


def trained(
    data: Dataset, recipe: Recipe, parameters: str, keeper: Keeper, width: int = 2
) -> tuple[nn.Module, TrainingState]:
    """From where the keeper's folder has it, or from the start."""
    model, progress = narrow(data, width), None
    if (kept := keeper.folder.checkpoint()) is not None:
        state, progress, _ = kept
        model.load_state_dict(state)
    return model, train(model, Freezing(model, [parameters], "update"), data, recipe, CPU, keeper, progress)


def without_time(progress: TrainingState) -> list[dict[str, object]]:
    return [{**line, "seconds": 0, "monitor_seconds": 0} for line in progress.history]


@pytest.mark.parametrize("parameters", ["all", "none", "random:batchnorm"])
@pytest.mark.parametrize("attacked", [True, False], ids=["attacked", "clean"])
def test_training_that_is_stopped_anywhere_equals_undisturbed(tmp_path: Path, parameters: str, attacked: bool) -> None:
    """Before each batch, in each attack and after each batch, the last of an epoch and of all included."""
    data, steps = grey(40), 4
    recipe = Recipe(2, 16, 0.05, one_cycle, 0.9, True, 5e-4, crop, attack if attacked else None, "eval", 0)
    undisturbed = Keeper(RunFolder(tmp_path / "undisturbed"))
    expected, done = trained(data, recipe, parameters, undisturbed)
    assert undisturbed.steps == steps and undisturbed.calls == steps * (4 if attacked else 2)
    for at in range(1, undisturbed.calls + 1):
        first, second = (Keeper(RunFolder(tmp_path / str(at)), place) for place in (at, None))
        with pytest.raises(Stopped):
            trained(data, recipe, parameters, first)
        model, progress = trained(data, recipe, parameters, second)
        assert first.steps + second.steps == steps, "no batch is done twice"
        assert without_time(progress) == without_time(done)
        for found, wanted in ((model.state_dict(), expected.state_dict()), (stacked(progress), stacked(done))):
            assert [name for name, value in wanted.items() if not torch.equal(found[name], value)] == [], at


def stacked(progress: TrainingState) -> dict[str, torch.Tensor]:
    return progress.batchnorm.stacked()


def test_monitored_training_that_is_stopped_anywhere_equals_undisturbed(tmp_path: Path) -> None:
    """Also in the middle of a measurement, and with the best model, which is not the last one."""
    data = prepare(load(), 10)
    data = replace(data, x_train=data.x_train[:160], y_train=data.y_train[:160]).hold_out(16)
    recipe = Recipe(
        3, 16, 0.1, lambda progress: 1.0 if progress < 0.3 else 60.0, 0.9, True, 5e-4, none, None, "eval", 0
    )
    recipe = replace(recipe, monitoring=Monitoring(every=1, keep="best", norm="Linf", eps=0.02))
    undisturbed = Keeper(RunFolder(tmp_path / "undisturbed"))
    expected, done = trained(data, recipe, "all", undisturbed, 8)
    assert best_of(done.history)["epoch"] == 2, "neither the first nor the last"
    assert undisturbed.calls > 400, "forward passes of the attack are among them"
    for at in [*range(40, undisturbed.calls, 113), undisturbed.calls]:
        first, second = (Keeper(RunFolder(tmp_path / str(at)), place) for place in (at, None))
        with pytest.raises(Stopped):
            trained(data, recipe, "all", first, 8)
        model, progress = trained(data, recipe, "all", second, 8)
        assert first.steps + second.steps == undisturbed.steps, "no batch is done twice"
        assert without_time(progress) == without_time(done)
        found = {"model": model.state_dict(), "best": progress.best, "bn": stacked(progress)}
        wanted = {"model": expected.state_dict(), "best": done.best, "bn": stacked(done)}
        for part, tensors in wanted.items():
            assert tensors.keys() == found[part].keys()
            assert [name for name, value in tensors.items() if not torch.equal(found[part][name], value)] == [], at


# evaluation


class Watcher(Stops):
    """Keeps an evaluation in its folder."""

    def __init__(self, folder: EvaluationFolder, at: int | None = None) -> None:
        super().__init__(at)
        self.folder, self.last = folder, 0

    def attacked(self, cascade: Cascade, attacks: object) -> None:
        self.folder.save_cascade(cascade)
        self.pulse()
        self.last = self.calls


def test_an_evaluation_that_is_stopped_anywhere_equals_undisturbed(tmp_path: Path) -> None:
    """To the bits of the logits, though images that were kept have another memory layout than those from the data."""
    data = grey(60)
    model = narrow(data)
    with torch.no_grad():
        for _ in range(50):  # until BN separates the images
            model(data.pixels(data.x_test))
        data.y_test[:] = model.eval()(data.pixels(data.x_test)).argmax(1)
    config = Evaluation(
        attack="pgd", norm="Linf", eps=0.2, n_images=40, batch_size=20, iterations=1, step_size=0.2, restarts=2
    )

    def evaluated(watcher: Watcher) -> tuple[dict[str, torch.Tensor], object]:
        outcomes, summary = evaluate(model, *data.test, config, watcher, watcher.folder.cascade())
        steps = tuple(replace(step, seconds=0) for step in summary.cascade)
        return outcomes.tensors(), replace(summary, cascade=steps, seconds=0)

    undisturbed = Watcher(EvaluationFolder(tmp_path / "undisturbed"))
    expected, summary = evaluated(undisturbed)
    fell = expected["fallen_at"]
    assert 0 < int((fell > 0).sum()) < len(fell)
    for at in range(1, undisturbed.last + 2):
        first, second = (Watcher(EvaluationFolder(tmp_path / str(at)), place) for place in (at, None))
        with pytest.raises(Stopped):
            evaluated(first)
        found, again = evaluated(second)
        assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == [], at
        assert again == summary


def test_what_is_scored_has_one_memory_layout_whoever_attacked() -> None:
    """An attack gives what it likes, and what another process found comes as plain arrays."""
    layouts = []

    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            layouts.append(x.stride())
            return torch.ones(len(x), 2)

    images, labels = torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)
    here = Attack("here", lambda x, y, batch: x.to(memory_format=torch.channels_last))

    def elsewhere(attack: int, batches: object, first: int) -> Iterator[tuple[torch.Tensor, Passes]]:
        sent = torch.from_numpy(images.permute(0, 2, 3, 1).numpy().copy()).permute(0, 3, 1, 2)
        return iter([(sent, Passes())])

    for shared in (None, elsewhere):
        cascade = Cascade.start(images, torch.ones(4, dtype=torch.bool))
        usual = partial(run, norm="Linf", eps=0.1, batch_size=4, watcher=Watched(), counter=Counter())
        usual(Model(), images, labels, [here], cascade=cascade, shared=shared)
    assert layouts == [images.stride()] * 2


# what a process that was killed leaves


def folder_of(policy: str) -> RunFolder:
    (path,) = Path("multirun").glob(f"{policy}-*")
    return RunFolder(path)


@pytest.mark.parametrize("way", [[], ["-m"]], ids=["single", "sweep"])
def test_a_checkpoint_that_outlived_training_is_removed(
    launch: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, way: list[str]
) -> None:
    """As by a kill between the writing of the model and the removal of the checkpoint."""
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.name == "checkpoint.safetensors":
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        assert launch("policy=normal", *TINY).code == 130
    folder = folder_of("normal")
    checkpoint = folder.path / "checkpoint.safetensors"
    shutil.copy2(checkpoint, "kept")
    assert folder.trained and checkpoint.exists()
    assert launch(*way, "policy=normal", *TINY).code == 0
    assert not checkpoint.exists()
    (result,) = folder.path.rglob("result.json")
    for _ in range(2):  # it is done, and only asked for again
        shutil.copy2("kept", checkpoint)
        cascade = Path(shutil.copy2("kept", result.with_name("cascade.safetensors")))
        before = result.stat().st_mtime_ns
        assert launch(*way, "policy=normal", *TINY).code == 0
        assert not checkpoint.exists() and not cascade.exists()
        assert folder.trained and result.stat().st_mtime_ns == before


def test_a_base_that_is_only_started_from_is_cleared_too(launch: Callable[..., Outcome]) -> None:
    line = ("-m", "policy=bn_stats", *TINY)
    assert launch(*line).code == 0
    base = folder_of("normal").path
    checkpoint = Path(shutil.copy2(base / "model.safetensors", base / "checkpoint.safetensors"))
    assert launch(*line).code == 0
    assert not checkpoint.exists()


def test_the_state_of_an_evaluation_that_is_done_again_is_kept(tmp_path: Path) -> None:
    """Its result is there already, but damaged; a state that is newer belongs to the evaluation that replaces it."""
    folder = RunFolder(tmp_path)
    files.write_json(tmp_path / "evaluation" / "pgd-0" / "result.json", {})
    result = tmp_path / "evaluation" / "pgd-0" / "result.json"
    cascade = Path(shutil.copy2(result, result.with_name("cascade.safetensors")))
    assert folder.outdated() == [cascade]
    os.utime(cascade, ns=(0, result.stat().st_mtime_ns + 1))
    assert folder.outdated() == []


# a folder that is removed while its run goes on

REMOVED = "was removed during its run; the same command makes it again"


def run_of(folder: Path, name: str) -> Path:
    """The folder of the run whose attack has this name."""
    configs = (folder / "multirun").glob("*/config.yaml")
    return next((file.parent for file in configs if files.read_yaml(file)["attack"]["name"] == name), folder / "none")


def test_a_run_whose_folder_is_removed_fails_and_can_be_made_again(
    tmp_path: Path, launch: Callable[..., Outcome]
) -> None:
    line = ("-m", "policy=adv", *TINY, "attack._target_=mischief.attack", "+attack.name=whole,content,rest")
    for name in ("whole", "content"):
        mischief.make(tmp_path, name, "sleep 0.3")
    process = start(tmp_path, *line, "hydra.launcher.workers=3")
    until(lambda: all((tmp_path / "mischief" / f"{name}-sleeps").exists() for name in ("whole", "content")), process)
    whole, content, rest = (run_of(tmp_path, name) for name in ("whole", "content", "rest"))
    shutil.rmtree(whole)
    for entry in content.iterdir():
        entry.unlink()
    _, err = finish(process, code=1)
    store = Path("multirun")
    for run_folder in (whole, content):
        assert f"failed: {run_folder.name}: {store / run_folder.name}: {REMOVED}\n" in err
        assert not run_folder.exists() or not list(run_folder.iterdir())
    assert err.splitlines()[-1] == "2 of 3 runs failed; the same command tries them again"
    assert "Traceback" not in err
    assert statuses(tmp_path)[rest.name]["state"] == "done"
    mischief.unmake(tmp_path)
    assert launch(*line, "hydra/launcher=basic").code == 0
    assert [status["state"] for status in statuses(tmp_path).values()] == ["done"] * 3


@pytest.mark.parametrize("moment", ["before", "while written", "after"])
def test_a_file_does_not_bring_back_a_folder_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    files.write_json(folder.path / "config.yaml", {})
    owner, file = folder.path / "config.yaml", folder.path / "evaluation" / "pgd-0" / "result.json"

    def remove(function: Callable[..., object]) -> Callable[..., object]:
        def removing(*arguments: object) -> object:
            result = function(*arguments)
            shutil.rmtree(folder.path)
            if moment == "after":
                file.parent.mkdir(parents=True)
                file.touch()
            return result

        return removing

    if moment == "before":
        shutil.rmtree(folder.path)
    else:
        name = {"while written": "fsync", "after": "replace"}[moment]
        monkeypatch.setattr(os, name, remove(getattr(os, name)))
    with pytest.raises(InputError) as refusal:
        files.write(file, b"{}", owner)
    assert str(refusal.value) == f"{folder.path}: {REMOVED}"
    assert not folder.path.exists()
    with pytest.raises(InputError, match=REMOVED):
        Tracking().save(folder)
    assert not folder.path.exists()

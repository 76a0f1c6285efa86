"""Compare bnft's attacks with those of other packages: verdicts image by image, passes, and seconds as ratios.

    python benchmarks/evaluation.py                          # trains ADV on the digits first; about five minutes
    python benchmarks/evaluation.py --run multirun/adv-...   # an existing run; --images, --batch, --rounds, --only
    python benchmarks/evaluation.py --store multirun         # quick against the AutoAttack results in a store

Without --store, each attack has its turn in each round, and a line is printed after each. pyautoattack is called as its
documentation does (`run_standard_evaluation`, all threads). torchattacks and adv-lib take part if they are installed.
Verdicts are compared with those of pyautoattack. `missed` images are broken by pyautoattack only, `extra` images by the
other attack only.

With --store, nothing else is run: quick attacks the images of every finished AutoAttack evaluation, and the table shows
which of AutoAttack's errors it misses. The passes of AutoAttack are those in its results.
"""

import argparse
import copy
import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measuring import hardware, print_table, seconds
from omegaconf import OmegaConf
from torch import nn

from bnft import models
from bnft.common import files
from bnft.common.devices import available_threads, choose
from bnft.config import build
from bnft.data.dataset import Dataset
from bnft.evaluation.evaluate import evaluate
from bnft.evaluation.passes import counted
from bnft.evaluation.settings import STANDS, Evaluation
from bnft.evaluation.summary import Passes

LAUNCH = Path(__file__).resolve().parent.parent / "launch.py"
REFERENCE = "pyautoattack"


class Silent:
    """A watcher that does nothing."""

    def attacked(self, *_: object) -> None: ...

    def pulse(self) -> None: ...


@dataclass
class Case:
    """What all attacks are given: the model as built and as bnft places it, images, labels and settings."""

    plain: nn.Module
    model: nn.Module
    data: Dataset
    config: Evaluation
    threads: int

    @property
    def images(self) -> torch.Tensor:
        return self.data.test[0][: self.config.n_images]

    @property
    def labels(self) -> torch.Tensor:
        return self.data.test[1][: self.config.n_images]


Verdicts = tuple[torch.Tensor, Passes]
"""Which images are robust (n,), and the passes that this took."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="compare quick with the AutoAttack results in this store")
    parser.add_argument("--run", type=Path, help="the folder of a run (default: train ADV on the digits)")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--only", nargs="*", help="parts of the names of the attacks to run, beside pyautoattack")
    parser.add_argument("--trial", action="store_true", help="few images and only the first attack, to test the script")
    options = parser.parse_args()
    print("\n".join(hardware()), flush=True)
    if options.store is not None:
        against_store(options.store)
        return
    with tempfile.TemporaryDirectory() as folder:
        model, data, config = loaded(options.run or trained(Path(folder)))
    config = Evaluation("autoattack", config.norm, config.eps, options.images, options.batch, version="standard")
    if options.trial:
        config = replace(config, version="custom", attacks=["apgd-ce"], n_images=20, batch_size=10)
    placed = choose("cpu", "fp32", options.threads)
    placed.settle()
    case = Case(copy.deepcopy(model).eval(), placed.place(model).eval(), data, config, options.threads)
    print(f"{config.n_images} images, {config.norm} eps {config.eps:.4g}, batches of {config.batch_size}\n", flush=True)
    compare(case, options.rounds, options.only)


def compare(case: Case, rounds: int, only: list[str] | None) -> None:
    """Run all attacks in turn, print a line for each, and finally a table."""
    attacks = {
        name: attack
        for name, attack in candidates(case).items()
        if name == REFERENCE or only is None or any(part in name for part in only)
    }
    times: dict[str, list[float]] = {name: [] for name in attacks}
    verdicts: dict[str, Verdicts] = {}
    for round_ in range(rounds):
        for name, attack in attacks.items():

            def once(name: str = name, attack: Callable[[], Verdicts] = attack) -> None:
                verdicts[name] = attack()

            print(f"round {round_ + 1}: {name} begins", flush=True)
            times[name].append(seconds(once))
            errors = int((~verdicts[name][0]).sum())
            print(f"round {round_ + 1}: {name}: {errors} errors, {times[name][-1]:.1f} s", flush=True)
    rows = []
    reference, cost = verdicts[REFERENCE]
    for name, (robust, passes) in verdicts.items():
        fractions = [ours / theirs for ours, theirs in zip(times[name], times[REFERENCE], strict=True)]
        rows.append(
            [
                name,
                f"{median(times[name]):.1f}",
                f"1/{1 / median(fractions):.1f}",
                passes.forward,
                passes.backward,
                f"1/{weight(cost) / weight(passes):.1f}" if weight(passes) else "-",
                int((~robust).sum()),
                int((robust & ~reference).sum()),
                int((~robust & reference).sum()),
            ]
        )
    print()
    print_table(["attack", "seconds", "time", "forward", "backward", "passes", "errors", "missed", "extra"], rows)
    print("Time and passes are fractions of pyautoattack's. A backward pass counts as two forward passes.")
    print("Missed are images that only pyautoattack broke. Extra are those that only the other attack broke.")


def candidates(case: Case) -> dict[str, Callable[[], Verdicts]]:
    """Return the attacks by name."""
    config = case.config

    def ours(settings: Evaluation, processes: int) -> Callable[[], Verdicts]:
        def attack() -> Verdicts:
            outcomes, summary = evaluate(case.model, *case.data.test, settings, Silent(), processes=processes)
            return outcomes.fallen_at == STANDS, summary.passes or Passes()

        return attack

    quick = replace(config, attack="quick", version=None, attacks=None, restarts=1)
    result = {REFERENCE: lambda: with_pyautoattack(case), "bnft AutoAttack, 1 process": ours(config, 1)}
    if case.threads > 1:
        result[f"bnft AutoAttack, {case.threads} processes"] = ours(config, case.threads)
    result["bnft quick"] = ours(quick, case.threads)
    result["bnft PGD-40"] = ours(replace(quick, attack="pgd", iterations=40, step_size=config.eps / 4), case.threads)
    if importable("torchattacks"):
        result["torchattacks AutoAttack"] = lambda: with_torchattacks(case)
    if importable("adv_lib.attacks"):
        result["adv-lib APGD-CE and targeted APGD, 3 targets"] = lambda: with_adv_lib(case)
    return result


def importable(package: str) -> bool:
    """Return whether a package can be imported. If it is installed and cannot, say why."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        if importlib.util.find_spec(package.partition(".")[0]):
            print(f"{package} is left out: {error}", flush=True)
        return False
    return True


def with_pyautoattack(case: Case) -> Verdicts:
    from pyautoattack import AutoAttack

    config = case.config
    official = AutoAttack(
        case.plain, norm=config.norm, eps=config.eps, seed=config.seed, version=config.version, attacks=config.attacks
    )
    official.verbose = False
    with counted(case.plain) as counter:
        adversarial, _ = official.run_standard_evaluation(case.images, case.labels, batch_size=config.batch_size)
        passes = counter.take()
    return robust(case, adversarial), passes


def with_torchattacks(case: Case) -> Verdicts:
    import torchattacks

    config = case.config
    attack = torchattacks.AutoAttack(case.plain, norm=config.norm, eps=config.eps, seed=config.seed, n_classes=10)
    with counted(case.plain) as counter:
        batches = zip(case.images.split(config.batch_size), case.labels.split(config.batch_size), strict=True)
        adversarial = torch.cat([attack(images, labels) for images, labels in batches])
        passes = counter.take()
    return robust(case, adversarial), passes


def with_adv_lib(case: Case) -> Verdicts:
    from adv_lib.attacks import apgd, apgd_targeted

    norm = float("inf") if case.config.norm == "Linf" else 2.0
    with counted(case.plain) as counter:
        adversarial = apgd(case.plain, case.images, case.labels, case.config.eps, norm, loss_function="ce")
        left = robust(case, adversarial)
        if bool(left.any()):
            adversarial[left] = apgd_targeted(
                case.plain, case.images[left], case.labels[left], case.config.eps, norm, num_targets=3
            )
        passes = counter.take()
    return robust(case, adversarial), passes


@torch.no_grad()
def robust(case: Case, adversarial: torch.Tensor) -> torch.Tensor:
    """Return which images are classified correctly, of those that an attack returned."""
    return case.plain(adversarial).argmax(1) == case.labels


def against_store(store: Path) -> None:
    """Attack the images of every AutoAttack result in a store by quick, and compare the verdicts."""
    placed = choose("cpu", "fp32", available_threads())
    placed.settle()
    rows, total = [], [0, 0, 0, 0]
    known, spent = 0.0, 0.0
    for file in sorted(store.glob("*/evaluation/autoattack-*/result.json")):
        run, kept = file.parents[2], json.loads(file.read_text())
        if kept["evaluation"].get("version") != "standard" or not (run / "model.safetensors").exists():
            continue
        model, data, config = loaded(run, kept["evaluation"])
        fallen_at = torch.from_numpy(files.read_arrays(file.parent / "outcomes.safetensors", ())["fallen_at"])
        quick = replace(config, attack="quick", version=None, attacks=None, then=None, restarts=1)
        outcomes, summary = evaluate(placed.place(model).eval(), *data.test, quick, Silent(), processes=1)
        broken, ours = fallen_at != STANDS, outcomes.fallen_at != STANDS
        counts = [len(broken), int(broken.sum()), int((broken & ~ours).sum()), int((~broken & ours).sum())]
        total = [sum(both) for both in zip(total, counts, strict=True)]
        fraction, passes = "-", summary.passes or Passes()
        if kept.get("passes"):
            cost = weight(Passes(**kept["passes"]))
            known, spent = known + cost, spent + weight(passes)
            fraction = f"1/{cost / weight(passes):.1f}"
        rows.append([run.name, *counts, round(weight(passes) / len(broken)), fraction])
        print(" ".join(map(str, rows[-1])), flush=True)
    print()
    rows.append(["all", *total, "", f"1/{known / spent:.1f}" if spent else "-"])
    print_table(
        ["run", "images", "AutoAttack's errors", "missed", "extra", "passes per image", "of AutoAttack's"], rows
    )


def weight(passes: Passes) -> float:
    """Return the passes as forward passes. A backward pass costs about as much as two of them."""
    return passes.forward + 2 * passes.backward


def trained(store: Path) -> Path:
    """Train ADV on the digits in a store of its own, and return the folder of the run."""
    command = [sys.executable, str(LAUNCH), "policy=adv", "evaluation=quick", f"store={store}", "wandb.mode=disabled"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(path for path in store.glob("adv-*") if path.is_dir())


def loaded(run: Path, evaluation: dict[str, Any] | None = None) -> tuple[nn.Module, Dataset, Evaluation]:
    """Load the model and the data of a run, and the settings of an evaluation, or of the configured one."""
    kept: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    config = kept.get("config", kept)
    data = build.dataset(config)
    model = build.model(config, data)
    models.restore(model, files.read_tensors(run / "model.safetensors")[0])
    settings = evaluation or config["evaluation"]
    return model, data, Evaluation(**{name: value for name, value in settings.items() if name not in ("id", "search")})


if __name__ == "__main__":
    main()

"""Compare bnft's AutoAttack with plain pyautoattack, on the same model, images, seed and batches.

    python benchmarks/autoattack.py                          # trains ADV on the digits first; about five minutes
    python benchmarks/autoattack.py --run multirun/adv-...   # an existing run; --batch, --images, --repeats

Plain pyautoattack calls `run_standard_evaluation` on the original model, with all threads. bnft attacks the folded view
of the model, and distributes batches over as many processes as there are threads. If --batch is as large as --images,
there is only one batch to distribute. The outcomes are compared for each image. Images with another outcome, because of
rounding, are listed.
"""

import argparse
import copy
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measuring import alternate, hardware, print_table, ratios, spread
from omegaconf import OmegaConf
from pyautoattack import AutoAttack
from torch import nn

from bnft.common import files
from bnft.common.devices import available_threads, choose
from bnft.config import build
from bnft.data.dataset import Dataset
from bnft.evaluation.evaluate import evaluate
from bnft.evaluation.settings import STANDS, Evaluation

LAUNCH = Path(__file__).resolve().parent.parent / "launch.py"


class Silent:
    """A watcher that does nothing."""

    def attacked(self, *_: object) -> None: ...

    def pulse(self) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="the folder of a run (default: train ADV on the digits)")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--quick", action="store_true", help="only APGD on few images, for a test of the script")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, data, config = loaded(options.run or trained(Path(folder)))
    config = replace(config, attack="autoattack", version="standard", attacks=None, search=None)
    config = replace(config, n_images=options.images, batch_size=options.batch)
    if options.quick:
        config = replace(config, version="custom", attacks=["apgd-ce"], n_images=20, batch_size=10)
    compare(model, data, config, options.repeats, options.threads)


def compare(model: nn.Module, data: Dataset, config: Evaluation, repeats: int, threads: int) -> None:
    hardware_ = choose("cpu", "fp32", threads)
    hardware_.settle()
    plain, ours = copy.deepcopy(model).eval(), hardware_.place(model).eval()
    images, labels = data.pixels(data.x_test[: config.n_images]), data.y_test[: config.n_images]
    robust: dict[str, torch.Tensor] = {}

    def plainly() -> None:
        standard = config.version == "standard"
        official = AutoAttack(
            plain,
            norm=config.norm,
            eps=config.eps,
            seed=config.seed,
            version=config.version,
            attacks=None if standard else config.attacks,
        )
        official.verbose = False
        adversarial, _ = official.run_standard_evaluation(images, labels, batch_size=config.batch_size)
        with torch.no_grad():
            robust["pyautoattack"] = plain(adversarial).argmax(1) == labels

    def with_processes(processes: int) -> None:
        outcomes, _ = evaluate(ours, *data.test, config, Silent(), processes=processes)
        robust[f"ours, {processes} processes"] = outcomes.fallen_at == STANDS

    candidates = {"pyautoattack": plainly, "ours, 1 processes": lambda: with_processes(1)}
    if threads > 1:
        candidates[f"ours, {threads} processes"] = lambda: with_processes(threads)
    times = alternate(candidates, repeats)
    print("\n".join(hardware()))
    batches = f"batches of {config.batch_size}, {repeats} rounds"
    print(f"{config.n_images} images, {config.norm} eps {config.eps:.4g}, {batches}\n")
    plain_robust, rows = robust["pyautoattack"], []
    for name, seconds in times.items():
        flipped = (robust[name] != plain_robust).nonzero().flatten().tolist()
        gain = spread(ratios({name: times["pyautoattack"], "this": seconds}, "this")[name])
        errors = int((~robust[name]).sum())
        rows.append([name, f"{sorted(seconds)[len(seconds) // 2]:.1f}", gain, errors, flipped or "none"])
    print_table(["", "seconds", "speed-up", "robust errors", "images with another verdict"], rows)


def trained(store: Path) -> Path:
    """Train ADV on the digits in a store of its own, and return the folder of the run."""
    command = [sys.executable, str(LAUNCH), "policy=adv", "evaluation=pgd", f"store={store}", "wandb.mode=disabled"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(path for path in store.glob("adv-*") if path.is_dir())


def loaded(run: Path) -> tuple[nn.Module, Dataset, Evaluation]:
    """Load the model, the data and the settings of the evaluation of a run."""
    kept: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    config = kept.get("config", kept)
    data = build.dataset(config)
    model = build.model(config, data)
    model.load_state_dict(files.read_tensors(run / "model.safetensors")[0])
    return model, data, build.evaluation(config)


if __name__ == "__main__":
    main()

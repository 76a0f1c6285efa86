"""Measure PGD-10 training and AutoAttack of the paper's network on a GPU, and estimate the time of all of Table 2.

    python benchmarks/gpu.py --out gpu.json              # one CUDA GPU, no network, less than ten minutes
    python benchmarks/gpu.py --data cifar10.npz          # on images of a file (x_train, y_train, x_test, y_test)
    python benchmarks/gpu.py --cpu --quick               # toy size, seconds, for a test of the script; do not quote it

Training is that of ADV: ResNet-20 of width 64, PGD-10 in Linf (eps 8/255, random start), then SGD with Nesterov's
momentum.

- "eager loop" is an optimised plain loop: bf16 autocast, channels_last, the fastest kernels that cuDNN finds, and no
  reads from the GPU. It trains on the last iterate of PGD.
- "ours" is `bnft.training.train`, with and without the attack as a CUDA graph. The middle of training is timed. It
  keeps the worst iterate, which costs one more forward pass, and uses deterministic kernels only.
- "compiled loop" is the eager loop with `torch.compile` of the model. The compilation is not timed.

Without `--data`, images are random: smooth colours that depend on the class, with noise. Half of the test labels are
replaced by random ones, so that about as many images are robust as for a model trained on CIFAR-10.

If a part fails or has no time left, it prints one line, and the other parts continue.
"""

import argparse
import json
import platform
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from bnft import models
from bnft.attacks import cuda_graphs
from bnft.attacks.pgd import pgd
from bnft.batchnorm.freezing import Freezing
from bnft.common import devices
from bnft.common.devices import Hardware
from bnft.data import npz
from bnft.data.augmentation import autoaugment, crop_flip
from bnft.data.dataset import Arrays, Dataset, prepare
from bnft.evaluation.evaluate import evaluate
from bnft.evaluation.settings import Evaluation
from bnft.models.resnet import ResNet
from bnft.training import step as training_step
from bnft.training.loop import train
from bnft.training.recipe import Recipe
from bnft.training.shapes import one_cycle
from bnft.training.state import TrainingState

EPS, STEP_SIZE = 8 / 255, 0.007
CLASSES, EPOCH = 10, 50_000
ADVERSARIAL_EPOCHS, CLEAN_EPOCHS, ROWS = 3 * 150 + 3 * 30 + 2 * 5, 3 * 150, 11  # in Table 2; see conf/policy
EAGER, PLAIN, GRAPH, COMPILED = "eager loop", "ours, no graph", "ours", "compiled loop"


@dataclass(frozen=True)
class Size:
    """The sizes of the measurements."""

    width: int = 64
    blocks: tuple[int, ...] = (3, 3, 3)
    batches: tuple[int, ...] = (128, 512, 1024)
    iterations: int = 10
    images: int = EPOCH
    attacked: int = 1000
    attack_batch: int = 250
    version: dict[str, Any] | None = None  # of AutoAttack; the default is the standard version
    window: float = 5.0  # seconds for which a loop is timed
    copied: int = 2**30  # bytes
    multiplied: int = 8192


QUICK = Size(
    width=8,
    blocks=(1, 1),
    batches=(16,),
    iterations=2,
    images=256,
    attacked=16,
    attack_batch=8,
    version={"version": "custom", "attacks": ["apgd-ce"]},
    window=0.2,
    copied=2**20,
    multiplied=128,
)


class TimeUp(BaseException):
    """The time of a part is over. It is not an Exception, because libraries catch these."""


class Enough(Exception):  # noqa: N818 - nothing went wrong
    """A training has been timed for long enough."""


class Parts:
    """Runs the parts of the benchmark within their time limits, and keeps their results."""

    def __init__(self, seconds: float, out: Path | None) -> None:
        self.ends, self.out = time.monotonic() + seconds, out
        self.results: dict[str, Any] = {}

    def left(self) -> float:
        return self.ends - time.monotonic()

    def run(self, name: str, part: Callable[[], Any], limit: float = 1e9, least: float = 0.0) -> Any:
        """Run a part and return its result.

        Returns None if the part fails or takes longer than `limit` seconds, or if less than `least` seconds are left.
        """
        limit, began = min(limit, self.left()), time.monotonic()
        if limit <= least:
            print(f"{name}: left out, no time", flush=True)
            return None
        try:
            with _alarm(limit):
                result = part()
        except TimeUp:
            print(f"{name}: ended after {limit:.0f} s", flush=True)
            return None
        except Exception as error:
            print(f"{name}: failed, {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", flush=True)
            self.results[name] = {"error": str(error)}
            self.keep()
            return None
        print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
        self.results[name] = result
        self.keep()
        return result

    def keep(self) -> None:
        if self.out is not None:
            self.out.write_text(json.dumps(self.results, indent=1) + "\n")


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def up(*_: object) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Machine:
    """The device, the hardware that a run would choose on it, and the data on it."""

    def __init__(self, size: Size, cpu: bool, data: Path | None) -> None:
        self.size = size
        self.hardware = devices.choose("cpu" if cpu else "cuda", "auto", 1 if cpu else None)  # enough for a toy size
        self.hardware.settle()
        self.device = self.hardware.device
        self.dataset = (from_file(data, size) if data else made_up(size)).to(self.device)

    def wait(self) -> float:
        """Wait for the device, and return the time."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def model(self) -> nn.Module:
        build = partial(ResNet, self.dataset.channels, CLASSES, self.size.width, list(self.size.blocks))
        return self.hardware.place(models.build(build, self.dataset.mean, self.dataset.std, seed=0))

    def recipe(self, batch: int) -> Recipe:
        return Recipe(
            epochs=1,
            batch_size=batch,
            lr=0.05,
            shape=one_cycle,
            momentum=0.9,
            nesterov=True,
            weight_decay=5e-4,
            augmentation=crop_flip,
            attack=partial(pgd, eps=EPS, step_size=STEP_SIZE, iterations=self.size.iterations),
            attack_mode="eval",
            seed=0,
        )


# data


def from_file(path: Path, size: Size) -> Dataset:
    arrays = npz.load(str(path))
    kept = {name: getattr(arrays, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    return prepare(Arrays(**{name: value[: size.images] for name, value in kept.items()}), CLASSES)


def made_up(size: Size) -> Dataset:
    """Make random images of the shape of CIFAR-10 that can be learnt. Half of the test labels are random."""
    random = torch.Generator().manual_seed(0)
    templates = smooth(CLASSES, random)
    images, labels = [], []
    for count in (size.images, max(size.attacked, 16)):
        truth = torch.randint(CLASSES, (count,), generator=random)
        parts = []
        for part in truth.split(5000):
            noise = 0.05 * torch.randn(len(part), 3, 32, 32, generator=random)
            image = (templates[part] + smooth(len(part), random)) / 2 + noise
            parts.append((255 * image.clamp(0, 1)).to(torch.uint8))
        images.append(torch.cat(parts).permute(0, 2, 3, 1).numpy())
        labels.append(truth)
    other = torch.randint(CLASSES, labels[1].shape, generator=random)
    tested = torch.where(torch.rand(len(other), generator=random) < 0.5, other, labels[1])
    return prepare(Arrays(images[0], labels[0].numpy(), images[1], tested.numpy()), CLASSES)


def smooth(count: int, random: torch.Generator) -> torch.Tensor:
    return functional.interpolate(torch.rand(count, 3, 4, 4, generator=random), size=(32, 32), mode="bilinear")


# the device


def about(machine: Machine) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "device": machine.hardware.describe(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    if machine.device.type == "cuda":
        properties = torch.cuda.get_device_properties(machine.device)
        facts["memory GiB"] = round(properties.total_memory / 2**30, 1)
        facts["multiprocessors"] = properties.multi_processor_count
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    return facts


def roofline(machine: Machine) -> dict[str, float]:
    """Measure the bandwidth of a large copy (reads and writes), and the rate of a large matrix product in bf16."""
    size = machine.size
    source = torch.zeros(size.copied, dtype=torch.uint8, device=machine.device)
    target, n = torch.empty_like(source), size.multiplied
    left, right = (torch.randn(n, n, device=machine.device, dtype=torch.bfloat16) for _ in range(2))
    rates = {
        "copy GB/s": 2 * size.copied / best(machine, lambda: target.copy_(source)) / 1e9,
        "bf16 matmul TFLOP/s": 2 * n**3 / best(machine, lambda: left @ right) / 1e12,
    }
    print(", ".join(f"{name} {value:.0f}" for name, value in rates.items()), flush=True)
    return rates


def best(machine: Machine, work: Callable[[], object], calls: int = 10, rounds: int = 5) -> float:
    """Return the seconds of one call, in the fastest round."""
    times = []
    for _ in range(rounds):
        began = machine.wait()
        for _ in range(calls):
            work()
        times.append((machine.wait() - began) / calls)
    return min(times)


def flops(size: Size) -> float:
    """Count the floating-point operations to train on one image, for the attack and the update."""
    with torch.device("meta"):
        model, image = ResNet(3, CLASSES, size.width, list(size.blocks)), torch.empty(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return float(counter.get_total_flops()) * (2 * size.iterations + 1 + 3)


# training


class Watch:
    """A keeper of `train` that times a loop after `warm` steps, and then ends it."""

    def __init__(self, machine: Machine, warm: int = 5) -> None:
        self.machine, self.warm, self.steps, self.began, self.each = machine, warm, 0, 0.0, 0.0

    def stepped(self, *_: object) -> None:
        self.steps += 1
        if self.steps == self.warm:
            self.began = self.machine.wait()
        elif self.steps > self.warm and time.perf_counter() - self.began >= self.machine.size.window:
            self.each = (self.machine.wait() - self.began) / (self.steps - self.warm)
            raise Enough

    def save(self, *_: object) -> None: ...

    def pulse(self) -> None: ...


def timed(machine: Machine, batch: int, loop: Callable[[Watch], dict[str, Any]]) -> dict[str, Any]:
    """Time a loop. Returns the measurements and the notes of the loop."""
    watch = Watch(machine)
    if machine.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    notes = loop(watch)
    rate = batch / watch.each
    result = {"images/s": rate, "epoch seconds": EPOCH / rate, "TFLOP/s": rate * flops(machine.size) / 1e12, **notes}
    if machine.device.type == "cuda":
        result["memory GiB"] = torch.cuda.max_memory_reserved() / 2**30
    return result


def ours(machine: Machine, batch: int, graph: bool, watch: Watch) -> dict[str, Any]:
    """Run `bnft.training.train` until `watch` ends it."""
    model, captured = machine.model(), []

    def seen(*arguments: Any) -> Any:
        captured.append(cuda_graphs.attack_graph(*arguments) if graph else None)
        return captured[-1]

    with (
        mock.patch.object(training_step, "attack_graph", seen),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always", RuntimeWarning)
        try:
            recipe = replace(machine.recipe(batch), epochs=1000)
            train(model, Freezing(model, ["all"], "update"), machine.dataset, recipe, machine.hardware, watch)
        except Enough:
            pass
    notes = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
    return {"graph": captured[0] is not None, **({"notes": notes} if notes else {})}


def eager(machine: Machine, batch: int, compiled: bool, watch: Watch) -> dict[str, Any]:
    """Run a plain training loop until `watch` ends it."""
    model, data = machine.model(), machine.dataset
    net: nn.Module = torch.compile(model) if compiled else model  # type: ignore[assignment]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True)
    try:
        with flags:
            while True:
                order = torch.randperm(len(data.x_train), device=machine.device)
                for part in order.split(batch)[: len(order) // batch]:
                    images = data.pixels(data.x_train[part]).contiguous(memory_format=torch.channels_last)
                    eager_step(net, optimizer, images, data.y_train[part], machine.hardware, machine.size.iterations)
                    watch.stepped()
    except Enough:
        return {}


def eager_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    hardware: Hardware,
    iterations: int,
) -> None:
    model.eval()
    adversarial = (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(iterations):
        adversarial.requires_grad_()
        with hardware.autocast():
            loss = functional.cross_entropy(model(adversarial), labels)
        (gradient,) = torch.autograd.grad(loss, adversarial)
        adversarial = adversarial.detach() + STEP_SIZE * gradient.sign()
        adversarial = torch.min(torch.max(adversarial, images - EPS), images + EPS).clamp(0, 1)
    model.train()
    with hardware.autocast():
        loss = functional.cross_entropy(model(adversarial), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


class Silent:
    """A keeper that does nothing."""

    def save(self, *_: object) -> None: ...

    def stepped(self, *_: object) -> None: ...

    def pulse(self) -> None: ...


def whole_epoch(machine: Machine, model: nn.Module, recipe: Recipe) -> dict[str, Any]:
    """Time a whole epoch, including augmentation and its end. The times are for 50,000 images."""
    began = machine.wait()
    progress: TrainingState = train(
        model, Freezing(model, ["all"], "update"), machine.dataset, recipe, machine.hardware, Silent()
    )
    seconds = machine.wait() - began  # includes the capture of the graph, which happens once per training
    line = progress.history[-1]
    scale = EPOCH / line["images"]
    return {"epoch seconds": scale * line["seconds"], "with preparation": scale * seconds, "error": line["error"]}


# evaluation


class Followed:
    """A watcher that keeps the progress of an evaluation, which is printed if the evaluation is ended."""

    def __init__(self) -> None:
        self.stages: dict[str, Any] = {}

    def attacked(self, cascade: Any, attacks: Any) -> None:
        names = [attack.name for attack in attacks]
        self.stages = {
            "seconds by attack": {name: round(each, 2) for name, each in zip(names, cascade.seconds, strict=False)},
            "standing": cascade.standing,
        }

    def pulse(self) -> None: ...


def autoattack(machine: Machine, model: nn.Module) -> dict[str, Any]:
    size, version = machine.size, machine.size.version or {"version": "standard"}
    config = Evaluation(
        attack="autoattack", norm="Linf", eps=EPS, n_images=size.attacked, batch_size=size.attack_batch, **version
    )
    watcher, began = Followed(), machine.wait()
    try:
        _, summary = evaluate(model.eval(), *machine.dataset.test, config, watcher)
    except TimeUp:
        print(f"AutoAttack was ended: {json.dumps(watcher.stages)}", flush=True)
        raise
    return {
        "seconds": machine.wait() - began,
        "images": size.attacked,
        "clean error": summary.clean.error,
        "robust error": summary.robust.error,
        "seconds by attack": {step.attack: step.seconds for step in summary.cascade},
        "warnings": summary.warnings,
    }


# all parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=540, help="time limit of the benchmark (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="a file for the numbers, as JSON")
    parser.add_argument("--data", type=Path, metavar="FILE.npz", help="32x32 colour images, as for data=npz")
    parser.add_argument("--cpu", action="store_true", help="use no GPU")
    parser.add_argument("--quick", action="store_true", help="toy size")
    options = parser.parse_args()
    parts = Parts(options.seconds, options.out)
    if not options.cpu and not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU was found; --cpu --quick tests the script without one")
    machine = Machine(QUICK if options.quick else Size(), options.cpu, options.data)
    parts.run("hardware", lambda: about(machine))
    parts.run("roofline", lambda: roofline(machine), limit=60)
    for batch in machine.size.batches:
        candidates: dict[str, Callable[[Watch], dict[str, Any]]] = {
            EAGER: partial(eager, machine, batch, False),
            PLAIN: partial(ours, machine, batch, False),
            GRAPH: partial(ours, machine, batch, True),
        }
        for name, loop in candidates.items():
            parts.run(f"{name}, {batch}", partial(timed, machine, batch, loop), limit=60)
    model = machine.model()
    first = machine.recipe(machine.size.batches[0])
    clean = replace(first, attack=None, augmentation=autoaugment)
    parts.run("clean epoch", lambda: whole_epoch(machine, machine.model(), clean), limit=60)
    if parts.run("adversarial epoch", lambda: whole_epoch(machine, model, first), limit=90) is not None:
        parts.run("AutoAttack", lambda: autoattack(machine, model), limit=240)
    if not options.quick:
        for batch in machine.size.batches:
            name, loop = f"{COMPILED}, {batch}", partial(eager, machine, batch, True)
            parts.run(name, partial(timed, machine, batch, loop), limit=120, least=40)
    report(parts, machine.size)
    parts.keep()


def report(parts: Parts, size: Size) -> None:
    """Print a Markdown table of training, AutoAttack and the estimate."""
    results = {name: value for name, value in parts.results.items() if "error" not in value or len(value) > 1}
    matmul = results.get("roofline", {}).get("bf16 matmul TFLOP/s")
    print("\n| batch | | images/s | seconds per epoch | times the eager loop | TFLOP/s | of matmul | GiB |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    for batch in size.batches:
        loops = {name: results.get(f"{name}, {batch}") for name in (EAGER, COMPILED, PLAIN, GRAPH)}
        for name, line in loops.items():
            if line is None:
                continue
            base = loops[EAGER]
            ratio = f"{line['images/s'] / base['images/s']:.2f}" if base else "-"
            share = f"{line['TFLOP/s'] / matmul:.0%}" if matmul else "-"
            memory = f"{line['memory GiB']:.1f}" if "memory GiB" in line else "-"
            label = f"{name} (no graph was captured)" if name == GRAPH and not line["graph"] else name
            cells = [f"{line['images/s']:.0f}", f"{line['epoch seconds']:.1f}", ratio, f"{line['TFLOP/s']:.2g}"]
            print(f"| {batch} | {label} | {' | '.join(cells)} | {share} | {memory} |")
    print()
    for name in ("clean epoch", "adversarial epoch"):
        if name in results:
            line = results[name]
            print(f"{name}: {line['epoch seconds']:.1f} s, {line['with preparation']:.1f} s including its preparation")
    if "AutoAttack" in results:
        line = results["AutoAttack"]
        stages = ", ".join(f"{each} {seconds:.1f}" for each, seconds in line["seconds by attack"].items())
        print(
            f"AutoAttack: {line['seconds']:.1f} s for {line['images']} images, clean error {line['clean error']:.1f} %,"
            f" robust error {line['robust error']:.1f} % ({stages})"
        )
    if all(name in results for name in ("clean epoch", "adversarial epoch", "AutoAttack")):
        training_seconds = (
            ADVERSARIAL_EPOCHS * results["adversarial epoch"]["epoch seconds"]
            + CLEAN_EPOCHS * results["clean epoch"]["epoch seconds"]
        )
        attacks = ROWS * results["AutoAttack"]["seconds"]
        hours = (training_seconds + attacks) / 3600
        parts.results["Table 2"] = {"training seconds": training_seconds, "AutoAttack seconds": attacks, "hours": hours}
        epochs = f"{ADVERSARIAL_EPOCHS} adversarial and {CLEAN_EPOCHS} clean epochs in {training_seconds / 3600:.1f} h"
        print(f"Table 2, one seed, one run at a time, by estimate: {hours:.1f} h")
        print(f"({epochs}, {ROWS} AutoAttacks in {attacks / 60:.0f} min)")


if __name__ == "__main__":
    main()

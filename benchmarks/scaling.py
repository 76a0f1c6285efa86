"""Measure how training time scales with width, batch size and PGD iterations, and a sweep with runs and workers.

    python benchmarks/scaling.py                   # a quarter of an hour on two CPU cores
    python benchmarks/scaling.py --only iterations # one of width, batch, iterations, sweep; can be given more than once
    python benchmarks/scaling.py --quick           # half a minute, for a test of the script; do not quote its numbers

Each table shows measured seconds (the median of rounds in which all sizes have their turn) beside the expected law,
fitted by least squares, and the deviation in percent:

- width: an epoch is proportional to the network's multiply-accumulates;
- batch: an epoch takes the same time for each batch size;
- iterations: a + b n, where a contains the update and the additional forward pass for keeping the worst iterate;
- sweep: start + t ceil(runs / workers). Its runs sleep for a second each (see `sweep_overhead.py`), so that the time
  depends on the launcher and not on the processor.

An epoch consists of `--images` images. Its steps are those of `training_step.py` with all parameters learning. The
other sizes in a table are fixed: `--width`, 128 images per batch, 10 iterations.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from measuring import alternate, hardware, print_table
from sweep_overhead import measured
from torch import nn
from training_step import images, network, ours

from bnft.common import devices
from bnft.common.devices import Hardware
from bnft.data.dataset import Dataset

BATCH, ITERATIONS = 128, 10
BLOCKS, QUICK_BLOCKS = (3, 3, 3), (1, 1, 1)
SIZES = {"width": (16, 32, 64), "batch": (32, 64, 128, 256), "iterations": (0, 1, 2, 5, 10, 20)}
QUICK_SIZES = {"width": (16, 32), "batch": (16, 32), "iterations": (0, 1, 2)}
RUNS, WORKERS = (1, 2, 4, 8), (1, 2)
TABLES = (*SIZES, "sweep")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TABLES, action="append", help="can be given more than once")
    parser.add_argument("--width", type=int, default=32, help="in tables of other sizes (default: %(default)s)")
    parser.add_argument("--images", type=int, default=256, help="images per epoch (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument("--quick", action="store_true", help="network 1-1-1, 32 images, one round, sweeps of two runs")
    options = parser.parse_args()
    if options.quick:
        options.width, options.images, options.repeats = 16, 32, 1
    machine = devices.choose("auto", "auto", options.threads)
    machine.settle()
    print("\n".join(hardware()))
    print(f"ours: {machine.describe()}\n", flush=True)
    for table in options.only or TABLES:
        if table == "sweep":
            sweeps((2,) if options.quick else RUNS, WORKERS, options.repeats, warm=not options.quick)
        else:
            training(table, options, machine)


def training(what: str, options: argparse.Namespace, machine: Hardware) -> None:
    """Print the table of width, batch or iterations."""
    data = images(None, options.images).to(machine.device)
    blocks = QUICK_BLOCKS if options.quick else BLOCKS
    usual = {"width": options.width, "batch": min(BATCH, options.images), "iterations": ITERATIONS}
    sizes = (QUICK_SIZES if options.quick else SIZES)[what]
    if what == "batch":
        sizes = tuple(size for size in sizes if options.images % size == 0)  # so that every epoch uses all images
    epochs = {str(size): epoch(data, blocks, machine, **{**usual, what: size}) for size in sizes}
    seconds = [statistics.median(each) for each in alternate(epochs, options.repeats).values()]
    fixed = ", ".join(f"{name} {value}" for name, value in usual.items() if name != what)
    print(f"An epoch of {options.images} images against {what} (network {'-'.join(map(str, blocks))}, {fixed})\n")
    if what == "width":
        counts = [multiply_accumulates(network(data, size, blocks), data) for size in sizes]
        line, (slope,) = fitted([counts], seconds)
        rows = [[size, f"{count / 1e6:,.1f}"] for size, count in zip(sizes, counts, strict=True)]
        header, law = ["width", "million multiply-accumulates an image"], f"{1e9 * slope:.3f} s a 1e9 of them"
    elif what == "batch":
        line, (level,) = fitted([[1.0] * len(sizes)], seconds)
        rows, header, law = [[size] for size in sizes], ["batch"], f"{1000 * level / options.images:.3f} ms an image"
    else:
        line, (start, slope) = fitted([[1.0] * len(sizes), sizes], seconds)
        rows, header, law = [[size] for size in sizes], ["iterations"], f"{start:.3f} s + {slope:.3f} s an iteration"
    print_lines(header, rows, seconds, line, law)


def epoch(
    data: Dataset, blocks: tuple[int, ...], machine: Hardware, width: int, batch: int, iterations: int
) -> Callable[[], None]:
    """Return all steps of an epoch as one candidate."""
    step = ours(network(data, width, blocks), "all", data, batch, iterations, machine)

    def steps() -> None:
        for _ in range(len(data.x_train) // batch):
            step()

    return steps


def sweeps(runs: Sequence[int], workers: Sequence[int], repeats: int, warm: bool) -> None:
    """Print the table of whole sweeps, timed from the start of Python to the table at the end."""
    sizes = [(count, at_once) for at_once in workers for count in runs]
    print(f"A sweep of one-second runs against runs and workers (repeats: {repeats})\n")
    flags = ["hydra/launcher=local"]
    candidates = {
        f"{count}/{at_once}": partial(measured, count, [*flags, f"hydra.launcher.workers={at_once}"])
        for count, at_once in sizes
    }
    # Without a warm-up, only the first sweep reads programs from the disk.
    times = alternate(candidates, repeats) if warm else {name: [sweep()] for name, sweep in candidates.items()}
    seconds = [statistics.median(each) for each in times.values()]
    rounds = [math.ceil(count / at_once) for count, at_once in sizes]
    line, (start, each) = fitted([[1.0] * len(rounds), rounds], seconds)
    law = f"{start:.2f} s + {each:.2f} s x ceil(runs / workers)"
    print_lines(["runs", "workers"], [list(size) for size in sizes], seconds, line, law)


def multiply_accumulates(model: nn.Module, data: Dataset) -> int:
    """Count the multiply-accumulates of convolutions and linear layers in a forward pass of one image."""
    total = 0

    def count(layer: nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        weights = layer.get_parameter("weight")
        total += output[0].numel() * weights[0].numel()  # each output is a sum over one filter's weights

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        model.eval()(data.pixels(data.x_train[:1].cpu()))
    return total


def fitted(columns: Sequence[Sequence[float]], seconds: Sequence[float]) -> tuple[list[float], list[float]]:
    """Fit the seconds by a linear combination of the columns (least squares). Returns its values and coefficients."""
    matrix = np.array(columns, dtype=float).T
    coefficients = np.linalg.lstsq(matrix, np.array(seconds), rcond=None)[0]
    return (matrix @ coefficients).tolist(), coefficients.tolist()


def print_lines(
    header: list[str], rows: list[list[object]], seconds: Sequence[float], line: Sequence[float], law: str
) -> None:
    cells = [
        [*row, f"{measured_:.3f}", f"{fit:.3f}", f"{100 * (measured_ / fit - 1):+.1f}"]
        for row, measured_, fit in zip(rows, seconds, line, strict=True)
    ]
    print_table([*header, "measured s", f"line s: {law}", "deviation %"], cells)


if __name__ == "__main__":
    main()

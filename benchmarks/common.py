"""What the benchmarks share: the machine in words, candidates timed in turns, their ratios, and tables in Markdown.

Other work on a machine slows whatever runs meanwhile. So candidates are never timed one after the other, but in rounds
in which each has its turn, and they are compared round by round: what lasts longer than a round hits all of them alike.
"""

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from bnft.common.devices import available_threads, has_fast_bf16

PACKAGES = ("torch", "torchattacks", "adversarial-robustness-toolbox", "foolbox", "pyautoattack", "autoattack")

Times = dict[str, list[float]]
"""Seconds by candidate, one number a round."""


def hardware() -> list[str]:
    """Lines on the processor, its threads, whether it is fast at bf16, and the versions of what is compared."""
    cpu = torch.device("cpu")
    found = [f"{name} {number}" for name in PACKAGES if (number := _version(name))]
    lines = [
        f"CPU: {_cpu_model()}",
        f"threads: {torch.get_num_threads()} used by PyTorch, {available_threads()} available",
        f"fast bf16 (AMX or AVX512-BF16): {'yes' if has_fast_bf16(cpu) else 'no'}",
        f"Python {platform.python_version()}, {', '.join(found)}",
    ]
    if torch.cuda.is_available():
        gpu = torch.device("cuda")
        lines.insert(3, f"GPU: {torch.cuda.get_device_name()}, fast bf16: {'yes' if has_fast_bf16(gpu) else 'no'}")
    return lines


def alternate(candidates: dict[str, Callable[[], object]], repeats: int) -> Times:
    """Seconds of each candidate in each of `repeats` rounds, after one call of each that is not counted."""
    times: Times = {name: [] for name in candidates}
    for candidate in candidates.values():
        seconds(candidate)
    for round_ in range(repeats):
        # Every other round goes backwards, so that nobody always follows the same neighbour's caches and heat.
        for name in list(candidates)[:: -1 if round_ % 2 else 1]:
            times[name].append(seconds(candidates[name]))
    return times


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one call, until a GPU is done with it too."""
    _finish()
    began = time.perf_counter()
    work()
    _finish()
    return time.perf_counter() - began


def ratios(times: Times, ours: str) -> dict[str, tuple[float, float, float]]:
    """How many times as long as `ours` each candidate takes: median, smallest and largest of the rounds' ratios."""
    found = {}
    for name, theirs in times.items():
        each = [their / our for their, our in zip(theirs, times[ours], strict=True)]
        found[name] = (statistics.median(each), min(each), max(each))
    return found


def spread(ratio: tuple[float, float, float]) -> str:
    """A ratio in a table's cell: the median, and from smallest to largest in brackets."""
    median, low, high = ratio
    return f"{median:.2f} ({low:.2f}-{high:.2f})"


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A Markdown table, its first column to the left and the others, numbers, to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    print("\n".join(f"| {' | '.join(map(str, line))} |" for line in lines), end="\n\n", flush=True)


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

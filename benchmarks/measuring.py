"""Functions shared by the benchmarks: a description of the machine, timing in rounds, ratios, and Markdown tables.

Other work on a machine slows down a benchmark. Therefore candidates are timed in rounds, in which each has its turn,
and are compared within rounds. A disturbance that is longer than a round affects all candidates equally.
"""

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from bnft.common.devices import available_threads, has_fast_bf16

PACKAGES = (
    "torch",
    "torchattacks",
    "adversarial-robustness-toolbox",
    "foolbox",
    "pyautoattack",
    "autoattack",
    "adv-lib",
)

Times = dict[str, list[float]]
"""The seconds of each candidate, with one number per round."""


def hardware() -> list[str]:
    """Return lines about the processor, its threads, whether it has fast bf16, and the versions of packages."""
    cpu = torch.device("cpu")
    versions = [f"{name} {number}" for name in PACKAGES if (number := _version(name))]
    lines = [
        f"CPU: {_cpu_model()}",
        f"threads: {torch.get_num_threads()} used by PyTorch, {available_threads()} available",
        f"fast bf16 (AMX or AVX512-BF16): {'yes' if has_fast_bf16(cpu) else 'no'}",
        f"Python {platform.python_version()}, {', '.join(versions)}",
    ]
    if torch.cuda.is_available():
        gpu = torch.device("cuda")
        lines.insert(3, f"GPU: {torch.cuda.get_device_name()}, fast bf16: {'yes' if has_fast_bf16(gpu) else 'no'}")
    return lines


def alternate(candidates: Mapping[str, Callable[[], object]], repeats: int) -> Times:
    """Return the seconds of each candidate in each of `repeats` rounds. A first call of each is not counted."""
    times: Times = {name: [] for name in candidates}
    for candidate in candidates.values():
        seconds(candidate)
    for round_ in range(repeats):
        # Every other round is reversed, because caches and heat of a candidate affect the next one.
        for name in list(candidates)[:: -1 if round_ % 2 else 1]:
            times[name].append(seconds(candidates[name]))
    return times


def seconds(work: Callable[[], object]) -> float:
    """Return the wall seconds of one call, including the work of a GPU."""
    _finish()
    began = time.perf_counter()
    work()
    _finish()
    return time.perf_counter() - began


def ratios(times: Times, ours: str) -> dict[str, tuple[float, float, float]]:
    """Return the ratio of each candidate's seconds to those of `ours`: median, minimum and maximum over rounds."""
    result = {}
    for name, theirs in times.items():
        each = [their / our for their, our in zip(theirs, times[ours], strict=True)]
        result[name] = (statistics.median(each), min(each), max(each))
    return result


def spread(ratio: tuple[float, float, float]) -> str:
    """Format a ratio for a table: the median, and in brackets minimum and maximum."""
    median, low, high = ratio
    return f"{median:.2f} ({low:.2f}-{high:.2f})"


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table. The first column is aligned to the left, the others to the right."""
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

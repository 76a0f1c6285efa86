"""Run Table 2 on CIFAR-10 as a campaign: all eleven rows and the paper's further experiments, the most important first.

    python scripts/cifar10.py plan --scale gpu                     # stages, their commands and estimated durations
    python scripts/cifar10.py run --scale gpu                      # all stages; the same command continues
    python scripts/cifar10.py run --scale cpu --data cifar10.npz   # a smaller network: two hours on two cores
    python scripts/cifar10.py run --scale toy --data cifar10.npz   # a test of the campaign: minutes

If a GPU is available only for minutes at a time, on a machine that keeps no files, the campaign can run in slices. Each
slice saves its state and ends before its time is over. It writes archives in small parts:

    python scripts/cifar10.py run --scale gpu --minutes 9 --packed out            # the first slice
    python scripts/cifar10.py run --scale gpu --minutes 9 --packed out --from in  # the next; in/ has the last resume-*
    python scripts/cifar10.py gather PARTS... --store campaign                   # at the end: the keep-* of all slices

`resume-*` contain what the next slice needs. `keep-*` contain the results, as `bnft export` writes them, with the
models of NORMAL, ADV and BN PARAMS.

`--data` is an .npz file (x_train, y_train, x_test, y_test) in the order of CIFAR-10. Without it, CIFAR-10 is
downloaded.
"""

import argparse
import hashlib
import io
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from slices import FINISHED, listed, pack, unpack, write_list

from bnft.common.errors import InputError
from bnft.common.files import write as write_file
from bnft.data import cifar10, npz
from bnft.runs.store import Store

ROOT = Path(__file__).resolve().parents[1]
SAVING_SECONDS = 40.0  # time at the end of a slice to save runs, and to pack and compress files
STOPPING_SECONDS = (15.0, 5.0)  # parts of it: after the first Ctrl-C, which saves runs, and after the second
WHOLE, CIFAR10 = 50_000, Path("data/cifar10")  # all training images, and the folder to which they are downloaded


@dataclass(frozen=True)
class Scale:
    """The size of a campaign. `attacked` counts the first test images."""

    width: int
    images: int
    tests: int
    attacked: int
    attacked_together: int
    clean: int  # epochs of NORMAL
    clean_random: int  # epochs of the BN layers alone on clean images
    adversarial: int  # epochs of ADV
    adversarial_random: int  # epochs of the BN layers alone on adversarial examples
    tuned: int  # epochs of rows that start from NORMAL
    adversarial_rate: float  # images per second of PGD-10 training
    clean_rate: float
    standing_seconds: float  # duration of AutoAttack for one robust image
    workers: int = 1  # runs at a time
    extra: tuple[str, ...] = ()


SCALES = {
    # The rates are estimates for an H100: PGD-10 training takes 34 GFLOP per image, at a fifth of the bf16 peak, and
    # AutoAttack takes 14 TFLOP per robust image, at half of the fp32 peak. `benchmarks/gpu.py` measures them.
    "gpu": Scale(64, 50_000, 10_000, 1000, 250, 40, 12, 20, 6, 6, 5000, 20_000, 0.5),
    # The rates were measured on two cores with AVX512-BF16, for both together.
    "cpu": Scale(16, 25_000, 1000, 300, 100, 20, 6, 5, 2, 2, 170, 850, 10, workers=2),
    "toy": Scale(4, 512, 100, 10, 10, 2, 1, 1, 1, 1, 1000, 4000, 0.5, workers=2),
}
LEARNING_RATE, TUNING_RATE = 0.2, 0.1  # peaks of one_cycle
# The share of robust images, a bit below the paper's.
STANDING = {"adv": 0.35, "bn_params": 0.3, "bn_params_logits_conv1": 0.3, "bn_only_params": 0.15}


@dataclass(frozen=True)
class Stage:
    """One call of launch.py: policies, epochs and other overrides."""

    title: str
    policies: tuple[str, ...]
    epochs: int
    lr: float | None = None  # None if nothing learns
    clean: bool = False
    more: tuple[str, ...] = ()
    variants: int = 1  # runs of each policy, because of `more`
    standing: float | None = None  # the share of robust images, for another eps than the usual one


def stages(scale: Scale) -> list[Stage]:
    """Return the stages, the most important first."""
    tuned = ("bn_params", "bn_only_params", "bn_params_logits_conv1")
    small = ("threat.eps=2/255,4/255",)
    return [
        Stage("NORMAL", ("normal",), scale.clean, LEARNING_RATE, clean=True),
        Stage("BN parameters, from NORMAL", tuned, scale.tuned, TUNING_RATE),
        Stage("BN statistics, from NORMAL", ("bn_stats", "bn_stats_no_reset"), 1),
        Stage("ADV", ("adv",), scale.adversarial, LEARNING_RATE),
        Stage("BN only, from scratch", ("bn_only", "bn_only_logits_conv1"), scale.adversarial_random, LEARNING_RATE),
        Stage(
            "BN only, on clean images",
            ("normal_bn_only", "normal_bn_only_logits_conv1"),
            scale.clean_random,
            LEARNING_RATE,
            clean=True,
        ),
        Stage("section 3.3: NORMAL within smaller eps", ("normal",), 0, LEARNING_RATE, True, small, 2, 0.2),
        Stage("section 3.3: BN STATS within smaller eps", ("bn_stats",), 1, more=small, variants=2, standing=0.2),
        Stage(
            "section 3.3: BN STATS with the logits",
            ("bn_stats",),
            1,
            TUNING_RATE,
            more=("freeze_policy.parameters=[logits]",),
        ),
    ]


def arguments(stage: Stage, scale: Scale, data: Sequence[str]) -> list[str]:
    """Return the arguments of launch.py, without the store."""
    normal = f"schedule.epochs={scale.clean},schedule.lr={LEARNING_RATE},schedule/shape=one_cycle"
    epochs = scale.clean if stage.policies == ("normal",) else stage.epochs
    return [
        "-m",
        f"policy={','.join(stage.policies)}",
        f"schedule.epochs={epochs}",
        *([f"schedule.lr={stage.lr}"] if stage.lr is not None else []),
        "schedule/shape=one_cycle",
        f"base_overrides=[{normal}]",
        f"model.width={scale.width}",
        *data,
        f"data.n_images={scale.attacked}",
        f"data.attack_batch_size={scale.attacked_together}",
        *stage.more,
        *scale.extra,
    ]


def seconds(stage: Stage, scale: Scale) -> tuple[float, float]:
    """Estimate the seconds of a stage for training and for AutoAttack."""
    rate = scale.clean_rate if stage.clean else scale.adversarial_rate
    runs = len(stage.policies) * stage.variants
    standing = sum(stage.standing or STANDING.get(policy, 0.02) for policy in stage.policies) * stage.variants
    return runs * stage.epochs * scale.images / rate, standing * scale.attacked * scale.standing_seconds / scale.workers


def show(scale: Scale, data: Sequence[str], store: Path) -> None:
    """Print the plan."""
    total = 0.0
    for number, stage in enumerate(stages(scale), start=1):
        training, attacks = seconds(stage, scale)
        total += training + attacks
        epochs = f"{stage.epochs} epoch{'s' * (stage.epochs != 1)} each" if stage.epochs else "trained already"
        print(f"{number}. {stage.title}: {epochs}, training {training:,.0f} s, AutoAttack {attacks:,.0f} s,", end=" ")
        print(f"{total / 60:,.0f} min since the start")
        print(f"   {shlex.join(['python', 'launch.py', *arguments(stage, scale, data), f'store={store}'])}")


def data_overrides(file: Path | None, scale: Scale, store: Path, write: bool = True) -> list[str]:
    """Return overrides for the data set: all of CIFAR-10, or its first images in a file in the store.

    Args:
        file: the images. Without it, CIFAR-10 is downloaded.
        scale: the numbers of images.
        store: the store.
        write: whether to write the file. Its name contains a hash of its content only if it is written.

    Raises:
        InputError: if there are too few images.
    """
    if file is None and scale.images == WHOLE:
        return ["data=cifar10"]
    if not write:
        return ["data=npz", f"data.path={store}/first-{scale.images}.npz"]
    whole = npz.load(str(file)) if file else cifar10.load(str(CIFAR10), download=True)
    arrays = {
        "x_train": whole.x_train[: scale.images],
        "y_train": whole.y_train[: scale.images],
        "x_test": whole.x_test[: scale.tests],
        "y_test": whole.y_test[: scale.tests],
    }
    if len(arrays["x_train"]) < scale.images or len(arrays["x_test"]) < scale.tests:
        raise InputError(f"--data {file}: must have {scale.images:,} training and {scale.tests:,} test images")
    digest = hashlib.sha256(b"".join(values.tobytes() for values in arrays.values())).hexdigest()
    subset = store / f"first-{scale.images}-{digest[:10]}.npz"
    if not subset.exists():
        packed = io.BytesIO()
        np.savez(packed, **arrays)  # type: ignore[arg-type]
        write_file(subset, packed.getvalue())
    return ["data=npz", f"data.path={subset}"]


def run(scale: Scale, data: Sequence[str], store: Path, end: float | None) -> bool:
    """Carry out the stages until `end`. At `end`, runs save their state. Returns whether all stages are done."""
    complete, finished = True, listed(store / FINISHED)
    for stage in stages(scale):
        line = arguments(stage, scale, data)
        digest = hashlib.sha256(shlex.join(line).replace(str(store), "").encode()).hexdigest()  # without the path
        if digest in finished:  # saves the seconds that launch.py would take
            continue
        if end is not None and time.monotonic() >= end:
            return False
        print(f"== {stage.title}", flush=True)
        with subprocess.Popen([sys.executable, str(ROOT / "launch.py"), *line, f"store={store}"]) as process:
            try:
                process.wait(timeout=None if end is None else end - time.monotonic())
            except KeyboardInterrupt:  # the process received it from the terminal as well
                process.wait()
                return False
            except subprocess.TimeoutExpired:
                _stop(process)
                return False
        if process.returncode == 0:
            finished.add(digest)
            write_list(store / FINISHED, finished)
        else:
            complete = False
    return complete


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Make a process save its runs and end. If it does not end, kill it, which loses only unsaved work."""
    for patience in STOPPING_SECONDS:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=patience)
            return
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    for name in ("plan", "run"):
        command = commands.add_parser(name)
        command.add_argument("--scale", choices=SCALES, required=True)
        command.add_argument("--data", type=Path, metavar="FILE")
        command.add_argument("--store", type=Path, help="default: multirun/cifar10-SCALE")
        command.add_argument("--minutes", type=float, help="save and pack everything, and end before this time")
        command.add_argument("--packed", type=Path, metavar="FOLDER", help="where to write archives of the results")
        command.add_argument("--from", dest="parts", type=Path, metavar="FOLDER", help="the resume-* of the last slice")
        command.add_argument("more", nargs="*", metavar="KEY=VALUE", help="passed to every launch.py")
    gather = commands.add_parser("gather")
    gather.add_argument("parts", nargs="+", type=Path, metavar="PART")
    gather.add_argument("--store", type=Path, required=True)
    options = parser.parse_args()
    try:
        sys.exit(carry_out(options))
    except InputError as error:
        print(f"cifar10.py: {error}", file=sys.stderr)
        sys.exit(2)


def carry_out(options: argparse.Namespace) -> int:
    """Carry out the command, and return its exit code. Raises InputError if an argument is invalid."""
    if options.command == "gather":
        unpack(options.parts, options.store)
        return 0
    began = time.monotonic()
    scale = replace(SCALES[options.scale], extra=tuple(options.more))
    store = options.store or Path("multirun") / f"cifar10-{options.scale}"
    if options.command == "plan":
        show(scale, data_overrides(options.data, scale, store, write=False), store)
        return 0
    if options.parts:
        parts = sorted(options.parts.glob("resume-*"))
        if not parts:
            raise InputError(f"--from {options.parts}: must be a folder with the resume-* of the last slice")
        if Store(store).runs():  # a machine that kept its files has newer ones
            print(f"{store} has runs already; the campaign continues from them, and --from is ignored")
        else:
            unpack(parts, store)
    data = data_overrides(options.data, scale, store)
    end = None if options.minutes is None else began + 60 * options.minutes - SAVING_SECONDS
    complete = run(scale, data, store, end)
    if options.packed:
        pack(store, options.packed, time.strftime("%Y%m%dT%H%M%S"))
    print("the campaign is complete" if complete else "the campaign is not complete; the same command continues")
    return 0 if complete else 1


if __name__ == "__main__":
    main()

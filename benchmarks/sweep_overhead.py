"""Measure the overhead of a sweep, with one-second runs on bnft's launcher and on Hydra's launchers.

    pip install hydra-joblib-launcher hydra-submitit-launcher
    python benchmarks/sweep_overhead.py            # 100 runs on two workers; a quarter of an hour

Each run trains on the digits for one step, which takes exactly one second (`one_second.py`), and attacks two images.
The overhead per run is the time of its worker beyond this second: (wall seconds x workers - runs) / runs. Hydra's
launchers are used with Hydra's own sweeper. `submitit_local` starts all of its runs at once, so it gets two at a time.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKERS = 2
RUN = (
    "policy=normal",
    "attack=pgd",
    "attack._target_=one_second.attack",
    *(f"~attack.{key}" for key in ("step_size", "eps", "iterations", "norm", "random_start", "keep")),
    "schedule.epochs=1",
    "schedule.batch_size=1297",
    "data.augmentation=none",
    "model.width=2",
    "evaluation=pgd",
    "evaluation.iterations=1",
    "evaluation.n_images=2",
    "threads=1",
)
LAUNCHERS = {  # by name: the number of workers, and flags
    "local (ours)": (WORKERS, ["hydra/launcher=local", f"hydra.launcher.workers={WORKERS}"]),
    "basic": (1, ["hydra/sweeper=basic", "hydra/launcher=basic"]),
    "joblib": (WORKERS, ["hydra/sweeper=basic", "hydra/launcher=joblib", f"hydra.launcher.n_jobs={WORKERS}"]),
    "submitit_local": (
        WORKERS,
        ["hydra/sweeper=basic", f"hydra.sweeper.max_batch_size={WORKERS}", "hydra/launcher=submitit_local"],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--only", choices=LAUNCHERS, action="append", help="can be given more than once")
    options = parser.parse_args()
    print(f"{options.runs} runs of one second\n")
    print("| launcher | workers | wall s | overhead s a run |\n| --- | ---: | ---: | ---: |")
    for name in options.only or LAUNCHERS:
        workers, flags = LAUNCHERS[name]
        wall = measured(options.runs, flags)
        overhead = (wall * workers - options.runs) / options.runs
        print(f"| {name} | {workers} | {wall:.1f} | {overhead:.3f} |", flush=True)


def measured(runs: int, flags: list[str]) -> float:
    """Return the wall seconds of a sweep of `runs` seeds, including the start of Python and the table at the end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(HERE.parent / "launch.py"), "-m", *RUN, f"seed=range(0,{runs})", *flags]
        environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
        began = time.monotonic()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        wall = time.monotonic() - began
        finished = len(list(Path(folder).glob("multirun/*/evaluation/*/result.json")))
        if done.returncode or finished != runs:
            sys.exit(f"{finished} of {runs} runs are done\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return wall


if __name__ == "__main__":
    main()

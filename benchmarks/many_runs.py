"""Plan ten thousand runs, submit them to SLURM, and call `bnft status` on a store of as many runs.

    eval "$(python tests/slurm_cluster.py start /tmp/cluster)"    # if SLURM is not installed
    python benchmarks/many_runs.py

The jobs are submitted on hold and then cancelled, so that none ever runs. The store of finished runs contains copies of
a single run.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

LAUNCH = Path(__file__).resolve().parent.parent / "launch.py"
BNFT = Path(sys.executable).parent / "bnft"
ROWS = 11
ON_HOLD = ("hydra/launcher=slurm", "hydra.launcher.detach=true", "+hydra.launcher.additional_parameters.hold=true")
TINY = (
    "policy=normal",
    "schedule.epochs=1",
    "model.width=2",
    "evaluation=pgd",
    "evaluation.iterations=1",
    "evaluation.n_images=20",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_010)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        seconds = run(folder, LAUNCH, "-m", "+study=table2", f"seed=range(0,{runs // ROWS})", *ON_HOLD)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
        print(
            f"planning and submitting {runs // ROWS * ROWS} runs: {seconds:.1f} s, {peak:.2f} GiB at most", flush=True
        )
        print(f"bnft status of them, all queued: {run(folder, BNFT, 'status'):.1f} s", flush=True)
        print(f"bnft cancel: {run(folder, BNFT, 'cancel'):.1f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run(folder, LAUNCH, "-m", *TINY)
        multiply(Path(folder, "multirun"), runs)
        print(f"bnft status of {runs} finished runs: {run(folder, BNFT, 'status'):.1f} s", flush=True)
        print(f"bnft status --json: {run(folder, BNFT, 'status', '--json'):.1f} s")


def run(folder: str, program: Path, *arguments: str) -> float:
    """Return the wall seconds of a command, which must succeed."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, program, *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return time.monotonic() - began


def multiply(store: Path, runs: int) -> None:
    """Fill a store with copies of its only run, and with one sweep of all copies."""
    (original,) = (path.parent for path in store.glob("*/config.yaml"))
    (record,) = (store / "sweeps").glob("*.json")
    sweep = json.loads(record.read_text())
    (entry,) = sweep["runs"]
    names: Sequence[str] = [f"normal-{number:010x}" for number in range(runs)]
    for name in names:
        shutil.copytree(original, store / name)
    record.write_text(json.dumps({**sweep, "runs": [{**entry, "run": name} for name in names]}))


if __name__ == "__main__":
    main()

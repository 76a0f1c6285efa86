"""The outcomes of commands, and the arguments of very small runs."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 400  # characters, the longest message that is easy to read

TINY = (  # a run in about a second: one epoch, few images, PGD, and one thread, as tests run side by side
    "schedule.epochs=1",
    "evaluation=pgd",
    "evaluation.iterations=2",
    "evaluation.n_images=20",
    "model.width=2",
    "schedule.batch_size=256",
    "threads=1",
    "base_overrides=['schedule.epochs=1','schedule.batch_size=256']",
)


@dataclass(frozen=True)
class Outcome:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


def tree(folder: Path) -> dict[str, str]:
    """Return every folder and file below `folder`, with a hash of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def refusal(outcome: Outcome) -> str:
    """Return the only line that a command printed when it refused its input."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert outcome.err.endswith("\n") and outcome.err.count("\n") == 1, outcome.err
    assert outcome.err.startswith("bnft: ") and "Traceback" not in outcome.err
    assert len(outcome.err) < LONGEST
    return outcome.err

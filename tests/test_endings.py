"""However a command goes wrong, it ends at once, with one line that says why and a fitting exit code."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import warm
from support.command import ROOT, TINY, Outcome, refusal, tree
from support.programs import finish, start, statuses, until, work

from bnft.common.files import read_json
from bnft.evaluation.pgd import LOSS_ITERATIONS

Launch = Callable[..., Outcome]
TOO_LONG = "x" * 256
BNFT = [sys.executable, "-c", "from bnft.cli import main; main()"]
LAUNCH = [sys.executable, str(ROOT / "launch.py")]

TQDM = """
import multiprocessing

class tqdm:
    def __new__(cls, *arguments, **options):  # PyTorch uses it where it is installed
        if not hasattr(cls, "lock"):
            cls.lock = multiprocessing.RLock()
        return super().__new__(cls)
    def __init__(self, *arguments, **options): pass
    def update(self, *arguments): pass
    def close(self): pass
"""


# locks of multiprocessing in processes that are killed


@pytest.mark.parametrize("ending", ["failing", "stopped"])
def test_a_lock_in_a_worker_is_no_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "tqdm.py").write_text(TQDM)
    broken = "def attack(*_, **__):\n    import tqdm; tqdm.tqdm()\n    raise ValueError('mine')\n"
    (tmp_path / "modules" / "mine.py").write_text(broken)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    target = ["attack._target_=mine.attack"] if ending == "failing" else ["schedule.epochs=1000"]
    process = start(tmp_path, "-m", "policy=adv", "seed=0,1", *TINY, *target, "hydra.launcher.workers=2")
    if ending == "stopped":
        until(lambda: work(tmp_path).count("t") > 2, process)
        os.killpg(process.pid, signal.SIGINT)
    _, err = finish(process, code=1 if ending == "failing" else 130)
    last = {"failing": "2 of 2 runs failed;", "stopped": "interrupted;"}[ending]
    assert err.splitlines()[-1].startswith(last), err
    assert "leaked" not in err


# hydra's own keys and flags


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-m", "hydra.launcher=${nope}", "seed=0,1"), ("hydra.launcher=${nope}", "'nope' not found")),
        (("-m", "hydra.launcher.workers=${nope}", "seed=0,1"), ("hydra.launcher", "'nope' not found")),
        (("-m", "hydra.launcher=null"), ("hydra.launcher: ", "hydra/launcher=NAME")),
        (("-m", "hydra.launcher=5"), ("hydra.launcher: ", "hydra/launcher=NAME")),
        (("-m", "hydra.launcher._target_=mine.Launcher"), ("hydra.launcher: ", "'mine.Launcher'")),
        (("-m", "hydra.sweeper=null"), ("hydra.sweeper: ", "hydra/sweeper=NAME")),
        (("-m", "hydra.sweeper.params={a:b}"), ("hydra.sweeper.params={a:b}",)),
        (("hydra.launcher=null",), ("hydra/launcher",)),
        (("hydra.launcher=${nope}",), ("hydra/launcher",)),
        (("--mulitrun",), ("--mulitrun", "did you mean --multirun?", "launch.py --help")),
        (("--nonsense", "--more"), ("--nonsense", "launch.py --help")),
        (("policy=adv", "-m", "seed=0,1"), ("seed=0,1", "flags must be before or after")),
        (("--cfg",), ("--cfg", "launch.py --help")),
        (("-m", "--cfg", "job"), ("--multirun",)),
        (("--resolve",), ("--resolve",)),
        (("-sc", "nope"), ("install",)),
        (("-m", "seed=range(0,1000000000)"), ("seed=range(0,1000000000)", "at most 100,000 runs")),
        (("-m", "seed=range(0,1000)", "schedule.epochs=range(1,1000)"), ("at most 100,000 runs",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_hydra_itself_would_answer_at_length(
    launch: Launch, arguments: tuple[str, ...], said: tuple[str, ...]
) -> None:
    line = refusal(launch(*arguments))
    for words in said:
        assert words in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "a COMMAND must be given"),
        (("--nonsense",), "--nonsense; see bnft --help"),
        (("--versoin",), "did you mean --version?"),
        (("tabel",), "did you mean table?"),
        (("table", "--stoer", "x"), "did you mean --store?); see bnft table --help"),
        (("table", "--stoer=x"), "did you mean --store?"),
    ],
)
def test_arguments_of_bnft(bnft: Launch, arguments: tuple[str, ...], said: str) -> None:
    assert said in refusal(bnft(*arguments))


# files and folders


@pytest.mark.parametrize("kind", ["memory", "zero", "pipe", "socket", "folder", "linked zero", "empty", "too long"])
def test_a_base_that_cannot_be_read(launch: Launch, tmp_path: Path, kind: str) -> None:
    base = {"memory": "/proc/self/mem", "zero": "/dev/zero", "too long": TOO_LONG}.get(kind, "it")
    if kind == "pipe":
        os.mkfifo("it")
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind("it")
    elif kind == "folder":
        (tmp_path / "it" / "normal-0123456789").mkdir(parents=True)
    elif kind == "linked zero":
        (tmp_path / "it").mkdir()
        (tmp_path / "it" / "model.safetensors").symlink_to("/dev/zero")
    elif kind == "empty":
        (tmp_path / "it").touch()
    line = refusal(launch("policy=bn_params", f"base={base}"))
    assert "too long" in line if kind == "too long" else f"base={base}: must be" in line


@pytest.mark.parametrize(
    ("store", "said"),
    [
        (TOO_LONG, "File name too long"),
        (f"a/{TOO_LONG}/b", "File name too long"),
        ("", "store=: must be a folder"),
        ("file/child", "file is a file"),
    ],
    ids=["too long", "too long inside", "empty", "child of a file"],
)
def test_a_store_that_cannot_be(launch: Launch, bnft: Launch, tmp_path: Path, store: str, said: str) -> None:
    (tmp_path / "file").touch()
    assert said in refusal(launch("policy=normal", f"store={store}"))
    assert said in refusal(launch("-m", "policy=normal", "seed=0,1", f"store={store}"))
    dashboard = ("dashboard", "--entity=a", "--project=b", "--dry-run")
    for command in (
        ("table",),
        ("report",),
        ("transfer",),
        ("export", "to"),
        ("status",),
        ("wait",),
        ("cancel",),
        ("sync",),
        dashboard,
    ):
        assert said in refusal(bnft(*command, "--store", store))
    assert tree(tmp_path).keys() == {"file"}


@pytest.mark.parametrize("command", ["table", "report", "transfer", "status", "wait", "cancel", "sync"])
def test_a_name_that_is_too_long(bnft: Launch, tmp_path: Path, command: str) -> None:
    (tmp_path / "multirun" / "sweeps").mkdir(parents=True)
    (tmp_path / "multirun" / "sweeps" / "a.json").write_text('{"runs": [], "bases": []}')
    assert "File name too long" in refusal(bnft(command, TOO_LONG))


# configurations of one's own


def aliases() -> str:
    lines = [f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]" for number in range(1, 12)]
    return "\n".join(["a0: &a0 [x]", *lines])


def merges() -> str:
    lines = [f"m{number}: &m{number}\n  <<: [{', '.join([f'*m{number - 1}'] * 10)}]" for number in range(1, 12)]
    return "\n".join(["m0: &m0 {x: 1}", *lines])


def interpolations() -> str:
    return "\n".join(["model:", "  a0: x", *(f"  a{n}: {of(n - 1) * 10}" for n in range(1, 12))])


def of(number: int) -> str:
    return f"${{model.a{number}}}"


def lists() -> str:
    items = (f"  a{n}:" + f"\n  - {of(n - 1)}" * 10 for n in range(1, 12))
    return "\n".join(["model:", "  a0: [x]", *items])


OWN = {
    "aliases": (aliases(), "mine.yaml: must have at most 10,000 values"),
    "an alias of itself": ("title: &a [*a]", "mine.yaml: must have at most 10,000 values"),
    "merged aliases": (merges(), "mine.yaml: must have at most 10,000 values"),
    "interpolations": (interpolations(), "model.a4: must have at most 10,000 values"),
    "lists of interpolations": (lists(), "model.a4: must have at most 10,000 values"),
    "nested": ("title: " + "[" * 5000 + "]" * 5000, "mine.yaml: is nested too deeply"),
    "a NUL in the store": ('title: MINE\nstore: "a\\0b"', "must be a folder that can be made (embedded null byte)"),
    "not text": (b"\x80".decode("latin-1"), "mine.yaml: 'utf-8' codec"),
}


@pytest.mark.parametrize("kind", OWN)
def test_a_policy_that_cannot_be_read(launch: Launch, tmp_path: Path, kind: str) -> None:
    content, said = OWN[kind]
    (tmp_path / "extra" / "policy").mkdir(parents=True)
    text = f"# @package _global_\n{content}\n"
    (tmp_path / "extra" / "policy" / "mine.yaml").write_bytes(text.encode("latin-1"))
    began = time.monotonic()
    assert said in refusal(launch("--config-dir=extra", "policy=mine"))
    assert time.monotonic() - began < 10, "and not after ages; it takes well below a second on a quiet machine"


def test_an_override_that_stands_for_too_much(launch: Launch) -> None:
    many = ["+model.a0=[x]", *(f"+model.a{n}=[{','.join([of(n - 1)] * 10)}]" for n in range(1, 12))]
    assert "model.a4: must have at most 10,000 values" in refusal(launch(*many))
    assert "recursion" in refusal(launch(f"seed={'[' * 3000}{']' * 3000}"))


def test_aliases_in_moderation_are_welcome(launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("bnft.runs.execution.execute", lambda run, *_, **__: asked.append(run))
    (tmp_path / "extra" / "policy").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [override /freeze_policy: all]\ntitle: &a MINE\nwandb: {project: *a}\n"
    (tmp_path / "extra" / "policy" / "mine.yaml").write_text(text)
    assert launch("--config-dir=extra", "policy=mine").code == 0
    assert asked[0].config["wandb"]["project"] == "MINE"


@pytest.mark.parametrize("name", ["sub/x", "../policy/adv", ".hidden", "y" * 200])
def test_a_policy_whose_name_cannot_be_that_of_a_folder(launch: Launch, tmp_path: Path, name: str) -> None:
    file = tmp_path / "extra" / "policy" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text((ROOT / "conf" / "policy" / "adv.yaml").read_text())
    assert f"policy={name}: must be a file directly in conf/policy/" in refusal(
        launch("--config-dir=extra", f"policy={name}")
    )
    assert not (tmp_path / "multirun").exists()


def test_a_policy_without_its_first_line(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "extra" / "policy").mkdir(parents=True)
    (tmp_path / "extra" / "policy" / "mine.yaml").write_text("")
    assert "must begin with the line `# @package _global_`" in refusal(launch("--config-dir=extra", "policy=mine"))


def test_more_threads_than_any_machine_has(launch: Launch) -> None:
    assert "at most 1024" in refusal(launch("threads=100000"))


# standard output


def full(folder: Path, *command: str, unbuffered: str = "", **pipes: Any) -> tuple[int, str]:
    """Exit code and standard error of a command whose standard output is on a full disk."""
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "PYTHONPATH": str(ROOT)}
    with open("/dev/full", "w") as disk:
        pipes = {"stdout": disk, "stderr": subprocess.PIPE, **pipes}
        done = warm.run(command, cwd=folder, env=environment, text=True, timeout=120, **pipes)
    return done.returncode, done.stderr


LOST = "bnft: standard output: cannot be written (No space left on device); the store is not affected"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_behind_standard_output_loses_no_results(tmp_path: Path) -> None:
    code, err = full(tmp_path, *LAUNCH, "-m", "policy=normal", "seed=1", *TINY, unbuffered="1")
    assert code == 2 and err.splitlines()[-1] == LOST and err.count(LOST) == 1
    assert "Traceback" not in err and "Exception ignored" not in err
    code, _ = full(tmp_path, *LAUNCH, "policy=normal", *TINY, stderr=open("/dev/full", "w"))  # noqa: SIM115
    assert code == 2, "with standard error on the same disk, too"
    assert [status["state"] for status in statuses(tmp_path).values()] == ["done"] * 2
    assert all(read_json(file)["clean"] for file in tmp_path.glob("multirun/*/evaluation/*/result.json"))

    for number, arguments in enumerate(("table", "table --format=json", "status", "wait", "cancel", "export to")):
        lost = full(tmp_path, *BNFT, *arguments.split(), unbuffered="1" * (number % 2))
        assert lost[0] == 2 and lost[1].splitlines()[-1] == LOST and lost[1].count("\n") <= 2, arguments
    for command in ([*BNFT, "--help"], [*BNFT, "table", "--help"], [*BNFT, "--version"], [*LAUNCH, "--help"]):
        assert full(tmp_path, *command) == (2, f"{LOST}\n"), command
    assert full(tmp_path, *LAUNCH, "--cfg", "job") == (2, f"{LOST}\n")


@pytest.mark.parametrize("closing", ["| true", ">&-"])
def test_nobody_reads_standard_output(tmp_path: Path, closing: str) -> None:
    python = f"{sys.executable} -c 'from bnft.cli import main; main()'"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for arguments in ("--help", f"table all --store {ROOT}/docs/results/cifar10"):
        script = f"set -o pipefail; {python} {arguments} {closing}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        noted = done.stderr.startswith("Note: 14 results without checksums") and done.stderr.count("\n") == 1
        assert (done.returncode, done.stdout, done.stderr if not noted else "") == (0, "", "")


# the results page


def test_the_page_says_how_the_loss_was_measured() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    assert f"| Model | cross-entropy on PGD examples ({LOSS_ITERATIONS} iterations) |" in page
    assert "40 iterations" not in page

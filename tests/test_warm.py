"""A program that `support.warm` forks is like one that Python starts."""

import subprocess
import sys
from pathlib import Path

import pytest
from support import warm

ABOUT = "print(sys.argv, sys.path[:2], os.getcwd(), os.environ, os.getsid(0) == os.getpid(), os.getppid(), __name__)"
CODES = (
    ABOUT,
    "print(sys.stdin.read(), end='', flush=True); print('said', file=sys.stderr)",
    "sys.exit(3)",
    "sys.exit('refused')",
    "1 / 0",
    "raise KeyboardInterrupt",
    "os.kill(os.getpid(), signal.SIGTERM)",
    "atexit.register(print, 'at the end'); threading.Timer(0.1, print, ['later']).start()",
    "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGHUP))",
    "os.close(1); print('lost')",
)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("way", ["-c", "-m", "script"])
def test_it_ends_and_prints_as_usual(tmp_path: Path, code: str, way: str) -> None:
    code = f"import atexit, os, signal, sys, threading\n{code}\n"
    (tmp_path / "program.py").write_text(code)
    words = {"-c": ["-P", "-c", code], "-m": ["-m", "program"], "script": [str(tmp_path / "program.py")]}[way]
    found = []
    for run in (subprocess.run, warm.run):
        done = run(
            [sys.executable, *words, "word"],
            cwd=tmp_path,
            env={"PYTHONPATH": "/nothing", "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"},
            start_new_session=True,
            input="given",
            capture_output=True,
            text=True,
        )
        found.append((done.returncode, done.stdout, done.stderr.splitlines()[-1:]))
    assert found[0] == found[1]


def test_it_has_imported_pytorch_already(tmp_path: Path) -> None:
    code = "import sys; print('torch' in sys.modules, 'hydra' in sys.modules, 'wandb' in sys.modules)"
    assert warm.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True True False\n"

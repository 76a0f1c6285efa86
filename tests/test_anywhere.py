"""`bnft run` from any folder: a person's own configuration and components, completion, and what is recorded."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import warm
from support.command import ROOT
from support.on_slurm import Site

from bnft import hydra_app
from bnft.common import program
from bnft.config import folders
from bnft.runs.store import Store
from bnft.sweeps import record

POLICY = """# @package _global_
defaults: [override /attack: pgd, override /schedule: scratch]
freeze_policy: {parameters: [all], statistics: update}
title: MINE
base: null
"""
NETWORK = """
from torch import nn

class MyNet(nn.Sequential):
    def __init__(self, num_classes: int, width: int) -> None:
        convolution, logits = nn.Conv2d(1, width, 3, 2), nn.Linear(9 * width, num_classes)
        super().__init__(convolution, nn.BatchNorm2d(width), nn.Flatten(), logits)
"""
MODEL = """_target_: mine.MyNet
num_classes: ${data.num_classes}
width: 3
"""
QUICK = (
    "schedule.epochs=1",
    "schedule.batch_size=256",
    "evaluation=pgd",
    "evaluation.iterations=2",
    "evaluation.n_images=20",
    "threads=1",
)
OWN = ("policy=mine", "model=mine", *QUICK)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a person's own policy, model and network, and the configuration of another program."""
    fill(tmp_path / "conf", policy=POLICY, model=MODEL)
    (tmp_path / "conf" / "config.yaml").write_text("another: program\n")
    (tmp_path / "mine.py").write_text(NETWORK)
    return tmp_path


def fill(folder: Path, **options: str) -> None:
    """Write one option called `mine` of each group."""
    for group, content in options.items():
        (folder / group).mkdir(parents=True, exist_ok=True)
        (folder / group / "mine.yaml").write_text(content)


def bnft(*arguments: str, folder: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """`bnft ARGUMENTS` in another process, as it is where bnft is installed."""
    line = [sys.executable, "-P", "-c", "from bnft.cli import main; main()", *arguments]
    variables = {**os.environ, **environment}
    done = warm.run(line, cwd=folder, env=variables, capture_output=True, text=True, timeout=200)
    assert done.returncode == code, done
    return done


def test_own_options_and_components_of_the_current_folder(project: Path) -> None:
    done = bnft("run", *OWN, folder=project)
    assert "MINE" in done.stdout and "mine.MyNet" in done.stdout
    (run,) = Store(project / "multirun").runs()
    assert run.config()["model"] == {"_target_": "mine.MyNet", "num_classes": 10, "width": 3}
    assert {path.name for path in project.iterdir()} <= {"conf", "mine.py", "multirun", "__pycache__"}


def test_a_sweep_computes_with_them_in_its_processes_and_records_what_was_typed(project: Path) -> None:
    (project / "bnft").mkdir()
    (project / "bnft" / "__init__.py").write_text("raise SystemExit('another bnft')\n")
    done = bnft("run", "-m", *OWN, "seed=0,1", folder=project)
    store = Store(project / "multirun")
    assert len(store.runs()) == 2 and "MINE" in done.stdout
    (sweep,) = store.sweeps()
    assert store.sweep(sweep)["command"] == f"bnft run -m {' '.join(OWN)} seed=0,1"


def test_it_is_what_launch_py_does(tmp_path: Path) -> None:
    for flags in (["policy=bn_params", "--cfg", "job"], ["--help"]):
        line = [sys.executable, str(ROOT / "launch.py"), *flags]
        script = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
        assert bnft("run", *flags, folder=tmp_path).stdout == script.stdout
    assert "bnft run policy=bn_params" in script.stdout and "launch.py" not in script.stdout


def test_a_given_folder_comes_before_the_current_one_and_that_before_ours(project: Path) -> None:
    given = project / "given"
    fill(
        given, model=MODEL.replace("width: 3", "width: 5"), **{"hydra/launcher": "defaults: [slurm]\npartition: gpu\n"}
    )
    (given / "config.yaml").write_text("another: program\n")
    (project / "conf" / "evaluation").mkdir()
    (project / "conf" / "evaluation" / "pgd.yaml").write_text("attack: pgd\niterations: 7\n")
    shown = ("policy=mine", "model=mine", "evaluation=pgd", "hydra/launcher=mine", "--cfg", "all")
    for flag in ("-cd", "--config-dir"):
        out = bnft("run", flag, str(given), *shown, folder=project).stdout
        assert "width: 5" in out and "iterations: 7" in out and "partition: gpu" in out and "another" not in out
    assert "width: 3" in bnft("run", "model=mine", "--cfg", "job", folder=project).stdout


def test_other_programs_that_use_hydra_are_left_alone(project: Path) -> None:
    script = project / "other.py"
    script.write_text(
        "import hydra\n"
        "@hydra.main(version_base='1.3', config_path='theirs', config_name='config')\n"
        "def main(config): print(config)\n"
        "main()\n"
    )
    fill(project / "theirs", policy="name: theirs\n")
    (project / "theirs" / "config.yaml").write_text("defaults: [policy: mine, override hydra/job_logging: none]\n")
    line = [sys.executable, str(script), "hydra.output_subdir=null", "hydra.run.dir=."]
    done = subprocess.run(line, cwd=project, capture_output=True, text=True, timeout=60)
    assert done.stdout == "{'policy': {'name': 'theirs'}}\n", done


def test_tab_completion_in_bash(project: Path) -> None:
    folder = project / "bin"
    folder.mkdir()
    command = folder / "bnft"
    command.write_text(f"#!{sys.executable}\nfrom bnft.cli import main\nmain()\n")
    command.chmod(0o755)
    script = """eval "$(bnft run -sc install=bash)"
        complete -p bnft
        for COMP_LINE in 'bnft sta' 'bnft run policy=mi' 'bnft run -m policy=adv sche' 'bnft table a' 'bnft wh' \\
            'bnft why -m policy=mi'; do
            words=($COMP_LINE); COMP_CWORD=$((${#words[@]} - 1)); COMP_POINT=${#COMP_LINE}
            COMPREPLY=(); hydra_bash_completion; echo "${COMPREPLY[@]}"
        done"""
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=project,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    registered, *answers = done.stdout.splitlines()
    assert registered.endswith("-F hydra_bash_completion bnft"), done
    assert answers == ["status", "policy=mine", "schedule schedule.", "", "why", "policy=mine"], done


@pytest.mark.parametrize(("lies_there", "place"), [("data", 0), ("bnft", -1)])
def test_the_current_folder_comes_first_unless_another_bnft_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lies_there: str, place: int
) -> None:
    (tmp_path / lies_there).mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path])
    hydra_app.make_importable(tmp_path)
    assert sys.path[place] == str(tmp_path)


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_the_commits_of_the_current_folder_and_of_bnft_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path))
    subprocess.run([*own, "init", "--quiet"], check=True)
    subprocess.run([*own, "commit", "--quiet", "--allow-empty", "--message=mine"], check=True)
    head = subprocess.run([*own, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bnft", "-m", "policy=adv"])
    assert re.fullmatch(rf"{head}, bnft [0-9a-f]{{40}}(-dirty)?", str(record.commit()))
    monkeypatch.setattr(folders, "checkout", lambda: None)
    assert record.commit() == head
    assert program.command() == "bnft run -m policy=adv"


def test_one_run_is_submitted_to_slurm_with_own_components(site: Site, project: Path) -> None:
    line = ("run", *OWN, "hydra/launcher=slurm")
    done = bnft(*line, "seed=1", folder=site.folder)
    assert "submitted 1 of 1 tasks" in done.stderr and "MINE" in done.stdout, "it was followed to its end"
    done = bnft(*line, "seed=2", "hydra.launcher.detach=true", folder=site.folder)
    assert "submitted 1 of 1 tasks" in done.stderr and not done.stdout
    site.bnft("wait")
    assert [standing["state"] for standing in json.loads(site.bnft("status", "--json"))] == ["done"] * 2


def test_a_launcher_that_knows_nothing_of_runs_needs_a_sweep(project: Path) -> None:
    fill(project / "conf" / "hydra", launcher="_target_: builtins.dict\n")
    done = bnft("run", *OWN, "hydra/launcher=mine", folder=project, code=2)
    assert done.stderr == "bnft: hydra/launcher: must be local or slurm without -m; this one needs -m\n"

"""Sweeps on SLURM in trouble, on a real cluster: jobs go on from where they were and end with the same bits."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import ROOT, TINY
from support.on_slurm import BIN, HELD, Site, until, visiting
from support.programs import assert_same, finish, start, work
from support.slurm_cluster import Cluster

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

LINE = (
    "policy=bn_params",
    "base_overrides=[schedule.epochs=3]",
    "schedule.epochs=4",
    "model.width=2",
    "schedule.batch_size=128",
    "attack.iterations=2",
    "evaluation.version=custom",
    "evaluation.attacks=[apgd-ce,apgd-dlr,fab-t]",
    "evaluation.n_images=60",
    "evaluation.batch_size=10",
    "preview=null",
)
STEPS_AN_EPOCH = 1297 // 128
STEPS = (3 + 4) * STEPS_AN_EPOCH


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where LINE was carried out on this machine, undisturbed."""
    folder = tmp_path_factory.mktemp("calm")
    finish(start(folder, *LINE))
    return folder


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that take long enough for something to happen."""
    monkeypatch.setenv("PACE", "0.2")


def assert_undisturbed(site: Site, calm: Path, interruptions: int) -> None:
    """The sweep has ended with the bits of the undisturbed one, and little was done twice."""
    assert "done" in site.bnft("wait", seconds=150)
    assert_same(calm, site.folder)
    assert site.done("t") <= STEPS + interruptions * STEPS_AN_EPOCH
    assert site.done("a") <= work(calm).count("a") + interruptions


def test_requeued_in_training_and_in_the_attack_it_goes_on_under_the_same_number(site: Site, calm: Path, slow: None):
    site.submit(*LINE)
    until(lambda: site.done("t") > 3)
    standing = site.status()
    base = standing["normal"]["job"]
    site.cluster.run("scontrol", "requeue", base)
    assert standing["normal"]["state"] == "training" and "of 3" in standing["normal"]["detail"]
    assert (standing["bn_params"]["state"], standing["bn_params"]["detail"]) == ("queued", "waits for its base")
    requeued = until(lambda: (found := site.status()["normal"])["state"] == "queued" and found)
    assert requeued["job"] == base and "continues from epoch" in requeued["detail"]
    until(lambda: site.status()["bn_params"]["state"] == "training")
    said = site.submit(*LINE)
    assert "submitted 0 of 2 tasks in 0 job arrays (1 done already, 1 queued or running already)" in said
    until(lambda: site.done("a") > 0)
    job = site.job("bn_params")
    site.cluster.run("scontrol", "requeue", job)
    assert_undisturbed(site, calm, interruptions=2)
    assert [site.about(number)["Restarts"] for number in (base, job)] == ["1", "1"]
    assert site.done("t") <= STEPS + 2, "a job that is told to end saves its state first"
    log = next(site.store.glob(f".slurm/*/log/{job}_0_log.out")).read_text()
    assert log.count("continuing from epoch") == 0 and log.count("evaluating") == 2, "the log of both starts is kept"


def test_preempted_by_an_urgent_job_it_goes_on_afterwards(site: Site, calm: Path, slow: None):
    site.submit(*LINE)
    until(lambda: site.done("t") > STEPS_AN_EPOCH)
    base = site.job("normal")
    site.cluster.run("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    until(lambda: site.status()["normal"]["state"] == "queued")
    assert_undisturbed(site, calm, interruptions=1)
    assert site.about(base)["Restarts"] == "1"


@pytest.mark.parametrize("command", ["scancel", "bnft cancel"])
def test_cancelled_it_says_so_and_the_same_command_completes_it(site: Site, calm: Path, slow: None, command: str):
    process = site.follow(*LINE)
    until(lambda: site.done("t") > STEPS_AN_EPOCH)
    if command == "scancel":
        site.cluster.run("scancel", site.job("normal"))
    else:
        assert "2 jobs cancelled" in site.bnft("cancel")
    _, err = finish(process, code=1)
    assert site.states() == {"normal": "interrupted", "bn_params": "not begun"}
    assert "interrupted: normal-" in err and "interrupted: bn_params-" in err and "Traceback" not in err
    assert "1 interrupted, 1 not begun" in site.bnft("wait", code=1)
    assert "submitted 2 of 2 tasks" in site.submit(*LINE)
    assert_undisturbed(site, calm, interruptions=1)


def test_a_node_that_fails_costs_nothing_but_time(site: Site, calm: Path, slow: None):
    process = site.follow(*LINE)
    until(lambda: site.done("t") > STEPS_AN_EPOCH)
    site.cluster.kill_slurmd(with_jobs=True)
    site.cluster.start_slurmd()
    until(lambda: site.done("a") > 2)
    site.cluster.kill_slurmd(with_jobs=True)
    until(lambda: "down" in site.cluster.node_state())
    site.cluster.start_slurmd()
    _, err = finish(process, seconds=200)
    assert "Traceback" not in err
    assert_undisturbed(site, calm, interruptions=2)


@pytest.mark.parametrize("hard", [False, True])
def test_a_controller_that_restarts_is_outlasted(site: Site, calm: Path, slow: None, hard: bool):
    process = site.follow(*LINE)
    until(lambda: site.done("t") > STEPS_AN_EPOCH)
    waiting = site.start(str(BIN / "bnft"), "wait")
    site.cluster.restart_controller(hard=hard)
    until(lambda: site.done("t") > 5 * STEPS_AN_EPOCH)
    site.cluster.restart_controller(hard=hard)
    for watching in (process, waiting):
        _, err = finish(watching, seconds=200)
        assert "Traceback" not in err
    assert_undisturbed(site, calm, interruptions=1)


def test_at_its_time_limit_a_job_requeues_itself_even_within_its_first_epoch(site: Site, monkeypatch):
    line = ("policy=normal", *TINY)
    calm = site.folder / "calm"
    calm.mkdir()
    finish(start(calm, *line))
    monkeypatch.setenv("PACE", "9")  # so that five steps take longer than a job with a limit of a minute has
    site.submit(*line, "hydra.launcher.time=1")
    (array,) = site.arrays()
    said = site.bnft("wait", seconds=400)
    assert "1 done" in said
    assert_same(calm, site.folder)
    assert int(site.about(array["job"])["Restarts"]) >= 1
    assert site.done("t") == work(calm).count("t") and site.done("a") <= work(calm).count("a") + 1


def test_a_job_that_gets_nowhere_within_its_time_limit_fails_instead_of_starting_for_ever(site: Site, monkeypatch):
    monkeypatch.setenv("BEFORE", "3")
    site.submit("policy=normal", *TINY)
    (array,) = site.arrays()
    for begun in (1, 2):
        until(lambda begun=begun: site.done("j") == begun)  # type: ignore[misc]
        site.cluster.run("scancel", "--signal=USR2", f"{array['job']}_0")
    said = site.bnft("wait", code=1)
    assert "no progress within the job's time limit; give it more with hydra.launcher.time" in said
    assert site.states() == {"normal": "failed"}
    assert site.done("t") == 0 and site.done("j") == 2
    monkeypatch.delenv("BEFORE")
    site.submit("policy=normal", *TINY)
    assert "1 done" in site.bnft("wait")


def test_all_rows_of_the_table(site: Site):
    line = [argument for argument in TINY if not argument.startswith("evaluation")]
    quick = ("evaluation.version=custom", "evaluation.attacks=[apgd-ce]", "evaluation.n_images=20")
    assert "submitted 12 of 12 tasks" in site.submit("+sweep=table2", *line, *quick)
    assert "11 done" in site.bnft("wait", seconds=400)
    assert len(json.loads(site.bnft("table", "--format=json"))["rows"]) == 11


@pytest.fixture
def narrow(tmp_path_factory, tmp_path, monkeypatch, launch):
    """A cluster that takes small arrays only."""
    with Cluster.start(tmp_path_factory.mktemp("narrow"), cpus=2, max_array_size=4) as found:
        yield from visiting(found, tmp_path, monkeypatch, launch)


@pytest.mark.usefixtures("cluster")
def test_each_child_waits_for_its_own_base_and_no_other(narrow: Site):
    narrow.submit("policy=bn_stats", "seed=0,1,2,3,4", *TINY, HELD)
    bases, more_bases, children, more_children = (array["job"] for array in narrow.arrays())
    assert {len(array["tasks"]) for array in narrow.arrays()} == {4, 1}
    assert narrow.about(f"{children}_2")["Dependency"].startswith(f"aftercorr:{bases}_")
    assert narrow.about(f"{more_children}_0")["Dependency"].startswith(f"afterok:{more_bases}_0")
    narrow.release(children, more_children, more_bases, *(f"{bases}_{index}" for index in (0, 1, 3)))
    until(lambda: narrow.queue() == {f"{bases}_2": "PENDING", f"{children}_2": "PENDING"})
    narrow.release(f"{bases}_2")
    assert "10 done" in narrow.bnft("wait")
    assert narrow.done("t") == 10 * 5, "nothing is trained twice"


def test_from_inside_another_job(site: Site):
    inside = " ".join(map(shlex.quote, [sys.executable, str(ROOT / "launch.py"), *site.line("policy=bn_stats", *TINY)]))
    outer = ["sbatch", "--wait", "--array=3", "--ntasks=1", "--time=1:00:00", f"--output={site.folder}/outer"]
    subprocess.run([*outer, f"--wrap={inside}"], cwd=site.folder, check=True, capture_output=True, timeout=120)
    said = (site.folder / "outer").read_text()
    assert "submitted 2 of 2 tasks" in said and "Runs on digits" in said and "Traceback" not in said
    bases, rest = (array["job"] for array in site.arrays())
    for job in (bases, rest):
        assert site.about(job)["ArrayTaskId"] == "0" and site.about(job)["TimeLimit"] != "01:00:00"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the program."""
    copy = tmp_path / "sources"
    for name in ("bnft", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "launch.py", copy)
    return copy


def submit_from(sources: Path, site: Site, *arguments: str, under: tuple[str, ...] = ()) -> None:
    """Submit with the copy of the program, its launcher and jobs run `under` another one."""
    python = shlex.join([*under, sys.executable])
    line = site.line("policy=bn_stats", *TINY, "hydra.launcher.detach=true", *arguments, counted=False)
    command = [*under, sys.executable, str(sources / "launch.py"), *line, f"hydra.launcher.python='{python}'"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(sources)
    subprocess.run(command, cwd=site.folder, env=environment, capture_output=True, timeout=120, check=True)


def test_what_is_edited_while_jobs_wait_does_not_reach_them(site: Site, sources: Path):
    submit_from(sources, site, HELD)
    for file in (sources / "bnft").rglob("*.py"):
        file.write_text("raise SystemExit('edited')\n")
    site.release(*(array["job"] for array in site.arrays()))
    assert "2 done" in site.bnft("wait")


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv, of util-linux, to be refused anything as root")
def test_a_source_tree_that_cannot_be_written_to_is_enough(site: Site, sources: Path):
    for path in (sources, *sources.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    submit_from(sources, site, under=("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"))
    assert "2 done" in site.bnft("wait")
    assert not list(sources.rglob("__pycache__")), "nothing could be written"

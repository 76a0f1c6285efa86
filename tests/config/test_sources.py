"""A person's own components: an edited network, attack or helper is another run, and what is asked for is what runs."""

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.command import TINY, Outcome
from support.on_slurm import HELD
from support.programs import finish, start

from bnft.common.errors import InputError
from bnft.config import components, sources
from bnft.report.rows import select
from bnft.report.table import render
from bnft.runs.execution import execute
from bnft.runs.plan import Run, plan
from bnft.runs.store import Store
from bnft.sweeps.slurm.snapshot import snapshot
from bnft.sweeps.slurm.submission import decoded, encoded
from bnft.sweeps.tasks import tasks
from bnft.sweeps.terminal import Terminal

if TYPE_CHECKING:
    from support.on_slurm import Site

NETWORK = """
from torch import nn

import {helper}


class Net(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, {helper}.WIDTH, 3), nn.BatchNorm2d({helper}.WIDTH)
        self.head = nn.Linear({helper}.WIDTH, num_classes)

    def forward(self, images):
        return self.head(self.bn(self.conv(images)).relu().mean((2, 3)))
"""
ATTACK = """
from bnft.attacks.pgd import pgd

STRENGTH = 1.0


def attack(model, inputs, labels, *, generator, **keywords):
    found = pgd(model, inputs, labels, generator=generator, **keywords)
    return inputs + STRENGTH * (found - inputs)
"""
SHAPE = """
def shape(progress: float, **others) -> float:
    return 1 - 0.5 * progress
"""
DATA = """
from bnft.data.digits import load as digits


def load(test_images: int):
    return digits(test_images)
"""
QUICK = [argument for argument in TINY if not argument.startswith("model.")]


class Project:
    """A folder of a person's own on the import path, with a network, its helper, an attack, a shape and a data set.

    The names of its modules are not those of another test's, since what is imported stays imported.
    """

    number = 0

    def __init__(self, folder: Path) -> None:
        Project.number += 1
        self.folder, self.prefix = folder, f"own{Project.number}"
        self.write("helper", "WIDTH = 2\n")
        self.write("net", NETWORK.format(helper=f"{self.prefix}_helper"))
        self.write("attack", ATTACK)
        self.write("shape", SHAPE)
        self.write("data", DATA)

    def file(self, name: str) -> Path:
        return self.folder / f"{self.prefix}_{name}.py"

    def write(self, name: str, text: str) -> None:
        self.file(name).write_text(text)

    def edit(self, name: str, old: str = "", new: str = "") -> None:
        """Replace a part of the file, or only add a comment."""
        text = self.file(name).read_text()
        assert old in text
        self.file(name).write_text(text.replace(old, new) if old else text + "# edited\n")

    def unload(self) -> None:
        """As in a new process: nothing of the project is imported."""
        for name in [name for name in sys.modules if name.startswith(self.prefix)]:
            del sys.modules[name]

    def target(self, name: str, attribute: str) -> str:
        return f"{self.prefix}_{name}.{attribute}"

    @property
    def network(self) -> list[str]:
        settings = f"{{_target_:{self.target('net', 'Net')},num_classes:10}}"
        return ["~model", f"+model={settings}"]

    def run(self, *arguments: str) -> Run:
        """The run as a new process would plan it."""
        self.unload()
        (run,) = plan([[*self.network, *QUICK, *arguments]]).runs
        return run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    found = Project(tmp_path)
    yield found
    found.unload()
    sources.forget()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Writes files below an import root."""
    monkeypatch.syspath_prepend(tmp_path)
    sources.forget()

    def written(texts: dict[str, str]) -> None:
        for name, text in texts.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return written


def names(target: str) -> list[str]:
    return [source.name for source in sources.files(target)]


# which files


def test_files_are_found_through_every_kind_of_import_and_nothing_is_run(tree):
    boom = "raise SystemExit('run')\n"
    tree(
        {
            "top/__init__.py": boom,
            "top/net.py": boom + "import torch, os, numpy as np\nfrom . import layers\nfrom .deep import block as b",
            "top/layers.py": "from .more import x\nfrom ... import beyond\n",
            "top/more.py": "def f():\n    import sibling\n",
            "top/deep/__init__.py": "from .block import *\n",
            "top/deep/block.py": "import top.net\nfrom bnft.models import resnet\n",
            "top/unrelated.py": "",
            "sibling.py": "try:\n    import spaces.one.part.thing\nexcept ImportError:\n    import nowhere\n",
            "spaces/one/part/thing.py": "from spaces import two\nbroken = (",
            "spaces/two.py": "",
            "other.py": "import top.net\n",
        }
    )
    assert names("top.net.Net") == [
        "sibling.py",
        "spaces/one/part/thing.py",
        "top/__init__.py",
        "top/deep/__init__.py",
        "top/deep/block.py",
        "top/layers.py",
        "top/more.py",
        "top/net.py",
    ]
    assert "spaces/two.py" in names("spaces.two.Net")
    assert not {"top", "sibling", "spaces"} & sys.modules.keys()


def test_an_editable_install_is_a_persons_own(tree, tmp_path, monkeypatch):
    """As setuptools installs one: a finder that knows where the package lies."""
    tree({"src/net/__init__.py": "from .inner import Net\n", "src/net/inner.py": "class Net: ...\n"})

    class Finder:
        @classmethod
        def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
            place = tmp_path / "src" / "net"
            if name != "editable":
                return None
            return spec_from_file_location(name, place / "__init__.py", submodule_search_locations=[str(place)])

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert names("editable.Net") == ["editable/__init__.py", "editable/inner.py"]


def test_what_is_installed_is_known_by_its_version_and_what_is_ours_not_at_all(tree):
    tree({"site-packages/stray.py": "class Net: ...\n"})
    assert sources.of("model", "torch.nn.Linear") == {"torch": version("torch")}
    assert sources.of("model", "bnft.models.resnet.ResNet") == sources.of("model", "collections.OrderedDict") == {}
    with pytest.raises(InputError, match=r"^model\._target_=__main__\.Net: must be in a file that can be imported"):
        sources.of("model", "__main__.Net")


# names


@pytest.mark.usefixtures("hydra")
@pytest.mark.parametrize("edited", ["net", "helper", "attack", "shape"])
def test_an_edited_component_or_helper_is_another_run(project: Project, edited: str):
    line = (
        "policy=bn_params",
        f"attack._target_={project.target('attack', 'attack')}",
        f"schedule.shape._target_={project.target('shape', 'shape')}",
    )
    before = project.run(*line)
    assert project.run(*line) == before
    (project.folder / f"{project.prefix}_unrelated.py").touch()
    assert project.run(*line).name == before.name
    project.edit(edited)
    after = project.run(*line)
    assert after.name != before.name
    ours = edited in ("net", "helper")
    assert (after.base_name != before.base_name) == ours, "the base has this model, and neither attack nor shape"
    changed = {name for name, sha256 in after.sources.items() if before.sources[name] != sha256}
    assert changed == {project.file(edited).name}
    assert before.record().sources.keys() == {project.file(name).name for name in ("net", "helper", "attack", "shape")}
    assert before.overrides == after.overrides and "_source_" not in str(before.overrides)


@pytest.mark.usefixtures("hydra")
def test_the_source_of_a_data_set_names_nothing_since_its_content_does(project: Project):
    line = ("policy=normal", f"data._target_={project.target('data', 'load')}")
    before = project.run(*line)
    project.edit("data")
    assert project.run(*line) == before and project.file("data").name not in before.sources


# what runs is what was asked for


@pytest.mark.usefixtures("hydra")
def test_code_that_was_edited_since_it_was_imported_is_refused(project: Project):
    project.run("policy=normal")
    project.edit("helper")
    with pytest.raises(InputError) as refusal:
        plan([["policy=normal", *project.network, *QUICK]])
    assert str(refusal.value) == (
        f"model._target_={project.target('net', 'Net')}: must be unchanged since this process imported it,"
        f" but {project.file('helper').name} was edited; start a new process"
    )


def test_code_that_others_imported_before_it_was_edited_is_refused(project: Project):
    importlib.import_module(f"{project.prefix}_net")
    os.utime(project.file("net"), (0, 0))
    os.utime(project.file("helper"), (0, 0))
    settings = {"_target_": project.target("net", "Net"), "num_classes": 10}
    components.check("model", settings)
    sources.forget()
    project.edit("net")
    with pytest.raises(InputError, match="was edited; start a new process"):
        components.check("model", settings)


@pytest.mark.usefixtures("hydra")
def test_a_run_whose_source_changes_after_planning_is_refused(project: Project):
    run = project.run("policy=normal")
    project.edit("helper", "WIDTH = 2", "WIDTH = 3")
    project.unload()  # as in a process that only carries it out
    with pytest.raises(InputError) as refusal:
        execute(run, Store(project.folder / "multirun"), Terminal())
    asked = f"its source has changed since it was planned ({project.file('helper').name}); start the command again"
    assert str(refusal.value) == f"{run.name}: {asked}"
    assert not (project.folder / "multirun" / run.name / "model.safetensors").exists()


@pytest.mark.usefixtures("hydra")
def test_an_edit_during_training_does_not_reach_the_processes_that_share_in_the_evaluation(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bnft.evaluation.processes.SHARED_FROM", 0.0)
    broken = f"open({str(project.file('helper'))!r}, 'w').write('raise SystemExit(1)')"
    project.write("shape", f"def shape(progress: float, **others) -> float:\n    {broken}\n    return 1.0\n")
    shape = f"schedule.shape._target_={project.target('shape', 'shape')}"
    run = project.run("policy=normal", shape, "threads=2", "evaluation.batch_size=10")
    result = execute(run, Store(project.folder / "multirun"), Terminal())
    assert result is not None and result.robust.images == 20
    assert "raise" in project.file("helper").read_text()


def test_a_sweep_after_an_edit_computes_with_the_edited_network(
    project: Project, launch: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
):
    """In processes of its own, as on the command line: the old table must not come back."""
    monkeypatch.setenv("PYTHONPATH", str(project.folder))
    line = ["-m", "policy=normal", *project.network, *QUICK]
    store = Store(project.folder / "multirun")

    def shown(out: str) -> tuple[str, list[dict[str, Any]]]:
        return out.splitlines()[0], json.loads(render(select(store), "json"))["rows"]

    heading, rows = shown(launch(*line, "hydra/launcher=basic").out)
    assert [row["parameters"] for row in rows] == [22 * 2 + 10]
    project.edit("helper", "WIDTH = 2", "WIDTH = 3")
    new_heading, new_rows = shown(finish(start(project.folder, *line))[0])
    assert [row["parameters"] for row in new_rows] == [22 * 3 + 10]
    assert f"{project.target('net', 'Net')} (source " in heading and heading != new_heading
    (run,) = new_rows[0]["runs"]
    assert run not in rows[0]["runs"]
    written = yaml.safe_load((store.run(run).path / "config.yaml").read_text())["run"]["sources"]
    assert written == new_rows[0]["sources"]
    assert sorted(written) == [project.file("helper").name, project.file("net").name]


@pytest.mark.usefixtures("hydra")
def test_results_of_one_attack_before_and_after_an_edit_are_told_apart(project: Project):
    store = Store(project.folder / "multirun")
    line = ("policy=adv", f"attack._target_={project.target('attack', 'attack')}")
    runs = [project.run(*line)]
    execute(runs[0], store, Terminal())
    project.edit("attack", "STRENGTH = 1.0", "STRENGTH = 0.5")
    runs.append(project.run(*line))
    execute(runs[1], store, Terminal())
    losses = [store.run(run.name).history()[-1]["loss"] for run in runs]
    assert losses[0] != losses[1], "the edited attack is what ran"
    (study,) = select(store, ["all"]).studies()
    asked = f"ADV (PGD) [attack._target_={project.target('attack', 'attack')}]"
    sha256 = {row.first.run.name: row.first.run.identity["attack"]["_source_"] for row in study.rows}
    assert sorted(study.labels()) == sorted(f"{asked} [attack._source_={sha256[run.name][:10]}]" for run in runs)


# on SLURM


@pytest.mark.usefixtures("hydra")
def test_the_code_of_jobs_holds_helpers_and_data_sets_and_the_code_of_bases(project: Project, tmp_path: Path):
    attack = project.target("attack", "attack")
    project.write("load", f"from {project.prefix}_data import load\n")
    line = [*project.network, *QUICK, f"data._target_={project.target('load', 'load')}"]
    base = ["base=adv", f"base_overrides=['attack._target_={attack}']"]
    planned = plan([[*line, "policy=bn_params", *base]])
    (task,) = [task for task in tasks(planned) if task.evaluated]
    project.edit("helper")
    code = snapshot(tmp_path / "code", [decoded(json.loads(json.dumps(encoded(task))))])
    own = {path.name for path in code.iterdir()} - {"bnft"}
    assert own == {project.file(name).name for name in ("net", "helper", "attack", "data", "load")}
    assert "edited" not in (code / project.file("helper").name).read_text(), "as it was when it was asked for"


def test_jobs_run_the_network_and_helper_that_they_were_submitted_with(site: "Site", project: Project):
    site.submit("policy=normal", *project.network, *QUICK, HELD)
    for name in ("net", "helper"):
        project.write(name, "raise SystemExit('edited')\n")
    site.release(*(array["job"] for array in site.arrays()))
    assert "1 done" in site.bnft("wait")

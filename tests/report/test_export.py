"""`bnft export`: a copy with the same table and figures, without this machine's folders, that serves as a base."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.command import TINY
from support.made_store import MadeStore

from bnft import api
from bnft.cli import main
from bnft.common.files import read_arrays
from bnft.common.stopping import Stopped, steady
from bnft.report import table, write
from bnft.report.export import export, portable
from bnft.report.recorded import EPOCHS
from bnft.report.rows import select
from bnft.runs.evaluation_folder import IMAGES
from bnft.runs.execution import execute
from bnft.runs.store import Store
from bnft.sweeps.record import record
from bnft.sweeps.terminal import Terminal
from bnft.tracking.rows import Records

PLACES = ("evaluation.1", "evaluation")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["export", *arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_copy_has_the_same_table_and_the_record_thinned(tmp_path, capsys, monkeypatch):
    made = MadeStore(Store(tmp_path / "multirun"), epochs=40).add(seeds=(0, 1))
    made.sweep()
    main(["export", str(tmp_path / "kept"), "--store", str(made.store.root), "--models", "adv", "normal"])
    assert "exported: 22 runs" in capsys.readouterr().out
    kept = Store(tmp_path / "kept")
    for form in ("md", "json"):
        for names in ([], ["all"]):
            assert table.render(select(kept, names), form) == table.render(select(made.store, names), form)
    run = next(run for run in made.store.runs() if run.name.startswith("bn_params-"))
    ours, theirs = kept.run(run.name).batchnorm(), run.batchnorm()
    assert len(ours.epochs) == EPOCHS and ours.epochs[0] == 0 and ours.epochs[-1] == theirs.epochs[-1]
    for layer in theirs.layers:
        assert (ours.values(layer, "m")[-1] == theirs.values(layer, "m")[-1]).all()
    with_model = {file.parent.name.rpartition("-")[0] for file in kept.root.glob("*/model.safetensors")}
    assert with_model == {"adv", "normal"}
    kinds = {name for file in kept.root.rglob("outcomes.safetensors") for name in read_arrays(file)}
    assert kinds == {"clean_logits", "labels", "fallen_at", "adversarial_logits", "pgd_logits"}
    monkeypatch.setattr(write, "PRINTED_GROUPS", 0)
    main(["report", "all", "--store", str(kept.root)])
    assert "exported without its images" in (kept.root / "reports" / "all" / "index.html").read_text()


def test_a_copy_keeps_the_study_of_its_runs_over_several_exports(tmp_path):
    made = MadeStore(Store(tmp_path / "multirun")).add(["normal", "adv", "bn_stats"])
    made.sweep()
    alone = made.add(["normal"], seeds=[5]).store.save_sweep(made.entries, [], "bnft run", None)
    runs = {run.name.rpartition("-")[0]: run.name for run in made.store.runs() if run.config()["seed"] == 0}
    kept = Store(tmp_path / "kept")
    for policies in (["normal", "adv"], ["adv", "bn_stats"]):
        export(made.store, [runs[policy] for policy in policies], kept, ())
    (sweep,) = kept.sweeps()
    assert sweep == "table2" and len(kept.sweep(sweep)["runs"]) == 3
    for form in ("md", "json"):
        assert table.render(select(kept), form) == table.render(select(made.store, made.store.sweeps()[:1]), form)
    other = Store(tmp_path / "other")
    export(made.store, [alone], other, ())
    assert other.sweeps() == [alone] and "study" not in other.sweep(alone), "this sweep has no study"


def test_what_cannot_be_exported_is_refused_and_writes_nothing(tmp_path, capsys):
    made = MadeStore(Store(tmp_path / "multirun")).add(("normal",)).add(("adv",), done=False)
    made.sweep()
    kept, store = str(tmp_path / "kept"), ("--store", str(made.store.root))
    assert "must be done to be exported" in refused(capsys, kept, *store)
    said = refused(capsys, kept, "all", *store, "--models", "bn_params")
    assert "--models bn_params: must be a policy of these runs (normal)" in said
    assert "must be another folder than the store" in refused(capsys, str(made.store.root), "all", *store)
    (model,) = made.store.root.glob("*/model.safetensors")
    model.unlink()
    assert "has no model any more" in refused(capsys, kept, "all", *store, "--models", "normal")
    assert not Path(kept).exists()


def test_paths_lose_their_folders_and_nothing_else_changes():
    moved = ["data.path=/home/me/cifar.npz", "base_overrides=['data.path=/home/me/c.npz','schedule.epochs=2']"]
    moved += ["data.path='/home/me/my file.npz'", "base=~/runs/normal-0123456789", "+paths=[/a/b.npz,/c/d.npz]"]
    kept = ["attack.eps=8/255", "schedule/shape=one_cycle", "base=a/b", "base_overrides=['schedule.epochs=2']"]
    shortened = ["data.path=cifar.npz", "base_overrides=['data.path=c.npz','schedule.epochs=2']"]
    shortened += ["data.path='my file.npz'", "base=normal-0123456789", "+paths=[b.npz,d.npz]"]
    identity = {"model": {"weights": "/home/me/w.pt"}}
    assert portable({"store": "/data/multirun", "line": [*moved, *kept], "epochs": 3, "identity": identity}) == {
        "store": "multirun",
        "line": [*shortened, *kept],
        "epochs": 3,
        "identity": identity,
    }, "what a name is the hash of stays"


def test_an_exported_model_is_a_base_and_is_evaluated_without_training(launch, tmp_path):
    assert launch("policy=normal", *TINY).code == 0
    main(["export", str(tmp_path / "kept"), "all", "--store", str(tmp_path / "multirun"), "--models", "normal"])
    (run,) = (tmp_path / "kept").glob("normal-*")
    (first,) = run.rglob("result.json")
    assert launch("policy=bn_stats", *TINY, f"base=kept/{run.name}", "store=other").code == 0
    assert not list((tmp_path / "other").glob("normal-*")), "the base is not trained again"
    again = launch("policy=normal", *TINY, f"base=kept/{run.name}", "schedule.epochs=0", "store=other")
    assert again.code == 0
    (second,) = (tmp_path / "other").glob("normal-*/evaluation/*/result.json")
    one, two = (json.loads(file.read_text()) for file in (first, second))
    assert one["clean"] == two["clean"] and one["robust"] == two["robust"]
    model = next((tmp_path / "other").glob("normal-*/model.safetensors"))
    assert all((value == load_file(model)[name]).all() for name, value in load_file(run / "model.safetensors").items())


@pytest.mark.long
def test_what_was_exported_without_models_is_done(launch, tmp_path, capsys):
    line = ("-m", "policy=bn_stats,bn_params", *TINY)
    assert launch(*line).code == 0
    main(["export", str(tmp_path / "kept"), "--store", str(tmp_path / "multirun")])
    said = launch(*line, "store=kept")
    assert said.code == 0 and "training" not in said.err and "BN PARAMS" in said.out
    assert not list((tmp_path / "kept").glob("normal-*")), "nobody needs the base any more"
    capsys.readouterr()
    main(["status", "--store", str(tmp_path / "kept")])
    assert "2 runs: 2 done" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["wait", "--store", str(tmp_path / "kept")])
    assert ended.value.code == 0


def test_a_base_whose_model_is_gone_is_trained_again_and_its_results_are_set_aside(launch, tmp_path):
    assert launch("policy=normal", *TINY).code == 0
    (run,) = (tmp_path / "multirun").glob("normal-*")
    (run / "model.safetensors").unlink()
    assert "training" not in launch("policy=normal", *TINY).err, "it is done"
    said = launch("policy=bn_stats", *TINY)
    assert said.code == 0 and "its results are moved aside" in said.err
    assert not list(run.glob("evaluation/*")) and len(list(run.glob("evaluation.1/*/result.json"))) == 1
    assert launch("policy=normal", *TINY).code == 0
    first, second = (json.loads(next(run.glob(f"{place}/*/result.json")).read_text()) for place in PLACES)
    assert first["robust"] == second["robust"], "it is the same model"


# sweeps


def test_the_sweep_comes_along_without_this_machine(tmp_path, capsys):
    made = MadeStore(Store(tmp_path / "multirun")).add(("normal", "adv"))
    name = made.sweep("/home/me/launch.py -m policy=normal,adv hydra/launcher=slurm data.path=/home/me/c.npz")
    more = {"arrays": [{"name": "a", "tasks": {}}], "asked": {"title": "A / B", "files": ["/home/me/x.yaml"]}}
    made.store.extend_sweep(name, **more)
    made.add(("bn_stats",)).sweep()
    main(["export", str(tmp_path / "kept"), name, "--store", str(made.store.root)])
    kept, before = Store(tmp_path / "kept"), made.store.sweep(name)
    assert kept.sweeps() == [name]
    expected = {key: value for key, value in before.items() if key not in ("launcher", "arrays")}
    expected["command"] = "launch.py -m policy=normal,adv hydra/launcher=slurm data.path=c.npz"
    expected["asked"] = {"title": "A / B", "files": ["x.yaml"]}
    assert kept.sweep(name) == expected
    assert len(select(kept).results) == 2, "it is the newest sweep there"
    capsys.readouterr()
    main(["status", "--store", str(kept.root)])
    assert "2 runs: 2 done" in capsys.readouterr().out
    main(["export", str(kept.root), name, "--store", str(made.store.root)])
    kept.extend_sweep(name, runs=[])
    assert f"must not have another sweep named {name}" in refused(
        capsys, str(kept.root), name, "--store", str(made.store.root)
    )


class Stops:
    """Stops a run at that call of the pulse."""

    def __init__(self, at: int) -> None:
        self.left = at

    def pulse(self) -> None:
        self.left -= 1
        if not self.left:
            raise Stopped


LINE = ("policy=normal,bn_params,bn_stats", *TINY, "data.attack_batch_size=5", "device=cpu")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A store with a sweep of three runs, stopped: NORMAL is done, BN PARAMS in training, BN STATS in evaluation."""
    folder = tmp_path_factory.mktemp("begun")
    planned = api.plan([*LINE, f"store={folder}/multirun", "sweep_name=mine"])
    record(planned, "bnft run -m")
    normal, bn_params, bn_stats = planned.runs
    execute(normal, planned.store, Terminal())
    for run, at in ((bn_params, 30), (bn_stats, 95)):
        with pytest.raises(Stopped):
            execute(run, planned.store, Terminal(), pulse=Stops(at).pulse)
    folders = [planned.store.run(run.name) for run in planned.runs]
    assert (folders[1].path / "checkpoint.safetensors").exists() and not folders[1].trained
    assert list(folders[2].path.glob("evaluation/*/cascade.safetensors")), "stopped in the middle of its evaluation"
    return planned.store


def copied(begun, where):
    """Another copy of this store, which can be changed."""
    shutil.copytree(begun.root, where)
    return Store(where)


def continued(launch, store):
    """Continue the sweep. Return the outcomes of its runs, without images, which NORMAL lacks after an export."""
    said = launch("-m", *LINE, f"store={store.root}", "sweep_name=mine")
    assert said.code == 0, said.err
    outcomes = {folder.name: folder.evaluations()[0].outcomes(images=False) for folder in store.runs()}
    return {run: {name: value.tolist() for name, value in arrays.items()} for run, arrays in outcomes.items()}


def test_a_sweep_continues_from_an_archive_to_the_same_bits(begun, launch, tmp_path, capsys):
    store = copied(begun, tmp_path / "multirun")
    main(["export", str(tmp_path / "state.tar.xz"), "--unfinished", "--store", str(store.root)])
    assert "exported: 3 runs" in capsys.readouterr().out
    with tarfile.open(tmp_path / "state.tar.xz") as archive:
        assert {(entry.uid, entry.uname) for entry in archive} == {(0, "")}
        archive.extractall(tmp_path / "other", filter="data")
    other = Store(tmp_path / "other" / "multirun")
    written = {str(file.relative_to(other.root)) for file in other.root.rglob("*") if file.is_file()}
    assert not [name for name in written if "lock" in name or "tracking" in name]
    assert str(tmp_path) not in "".join(file.read_text() for file in other.root.rglob("*.yaml"))
    assert not {"host", "pid"} & other.runs()[0].status().keys()
    normal = next(run for run in other.runs() if run.name.startswith("normal-"))
    assert normal.trained and read_arrays(next(normal.path.rglob("outcomes.safetensors"))).keys().isdisjoint(IMAGES)
    steps = {run.name: run.progress_made() for run in store.runs()}
    assert {run.name: run.progress_made() for run in other.runs()} == steps
    ours, theirs = continued(launch, store), continued(launch, other)
    assert ours.keys() == theirs.keys() and all(ours[name] == values for name, values in theirs.items())


def test_what_is_copied_again_replaces_what_was_there(begun, launch, tmp_path):
    store, kept = copied(begun, tmp_path / "multirun"), tmp_path / "kept"
    export_line = ["export", str(kept), "mine", "--unfinished", "--store", str(store.root)]
    main(export_line)
    assert len(list(kept.rglob("checkpoint.safetensors"))) == len(list(kept.rglob("cascade.safetensors"))) == 1
    continued(launch, store)
    main(export_line)
    assert not [*kept.rglob("checkpoint.safetensors"), *kept.rglob("cascade.safetensors")]
    assert not list(kept.rglob("model.safetensors")), "nobody needs a base any more"
    assert len(select(Store(kept)).results) == 3
    main([*export_line, "--models", "normal"])
    assert len(list(kept.rglob("model.safetensors"))) == 1


def test_what_cannot_be_continued_is_refused(begun, tmp_path, capsys):
    store = ("--unfinished", "--store", str(begun.root))
    (run,) = begun.root.glob("bn_params-*")
    with begun.locked(run.name, steady, steady):
        said = refused(capsys, str(tmp_path / "kept"), *store)
    assert f"{run.name}: must not be running" in said
    assert "--unfinished: must be given with sweeps only, not with all" in refused(capsys, "kept", "all", *store)
    assert f"sweeps only, not with {run.name}" in refused(capsys, "kept", run.name, *store)
    assert "adv: must be a policy of these runs (bn_params" in refused(capsys, "kept", *store, "--models", "adv")
    (tmp_path / "x.tar.xz").mkdir()
    assert "must be a file, because its name ends in .tar.xz" in refused(capsys, str(tmp_path / "x.tar.xz"), *store)
    assert "add --unfinished" in refused(capsys, str(tmp_path / "kept"), "--store", str(begun.root))
    assert [file.name for file in tmp_path.iterdir()] == ["x.tar.xz"], "nothing was written"


def test_what_was_exported_can_be_tracked(tmp_path):
    made = MadeStore(Store(tmp_path / "multirun")).add(("adv",))
    (run,) = export(made.store, ["all"], Store(tmp_path / "kept"), ())
    ids = [folder.path.name for folder in run.evaluations()]
    whole, kept = (Records(folder, ids) for folder in (made.store.runs()[0], run))
    assert len(kept) == len(whole)
    ours, theirs = kept.row(len(kept) - 1), whole.row(len(whole) - 1)
    assert ours.values == theirs.values and ours.tables == theirs.tables
    assert run.status()["state"] == "done"

"""`bnft export`: a copy with the same table and figures, without this machine's folders, that serves as a base."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.command import TINY
from support.made_store import MadeStore

from bnft.cli import main
from bnft.common.files import read_arrays
from bnft.report import table, write
from bnft.report.export import export, portable
from bnft.report.recorded import EPOCHS
from bnft.report.rows import select
from bnft.runs.store import Store
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
        assert table.render(select(kept), form) == table.render(select(made.store, ["all"]), form)
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


def test_what_was_exported_can_be_tracked(tmp_path):
    made = MadeStore(Store(tmp_path / "multirun")).add(("adv",))
    (run,) = export(made.store, ["all"], Store(tmp_path / "kept"), ())
    ids = [folder.path.name for folder in run.evaluations()]
    whole, kept = (Records(folder, ids) for folder in (made.store.runs()[0], run))
    assert len(kept) == len(whole)
    ours, theirs = kept.row(len(kept) - 1), whole.row(len(whole) - 1)
    assert ours.values == theirs.values and ours.tables == theirs.tables
    assert run.status()["state"] == "done"

"""Stored files that were damaged, edited or mixed up, cannot be read, or are from before checksums."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from support.command import TINY, Outcome
from support.made_store import MadeStore

from bnft import cli
from bnft.common import files
from bnft.common.errors import DamagedError
from bnft.common.stopping import Stopped
from bnft.report import table, write
from bnft.report.rows import select
from bnft.runs.evaluation_folder import IMAGES, EvaluationFolder
from bnft.runs.execution import execute
from bnft.runs.plan import Run, plan
from bnft.runs.result import plain
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import Store

NOBODY = 65534  # a user who owns nothing
LONGEST = 400  # characters of a refusal, without the folder of the test

Launch = Callable[..., Outcome]


# how files are damaged


def flip(file: Path, place: int, bit: int = 4) -> None:
    """Flip one bit of a file on disk."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1 << bit
    file.write_bytes(content)


def flip_tensor(file: Path, name: str) -> None:
    """Flip one bit in the data of one tensor of a file on disk."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    begin, end = json.loads(content[8 : 8 + length])[name]["data_offsets"]
    flip(file, 8 + length + (begin + end) // 2)


def edit(file: Path, old: str, new: str) -> None:
    """Replace the first `old` in a text file, as a person with an editor would."""
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))


def zero(file: Path, name: str, sealed: bool = False) -> None:
    """Set one tensor to zero with the library, or with our own functions and right checksums."""
    if sealed:
        tensors, metadata = files.read_tensors(file)
        files.write_tensors(file, {**tensors, name: torch.zeros_like(tensors[name])}, metadata)
        return
    with safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
    arrays = load_file(file)
    save_file({**arrays, name: np.zeros_like(arrays[name])}, file, metadata)


def without_checksums(root: Path) -> None:
    """Make the files of a store what they were before checksums."""
    for file in root.glob("*-*/**/*.safetensors"):
        with safe_open(file, framework="numpy") as opened:
            kept = json.loads(opened.metadata()["bnft"])
        del kept["checksum"], kept["sha256"]
        save_file(load_file(file), file, {"bnft": json.dumps(kept)})
    for file in root.glob("*-*/**/result.json"):
        result = json.loads(file.read_text())
        del result[files.CHECKSUM], result["outcomes"]
        file.write_text(json.dumps(result))
    for file in root.glob("*-*/history.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text(
            "".join(json.dumps({k: v for k, v in line.items() if k != "checksum"}) + "\n" for line in lines)
        )
    for file in root.glob("*-*/config.yaml"):
        file.write_text("".join(line for line in file.open() if not line.startswith("checksum:")))


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> Outcome:
    """How `bnft ARGUMENTS` ends."""
    capsys.readouterr()
    code = 0
    try:
        cli.main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    return Outcome(code, *capsys.readouterr())


def refusal(outcome: Outcome, file: Path) -> str:
    """The one line with which a command was refused on account of a file."""
    assert outcome.code == 2 and outcome.err.count("\n") == 1, outcome
    said = outcome.err.replace(str(Path.cwd()), "").replace(str(file.parent.absolute()), "")
    assert outcome.err.startswith("bnft: ") and len(said) < LONGEST
    assert str(file) in outcome.err
    return outcome.err


# files: whatever bit is flipped, nothing else is read


def written(folder: Path, kind: str) -> tuple[Path, Callable[[], Any]]:
    """A small file, and what reads it."""
    file = folder / kind
    plain = {"loss": 0.25, "epoch": 1, "name": "äöü", "none": None, "list": [1, 2.5], "when": "2026-01-01"}
    if kind == "tensors":
        tensors = {"a": torch.arange(3.0), "b": torch.tensor(7), "c": torch.zeros(0), "d": torch.ones(2, 2).bool()}
        files.write_tensors(file, tensors, {"eps": {"bn": 1e-5}})

        def read() -> Any:
            arrays, metadata = files.read_arrays(file), files.read_metadata(file)
            return {name: (str(array.dtype), array.tolist()) for name, array in arrays.items()}, metadata

        return file, read
    if kind == "lines":
        files.write_lines(file, [plain, {**plain, "epoch": 2}, {**plain, "epoch": 3}])
        return file, lambda: files.read_lines(file)
    if kind == "yaml":
        files.write_yaml(file, plain)
        return file, lambda: files.read_yaml(file)
    files.write_json(file, files.sealed(plain))
    return file, lambda: files.unsealed(file, dict(files.read_json(file)))


@pytest.mark.parametrize("kind", ["tensors", "lines", "yaml", "json"])
def test_whatever_bit_is_flipped_nothing_else_is_read(tmp_path: Path, kind: str) -> None:
    """A flip in a checksum's own name makes a file from before checksums, whose content is what it was."""
    file, read = written(tmp_path, kind)
    expected, content, refused = read(), file.read_bytes(), 0
    for place in range(len(content)):
        flip(file, place, place % 7)
        try:
            found = read()
            if kind in ("json", "yaml"):
                found = {key: value for key, value in found.items() if key in expected or value in expected.values()}
            assert found == expected, (place, content[place : place + 20])
        except DamagedError:
            refused += 1
        file.write_bytes(content)
    assert read() == expected and refused > len(content) // 2


def test_a_line_that_is_gone_or_elsewhere_is_missed(tmp_path: Path) -> None:
    file, _ = written(tmp_path, "lines")
    first, second, third = file.read_text().splitlines(keepends=True)
    for lines in ((first, third), (second, first, third), (second, third)):
        file.write_text("".join(lines))
        with pytest.raises(DamagedError, match="do not match their checksums"):
            files.read_lines(file)


def test_the_checksum_of_a_tensor_is_of_its_type_and_shape_too_and_only_what_is_read_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    files.write_tensors(file, {"a": torch.zeros(4), "b": torch.ones(4)})
    flip_tensor(file, "b")
    assert files.read_arrays(file, without=["b"])["a"].tolist() == [0.0] * 4
    for read in (files.read_arrays, files.read_tensors):
        with pytest.raises(DamagedError, match=r"x.safetensors: is damaged, b does not match its checksum"):
            read(file)
    for other in (torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32)):
        files.write_tensors(file, {"a": torch.zeros(4)})
        with safe_open(file, framework="numpy") as opened:
            metadata = opened.metadata()
        save_file({"a": other.numpy()}, file, metadata)
        with pytest.raises(DamagedError):
            files.read_arrays(file)
        save_file({"a": np.zeros(4, np.float32), "new": np.zeros(1)}, file, metadata)
        with pytest.raises(DamagedError, match="its tensors are not those that were written"):
            files.read_metadata(file)


# commands that read results


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    made = MadeStore(Store(tmp_path / "multirun")).add(("normal", "adv", "bn_params"))
    made.sweep()
    return made


def evaluation_of(store: Store, policy: str) -> Path:
    (folder,) = store.root.glob(f"{policy}-*/evaluation/*")
    return folder


def swap(made: MadeStore, *names: str) -> Path:
    """Exchange files of two evaluations; returns the first of those that is read first."""
    ours, theirs = (evaluation_of(made.store, policy) for policy in ("adv", "normal"))
    for name in names:
        content = (ours / name).read_bytes()
        (ours / name).write_bytes((theirs / name).read_bytes())
        (theirs / name).write_bytes(content)
    return theirs / names[0]


def shaken(made: MadeStore, how: str) -> Path:
    """Damage the result of ADV in some way; returns the file that is to be named."""
    folder = evaluation_of(made.store, "adv")
    outcomes, result = folder / "outcomes.safetensors", folder / "result.json"
    if how in ("fallen_at", "clean_logits", "labels"):
        flip_tensor(outcomes, how)
    elif how == "edited":
        edit(result, '"policy": "adv"', '"policy": "bn_only"')
        return result
    elif how == "error":
        edit(result, '"errors": ', '"errors": 1')
        return result
    elif how == "stripped":
        kept = json.loads(result.read_text())
        del kept["checksum"], kept["outcomes"]
        kept["robust"]["error"] = 0.0
        result.write_text(json.dumps(kept))
    elif how == "swapped":
        return swap(made, "outcomes.safetensors")
    elif how == "both swapped":
        return swap(made, "result.json", "outcomes.safetensors")
    elif how == "zeroed":
        zero(outcomes, "fallen_at")
    elif how == "zeroed with checksums":
        zero(outcomes, "fallen_at", sealed=True)
    elif how == "zeroed without checksums":
        without_checksums(made.store.root)
        zero(outcomes, "fallen_at")
    elif how == "gone":
        outcomes.unlink()
    elif how == "cut":
        outcomes.write_bytes(outcomes.read_bytes()[:-100])
    return outcomes


RESULTS = ["fallen_at", "clean_logits", "labels", "edited", "error", "stripped", "swapped", "both swapped", "zeroed"]
RESULTS += ("zeroed with checksums", "zeroed without checksums", "gone", "cut")


@pytest.mark.parametrize("how", RESULTS)
def test_a_damaged_result_is_refused_by_table_report_and_export(
    made: MadeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    file = shaken(made, how)
    store = ("--store", str(made.store.root))
    before = sorted(tmp_path.rglob("*"))
    for command in (("table",), ("report",), ("export", str(tmp_path / "kept"))):
        said = called(capsys, *command, *store)
        line = refusal(said, file)
        assert (said.out == "" and "damaged" in line) or how == "gone"
        assert "repeat the command that wrote it" in line
    assert sorted(tmp_path.rglob("*")) == before
    said = called(capsys, "status", *store)
    named = [line for line in said.out.splitlines() if line.startswith("adv-")]
    assert said.code == 0 and "damaged" in named[0] and file.name in named[0]
    assert said.out.count("  done  ") == (1 if "swapped" in how else 2), said.out
    assert json.loads(called(capsys, "status", "--json", *store).out)
    assert called(capsys, "wait", *store).code == 1


def test_damaged_images_are_refused_by_the_report_alone(
    made: MadeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, store = evaluation_of(made.store, "adv") / "outcomes.safetensors", ("--store", str(made.store.root))
    for name in IMAGES:
        flip_tensor(file, name)
    assert called(capsys, "table", *store).code == 0
    assert called(capsys, "export", str(tmp_path / "kept"), *store).code == 0, "which leaves the images out"
    assert "does not match its checksum; remove this file" in refusal(called(capsys, "report", *store), file)
    assert not (made.store.root / "reports").exists()


def test_damaged_logs_are_a_note_of_the_report_and_refused_by_export(
    made: MadeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,), (history,) = (made.store.root.glob(f"adv-*/{name}") for name in ("batchnorm.*", "history.jsonl"))
    (config,), store = made.store.root.glob("adv-*/config.yaml"), ("--store", str(made.store.root))
    flip_tensor(record, "network.bn.variance")
    edit(history, '"loss": ', '"loss": 1')
    assert called(capsys, "report", *store).code == 0
    page = (made.store.root / "reports" / made.store.sweeps()[-1] / "index.html").read_text()
    assert "no record of BN layers" in page and "network.bn.variance does not match its checksum" in page
    assert "no training curve" in page and "history.jsonl: is damaged" in page
    for file, repair in ((history, "move"), (record, "move"), (config, "move its folder away")):
        if file == config:
            edit(config, "title: ADV", "title: ADW")
        line = refusal(called(capsys, "export", str(tmp_path / "kept"), *store), file)
        assert "damaged" in line and repair in line
        assert not (tmp_path / "kept").exists()
        if file == history:
            edit(history, '"loss": 1', '"loss": ')


def test_damaged_models_are_refused_by_export(
    made: MadeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model,) = made.store.root.glob("adv-*/model.safetensors")
    flip_tensor(model, "network.logits.bias")
    arguments = ("export", str(tmp_path / "kept"), "--store", str(made.store.root), "--models", "normal", "adv")
    assert "network.logits.bias does not match its checksum" in refusal(called(capsys, *arguments), model)
    (other,) = made.store.root.glob("normal-*/model.safetensors")
    model.write_bytes(other.read_bytes())
    assert "is damaged, it is the model of normal-" in refusal(called(capsys, *arguments), model)
    assert not (tmp_path / "kept").exists()


def test_exported_copies_have_checksums_of_their_own(made: MadeStore, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in made.store.root.glob("*/model.safetensors")}
    for origin in ("whole", "from before"):
        if origin == "from before":
            without_checksums(made.store.root)
        target = Store(tmp_path / origin)
        cli.main(["export", str(target.root), "--store", str(made.store.root), "--models", "adv"])
        assert select(target, ["all"]).note == ""
        (model,) = target.root.glob("*/model.safetensors")
        assert model.read_bytes() == before[made.store.root / model.parent.name / model.name], "the same file"
        for run in target.runs():
            assert files.CHECKSUM in json.loads((run.path / "history.jsonl").read_text().splitlines()[0])
            assert (run.path / "config.yaml").read_text().splitlines()[-1].startswith("checksum: ")
            for file in run.path.rglob("*.safetensors"):
                assert files.checksum(file) is not None
        (outcomes,) = target.root.glob("adv-*/evaluation/*/outcomes.safetensors")
        flip_tensor(outcomes, "fallen_at")
        with pytest.raises(DamagedError, match="fallen_at"):
            select(target, ["all"])


def test_files_from_before_checksums_are_read_with_one_note(
    made: MadeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "PRINTED_GROUPS", 0)
    store = ("--store", str(made.store.root))
    usual = called(capsys, "table", *store)
    without_checksums(made.store.root)
    said = called(capsys, "table", *store)
    note = "Note: 3 results without checksums were read unchecked\n"
    (which,) = usual.err.splitlines(keepends=True)
    assert "the newest" in which and (said.code, said.out) == (0, usual.out)
    assert sorted(said.err.splitlines(keepends=True)) == sorted([which, note])
    said = called(capsys, "report", *store)
    page = (made.store.root / "reports" / made.store.sweeps()[-1] / "index.html").read_text()
    assert said.err.count(note) == 1 and note.strip() in page
    assert called(capsys, "export", str(tmp_path / "kept"), *store).err.count(note) == 1
    assert "3 done" in called(capsys, "status", *store).out


def test_a_table_reads_no_images(made: MadeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those are most of what there is to read."""
    monkeypatch.setattr(files, "_digest", lambda tensor, digest=files._digest: digest(tensor[: len(tensor)]))
    read = []
    real = files._read
    monkeypatch.setattr(files, "_read", lambda *given: read.append((given[0].name, given[2])) or real(*given))
    table.render(select(made.store), "md")
    outcomes = [without for name, without in read if name == "outcomes.safetensors"]
    assert outcomes and all(set(IMAGES) <= set(without) for without in outcomes)


# runs that are asked for again


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store of `normal` is kept once it is made."""
    return tmp_path_factory.mktemp("kept") / "multirun"


@pytest.fixture
def normal(launch: Launch, tmp_path: Path, kept: Path) -> RunFolder:
    """A run of NORMAL, done."""
    if not kept.exists():
        assert launch("policy=normal", *TINY).code == 0
        shutil.copytree(tmp_path / "multirun", kept)
    shutil.copytree(kept, tmp_path / "multirun", dirs_exist_ok=True)
    (path,) = (tmp_path / "multirun").glob("normal-*")
    return RunFolder(path)


def numbers(run: RunFolder) -> Any:
    (evaluation,) = run.evaluations()
    result = evaluation.result()
    assert result is not None
    return result.clean, result.robust


def evaluated(run: RunFolder) -> EvaluationFolder:
    (evaluation,) = run.evaluations()
    return evaluation


@pytest.mark.parametrize("how", ["outcomes", "result", "images"])
def test_a_damaged_result_is_evaluated_again(launch: Launch, normal: RunFolder, how: str) -> None:
    before, folder = numbers(normal), evaluated(normal).path
    model = (normal.path / "model.safetensors").stat()
    if how == "result":
        edit(folder / "result.json", '"error": ', '"error": 1')
    else:
        flip_tensor(folder / "outcomes.safetensors", "adversarial" if how == "images" else "fallen_at")
    said = launch(*(["-m"] if how == "outcomes" else []), "policy=normal", *TINY)
    assert said.code == 0 and "evaluating again: " in said.err and "is damaged" in said.err
    assert numbers(normal) == before and evaluated(normal).outcomes()
    assert (normal.path / "model.safetensors").stat().st_mtime_ns == model.st_mtime_ns, "nothing is trained"


def test_a_damaged_base_is_trained_again_and_its_results_are_set_aside(launch: Launch, normal: RunFolder) -> None:
    model, before = normal.path / "model.safetensors", numbers(normal)
    whole = model.read_bytes()
    flip_tensor(model, "network.bn.running_var")
    said = launch("policy=bn_stats", *TINY)
    assert said.code == 0
    assert f"{normal.name}  training again: {'multirun'}/{normal.name}/model.safetensors: is damaged" in said.err
    assert "running_var does not match its checksum; its results are moved aside" in said.err
    tensors, _ = files.read_arrays(model), model.write_bytes(whole)
    assert all((value == tensors[name]).all() for name, value in files.read_arrays(model).items())
    assert normal.evaluations() == [] and len(list(normal.path.glob("evaluation.1/*/result.json"))) == 1
    assert launch("policy=normal", *TINY).code == 0 and numbers(normal) == before, "it is the same model"


def test_a_damaged_model_is_trained_again_where_it_is_evaluated(launch: Launch, normal: RunFolder) -> None:
    flip_tensor(normal.path / "model.safetensors", "network.bn.running_var")
    assert "damaged" not in launch("policy=normal", *TINY).err, "nobody reads it"
    said = launch("policy=normal", *TINY, "evaluation.n_images=10")
    assert said.code == 0 and "training again: " in said.err and "is damaged" in said.err
    assert [result.robust.images for folder in normal.evaluations() if (result := folder.result())] == [10]
    assert len(list(normal.path.glob("evaluation.1/*/result.json"))) == 1, "what was measured is not lost"


def test_a_damaged_base_that_is_named_is_refused(launch: Launch, normal: RunFolder, tmp_path: Path) -> None:
    model = normal.path / "model.safetensors"
    whole = model.read_bytes()
    shutil.copytree(normal.path, tmp_path / "other" / normal.name)
    for damage in ("bit", "cut"):
        flip_tensor(model, "network.bn.running_var") if damage == "bit" else model.write_bytes(whole[:-100])
        for base in (normal.name, str(normal.path), str(model)):
            said = launch("policy=bn_stats", *TINY, f"base={base}")
            line = refusal(said, Path("model.safetensors"))
            assert said.out == "" and f"bnft: base={base}: " in line and "is damaged" in line
    assert not list((tmp_path / "multirun").glob("bn_stats-*"))
    model.write_bytes(whole)
    edit(normal.path / "config.yaml", "precision: ", "precision: bf")
    assert "damaged" in refusal(launch("policy=bn_stats", *TINY, f"base={normal.name}"), Path("config.yaml"))
    assert "damaged" in refusal(launch("policy=normal", *TINY, "evaluation.n_images=10"), Path("config.yaml"))
    assert launch("policy=bn_stats", *TINY, f"base=other/{normal.name}").code == 0


def test_a_base_from_before_checksums_is_used_with_a_note(launch: Launch, normal: RunFolder) -> None:
    without_checksums(normal.path.parent)
    said = launch("policy=bn_stats", *TINY)
    assert said.code == 0 and said.err.count("model.safetensors has no checksum and was read unchecked") == 1
    said = launch("policy=bn_params", *TINY, f"base={normal.path}")
    assert said.code == 0 and said.err.count("has no checksum and was read unchecked") == 1
    said = launch("policy=normal", *TINY)
    assert said.code == 0 and "Note: 1 result without a checksum was read unchecked" in said.err


class Told:
    """A reporter that keeps the notes."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def notes(self, run: str, text: str) -> None:
        self.said.append(text)

    def begins(self, *_: str) -> None: ...

    moves = scored = ends = begins


def planned(store: Path, *more: str) -> Run:
    return plan([["policy=normal", *TINY, "schedule.epochs=2", "device=cpu", f"store={store}", *more]]).runs[0]


def stopped_at(run: Run, store: Store, name: str) -> None:
    """Carry the run out until there is a file of this name."""

    def pulse() -> None:
        if list(store.root.rglob(name)):
            raise Stopped

    with pytest.raises(Stopped):
        execute(run, store, Told(), pulse=pulse)


@pytest.mark.parametrize(
    ("name", "damaged", "tensor", "said"),
    [
        ("checkpoint.safetensors", "checkpoint.safetensors", "model/network.bn.running_var", "training from the start"),
        ("checkpoint.safetensors", "batchnorm.safetensors", "network.bn.mean", "training from the start"),
        ("checkpoint.safetensors", "history.jsonl", "", "training from the start"),
        ("cascade.safetensors", "cascade.safetensors", "fallen_at", "evaluating from the first attack"),
    ],
)
def test_what_is_damaged_is_not_gone_on_from(
    hydra: None, tmp_path: Path, name: str, damaged: str, tensor: str, said: str
) -> None:
    store = Store(tmp_path / "multirun")
    run = planned(store.root, "evaluation.batch_size=5")
    stopped_at(run, store, name)
    (file,) = store.root.rglob(damaged)
    if tensor:
        flip_tensor(file, tensor)
    else:
        edit(file, '"loss": ', '"loss": 1') if file.read_text() else file.write_text('{"epoch": 1}\n')
    told = Told()
    result = execute(run, store, told)
    (note,) = told.said
    assert note.startswith(said) and "is damaged" in note
    undisturbed = execute(run, Store(tmp_path / "calm"), Told())
    assert result is not None and undisturbed is not None
    assert (result.clean, result.robust) == (undisturbed.clean, undisturbed.robust)


def test_a_base_that_changed_since_it_was_asked_for_is_refused(
    launch: Launch, normal: RunFolder, hydra: None, tmp_path: Path
) -> None:
    run = plan([["policy=bn_stats", *TINY, f"base={normal.path}", f"store={tmp_path / 'other'}"]]).runs[0]
    state, record = normal.model()
    files.write_tensors(
        normal.path / "model.safetensors", {**state, "network.bn.bias": state["network.bn.bias"] + 1}, plain(record)
    )
    with pytest.raises(Exception, match="has changed since the run was planned"):
        execute(run, Store(tmp_path / "other"), Told())


# files that cannot be read

PARTS = ["config.yaml", "status.json", "history.jsonl", "batchnorm.safetensors", "model.safetensors"]
PARTS += ("evaluation", "evaluation/{id}/result.json", "evaluation/{id}/outcomes.safetensors", "")


def commands(store: Path, target: Path) -> list[tuple[str, ...]]:
    names = (("table", "all"), ("export", str(target), "all", "--models", "adv"), ("status",))
    return [(*command, "--store", str(store)) for command in names]


def asked(capsys: pytest.CaptureFixture[str], store: Path, place: Path, reason: str) -> int:
    """Ask all commands for a store in which one place cannot be read; returns how many were refused."""
    refused = 0
    for command in commands(store, store.parent / "kept"):
        said = called(capsys, *command)
        assert "Traceback" not in said.err
        if said.code == 2:
            refused += 1
            assert "cannot be used" in refusal(said, place) and reason in said.err
        if command[0] == "status":
            assert said.code == 0 and "normal-" in said.out and "  done  " in said.out
            (line,) = (line for line in said.out.splitlines() if line.startswith("adv-"))
            told = [line] if "unreadable" in line else []
            assert all(reason in line for line in told)
            refused += len(told)
    return refused


def place_of(store: Store, part: str) -> Path:
    (run,) = store.root.glob("adv-*")
    return run / part.format(id=evaluation_of(store, "adv").name)


@pytest.mark.parametrize("sweep", [True, False])
@pytest.mark.parametrize("part", [part for part in PARTS if part not in ("", "evaluation")])
def test_a_folder_in_the_place_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, sweep: bool
) -> None:
    made = MadeStore(Store(tmp_path / "multirun")).add(("normal", "adv"))
    if sweep:
        made.sweep()
    place = place_of(made.store, part)
    place.unlink()
    place.mkdir()
    assert asked(capsys, made.store.root, place, "Is a directory") or part == "status.json"


@pytest.mark.parametrize("part", ["evaluation", ""])
def test_a_file_in_the_place_of_a_folder(made: MadeStore, capsys: pytest.CaptureFixture[str], part: str) -> None:
    place = place_of(made.store, part)
    shutil.rmtree(place)
    place.write_text("")
    asked(capsys, made.store.root, place, "Not a directory")


@pytest.mark.parametrize("part", ["model.safetensors", "config.yaml", "evaluation/{id}/result.json"])
def test_launching_over_a_folder_in_the_place_of_a_file(launch: Launch, normal: RunFolder, part: str) -> None:
    place = normal.path / part.format(id=evaluated(normal).path.name)
    place.unlink()
    place.mkdir()
    more = ["evaluation.n_images=10"] if part == "model.safetensors" else []
    line = refusal(launch("policy=normal", *TINY, *more), Path(place.name))
    assert "cannot be used (Is a directory); remove the folder that is in its place" in line
    assert place.is_dir()
    if part == "model.safetensors":  # in a sweep it is the trouble of one run
        said = launch("-m", "policy=normal", *TINY, *more)
        assert said.code == 1 and "Is a directory" in said.err and "Traceback" not in said.err


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody can look into, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


@contextmanager
def somebody_else() -> Iterator[None]:
    """A user without rights of their own; where that cannot be, the one who took the rights away."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize("part", PARTS)
def test_what_another_user_keeps_to_themselves(public: Path, capsys: pytest.CaptureFixture[str], part: str) -> None:
    made = MadeStore(Store(public / "multirun")).add(("normal", "adv"))
    for command in commands(made.store.root, public / "kept"):  # with their modules imported
        called(capsys, *command)
    shutil.rmtree(public / "kept")
    for folder in (public, made.store.root):
        folder.chmod(0o777)
    place = place_of(made.store, part)
    place.chmod(0o000)
    with somebody_else():
        refused = asked(capsys, made.store.root, place, "Permission denied")
    assert refused or part in ("status.json", "batchnorm.safetensors")

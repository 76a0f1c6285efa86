"""What is kept in docs/results/: whole, without traces of a machine, and what docs/results.md says is what it gives."""

import re
import subprocess
import sys

import pytest
import torch
from support import table2
from support.command import ROOT

from bnft import models
from bnft.common.files import read_tensors
from bnft.config import components
from bnft.report.rows import select
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import Store

KEPT = ROOT / "docs" / "results"
STORES = ["cifar10"]
FOLDERS = re.compile(r"""(?:^|[\s=:'"`\[(,])(?:~|[A-Z]:)?/[a-zA-Z][^\s/]*/""")  # an absolute path, anywhere in a text
MODELS = sorted(file.parent.relative_to(KEPT) for file in KEPT.glob("*/*/model.safetensors"))


def test_the_page_is_what_the_results_give():
    command = [sys.executable, str(ROOT / "scripts" / "results_page.py"), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", STORES)
def test_every_row_of_the_paper_is_there_and_says_what_it_is_of(name):
    (study,) = select(Store(KEPT / name), ["all"]).studies()
    assert {row.policy for row in study.rows if study.published(row)} == set(table2.by_policy())
    for row in study.rows:
        for result in row.results:
            values = result.result
            assert re.fullmatch("[0-9a-f]{64}", values.data.sha256)
            assert values.training.counts.parameters > 0 and values.data.images > 0
            assert len(result.per_image.robust) == values.robust.images == values.evaluation.n_images
            assert result.per_image.robust.sum() == values.robust.errors
            wrong = result.scores["clean_logits"].argmax(1) != result.scores["labels"]
            assert (wrong.sum(), len(wrong)) == (values.clean.errors, values.clean.images)
            assert result.run_folder.record().name == values.run.name


def test_they_name_no_folder_of_a_machine():
    assert FOLDERS.search("data.path=/opt/me/c.npz") and not FOLDERS.search("eps 8/255, schedule/shape=step")
    for file in (*KEPT.rglob("*.json"), *KEPT.rglob("*.yaml"), *KEPT.rglob("*.jsonl"), ROOT / "docs" / "results.md"):
        assert not FOLDERS.search(file.read_text()), file


@pytest.mark.parametrize("place", MODELS, ids=str)
def test_a_model_is_that_of_its_run_and_fits(place):
    run = RunFolder(KEPT / place)
    state, record = read_tensors(run.path / "model.safetensors")
    network = components.build("model", run.config()["model"])
    models.build(network, [0.0] * 3, [1.0] * 3, 0).load_state_dict(state)
    logged = run.batchnorm()
    for layer in logged.layers:
        for quantity, name in (("gamma", "weight"), ("beta", "bias"), ("mean", "running_mean")):
            assert torch.equal(torch.from_numpy(logged.values(layer, quantity)[-1]), state[f"{layer}.{name}"])
    assert record["run"] == run.name


def test_the_models_are_small_and_the_readme_names_them():
    assert {place.name.rpartition("-")[0] for place in MODELS} == {"normal", "adv", "bn_params"}
    assert sum((KEPT / place / "model.safetensors").stat().st_size for place in MODELS) < 30e6
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"base=docs/results/(\S+)", readme))
    assert named and named <= {str(place) for place in MODELS}

"""Before AutoAttack, each run is evaluated with the quick attack: order, reuse, and what is shown meanwhile."""

import json

import pytest
from support import mischief
from support.command import TINY

from bnft.runs.execution import execute
from bnft.runs.plan import plan
from bnft.runs.store import Store
from bnft.sweeps.pool import Pool, slots
from bnft.sweeps.record import record
from bnft.sweeps.run_table import Line, table
from bnft.sweeps.status import StoreStatus
from bnft.sweeps.tasks import is_done, tasks, undone, with_previews
from bnft.sweeps.terminal import Terminal

PGD = ("evaluation=pgd", "evaluation.iterations=2")
SMALL = [part for part in TINY if part not in PGD]
AUTOATTACK = ("evaluation.version=custom", "evaluation.attacks=[apgd-ce]", "evaluation.n_images=6")


class Listening(Terminal):
    """Keeps what the runs report."""

    def __init__(self):
        super().__init__()
        self.begun, self.scores, self.ended = [], [], []

    def begins(self, run, stage, detail):
        self.begun.append((run.rpartition("-")[0], stage, detail.partition(",")[0]))

    def scored(self, run, clean, robust):
        self.scores.append(robust)

    def ends(self, run, state, text):
        self.ended.append((run, state))


@pytest.fixture
def planned(hydra, tmp_path):
    """The plan of some lines of small runs with AutoAttack, in a store that is empty at first."""
    return lambda *lines: plan([[f"store={tmp_path}/s", "device=cpu", *SMALL, *AUTOATTACK, *line] for line in lines])


def pooled(asked, workers=1):
    listening = Listening()
    todo = with_previews(undone(tasks(asked), asked.store), asked.store)
    return Pool(todo, slots(workers, []), asked.store, listening).run(), listening


def evaluations(asked):
    return sorted(
        one.path.name.partition("-")[0] for run in asked.runs for one in asked.store.run(run.name).evaluations()
    )


@pytest.mark.parametrize(
    "line",
    [
        ["policy=adv"],
        ["policy=bn_params", "threat.eps=8/255", "evaluation.n_images=7", "evaluation.seed=3", "seed=1"],
        ["policy=adv", "evaluation=strongest", "attack.eps=0.2"],
        ["policy=adv", "evaluation.eps=0.1"],
    ],
)
def test_a_preview_is_the_run_with_evaluation_quick(hydra, tmp_path, line):
    store = f"store={tmp_path}"
    (run,) = plan([[store, *line]]).runs
    quick = [part for part in line if not part.startswith("evaluation=")]
    (asked,) = plan([[store, *quick, "evaluation=quick"]]).runs
    assert run.preview is not None
    assert (run.preview.name, run.preview.evaluation_id) == (asked.name, asked.evaluation_id)
    assert run.preview.record() == asked.record()
    assert asked.preview is None and plan([[store, *line, "preview=null"]]).runs[0].preview is None


def test_it_is_no_part_of_any_identity(hydra, tmp_path):
    (run,), (other,) = (plan([[f"store={tmp_path}", "policy=bn_stats", *more]]).runs for more in ([], ["preview=null"]))
    assert (run.name, run.evaluation_id, run.line) == (other.name, other.evaluation_id, other.line)
    assert run.overrides == other.overrides == {}


def test_trainings_of_bases_come_first_then_quick_then_autoattack_each_the_longest_first(planned):
    asked = planned(
        ["policy=bn_stats"], ["policy=normal"], ["policy=adv"], ["policy=normal_bn_only", "evaluation.n_images=20"]
    )
    found = with_previews(undone(tasks(asked), asked.store), asked.store)
    told = [(task.run.policy, task.previewed, task.evaluated) for task in found]
    assert told[0] == ("normal", False, False)
    assert {policy for policy, previewed, _ in told[1:5] if previewed} == {
        "bn_stats",
        "normal",
        "adv",
        "normal_bn_only",
    }
    assert {told[1][0], told[2][0]} == {"bn_stats", "adv"}, "adversarial training takes the longest"
    assert [policy for policy, _, evaluated in told[5:] if evaluated][2:] == ["normal_bn_only", "normal"]
    by_name = {task.name: task for task in found}
    for task in found[5:]:
        before = by_name[task.needs or ""]
        assert before.previewed and before.run.name == task.run.name
        assert before.needs == (found[0].name if task.run.policy in ("bn_stats", "normal") else None)


def test_in_the_given_order_a_preview_comes_just_before_its_evaluation(planned):
    asked = planned(["policy=bn_stats"], ["policy=adv"], ["policy=normal", "preview=null"])
    found = with_previews(undone(tasks(asked, "given"), asked.store), asked.store, "given")
    told = [(task.run.policy, task.previewed, task.evaluated) for task in found]
    assert told[0] == ("normal", False, False)
    each = [(policy, *what) for policy in ("bn_stats", "adv") for what in ((True, False), (False, True))]
    assert told[1:] == [*each, ("normal", False, True)]
    assert [task.needs for task in found[1:]] == [found[0].name, found[1].name, None, found[3].name, found[0].name]


def test_an_evaluation_that_was_asked_for_is_not_also_a_preview(planned):
    quick = "evaluation.version=null", "evaluation.attacks=null", "evaluation=quick"
    asked = planned(["policy=adv"], ["policy=adv", *quick])
    found = with_previews(tasks(asked), asked.store)
    assert [(task.previewed, task.run.config["evaluation"]["attack"]) for task in found if task.evaluated] == [
        (False, "quick"),
        (False, "autoattack"),
    ]
    assert len(found) == 3 and not any(task.previewed for task in found)


def test_all_rows_have_quick_numbers_before_autoattack_begins(planned):
    asked = planned(["policy=bn_stats"], ["policy=normal"])
    outcomes, listening = pooled(asked)
    assert outcomes == {task.name: None for task in tasks(asked)}, "previews are not runs of their own"
    stages = [detail for _, stage, detail in listening.begun if stage == "evaluating"]
    assert stages == ["quick attack"] * 2 + ["custom AutoAttack"] * 2
    assert [stage for _, stage, _ in listening.begun].count("training") == 2, "each is trained once"
    assert listening.scores.count("") == 0 and any(text.endswith(" (quick)") for text in listening.scores)
    assert "quick" not in listening.scores[-1]
    quick = "evaluation.version=null", "evaluation.attacks=null", "evaluation=quick"
    later = planned(["policy=bn_stats", *quick], ["policy=normal", *quick])
    assert undone(tasks(later), later.store) == [], "evaluation=quick costs nothing afterwards"


def test_one_run_makes_its_preview_itself_and_none_after_autoattack(planned):
    asked = planned(["policy=normal", "preview=null"])
    execute(asked.runs[0], asked.store, Terminal())
    assert evaluations(asked) == ["autoattack"]
    again = planned(["policy=normal"])
    execute(again.runs[0], again.store, Terminal())
    assert evaluations(again) == ["autoattack"]
    assert with_previews(undone(tasks(again), again.store), again.store) == []
    other = planned(["policy=normal", "evaluation.n_images=5"])
    listening = Listening()
    execute(other.runs[0], other.store, listening)
    assert [detail for *_, detail in listening.begun] == ["quick attack", "custom AutoAttack"]
    assert evaluations(other) == ["autoattack", "autoattack", "quick"]


def test_until_autoattack_is_done_the_quick_number_is_shown_as_such(planned, bnft):
    asked = planned(["policy=normal"])
    (run,), store = asked.runs, asked.store
    sweep = record(asked, "bnft run -m policy=normal")
    assert execute(run, store, Terminal(), evaluated=False, previewed=True) is None
    folder = f"{store.root}"
    quick = store.run(run.name).evaluation(run.preview.evaluation_id).result()
    (status,) = StoreStatus(store).statuses([sweep])
    assert (status.state, status.evaluation) == ("not begun", run.evaluation_id)
    assert status.line().robust == f"≥ {quick.robust.error:.1f} (quick)"
    (row,) = json.loads(bnft("table", "--store", folder, "--format", "json").out)["rows"]
    assert (row["label"], row["attack"], row["paper"]) == ("NORMAL (quick)", "quick", None)
    assert "AutoAttack is not done yet, so (quick) is shown: normal-" in bnft("table", "--store", folder).out
    execute(run, store, Terminal())
    (status,) = StoreStatus(store).statuses([sweep])
    assert status.state == "done" and "quick" not in status.line().robust
    for names in ([], [sweep], [run.name], ["all"]):
        (row,) = json.loads(bnft("table", *names, "--store", folder, "--format", "json").out)["rows"]
        assert row["attack"] == "autoattack" and "quick" not in row["label"]


def test_a_run_of_which_only_the_preview_is_done(planned, bnft):
    asked = planned(["policy=normal"])
    (run,), store = asked.runs, asked.store
    *_, before = with_previews(tasks(asked), store)[:-1]
    execute(run, store, Terminal(), evaluated=False)
    assert before.previewed and not is_done(before, store), "it is trained, but its preview is not made"
    execute(run, store, Terminal(), evaluated=False, previewed=True)
    assert is_done(before, store)
    entry = {"run": run.name, "evaluation": run.evaluation_id}
    sweep = store.save_sweep([{**entry, "preview": run.preview.evaluation_id}, entry], [], "bnft run -m", None)
    (status,) = StoreStatus(store).statuses([sweep])
    assert (status.attack, status.state) == ("quick", "not begun"), "the second entry does not hide the preview"
    for file in (store.root / "sweeps").iterdir():
        file.unlink()
    said = bnft("remove", run.name, "--only", "models", "--store", f"{store.root}")
    assert said.code == 2 and "it has no result, so its training would be lost" in said.err
    (store.run(run.name).path / "model.safetensors").unlink()
    assert is_done(before, store), "a result is valid without its model"


def test_a_run_that_fails_before_its_preview_fails_once(hydra, tmp_path):
    mischief.make(tmp_path, "fail", "raise")
    line = [f"store={tmp_path}/s", "device=cpu", *SMALL, *AUTOATTACK, "policy=adv"]
    line += ["attack._target_=mischief.attack", f"+attack.name={tmp_path}/mischief/fail"]
    asked = plan([line])
    outcomes, listening = pooled(asked)
    ((name, failure),) = outcomes.items()
    assert name == tasks(asked)[0].name and failure is not None and not failure.blocked
    assert listening.ended == [(asked.runs[0].name, "failed")]


def test_a_quick_number_fits_the_table_of_runs():
    lines = [Line("normal-0123456789", "waiting", "", "1.00", "≥ 62.5 (quick)"), Line("adv-0123456789", "training")]
    shown = table(lines, 80, 24)
    assert shown.columns[-1].width == len("≥ 62.5 (quick)")


def test_a_damaged_preview_disturbs_no_table(planned, bnft):
    asked = planned(["policy=normal"])
    (run,), store = asked.runs, asked.store
    record(asked, "bnft run")
    execute(run, store, Terminal(), evaluated=False, previewed=True)
    (store.run(run.name).evaluation(run.preview.evaluation_id).path / "result.json").write_text("{")
    said = bnft("table", "--store", f"{store.root}")
    assert said.code == 0 and "Not done yet: normal-" in said.out
    listening = Listening()
    execute(run, Store(store.root), listening)
    assert [detail for *_, detail in listening.begun] == ["quick attack", "custom AutoAttack"]

"""What of SLURM sweeps needs no cluster: which jobs there are to be, what they wait for, and what they are told."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bnft.cli import main
from bnft.runs.plan import ModelFile, plan
from bnft.runs.store import Store
from bnft.sweeps.slurm.arrays import Array, arrays
from bnft.sweeps.slurm.cluster import UnreachableError
from bnft.sweeps.slurm.submission import Request, decoded, encoded, seconds, task_at
from bnft.sweeps.status import StoreStatus
from bnft.sweeps.tasks import Task, tasks


def task(name: str, needs: str | None = None) -> Task:
    run: Any = SimpleNamespace(name=name)
    return Task(run, False, needs)


def submitted(todo: list[Task], under_way: dict[str, str] | None = None, size: int = 1000) -> list[Array]:
    """The arrays, numbered as if they had been submitted."""
    found = arrays(todo, under_way or {}, size)
    for number, array in enumerate(found, start=1):
        array.job = str(number)
    return found


def shown(found: list[Array]) -> list[tuple[str, str | None, list[str]]]:
    return [(array.spec, array.dependency, [task.name for task in array.tasks.values()]) for array in found]


def test_children_of_one_base_wait_for_its_task_alone():
    found = submitted([task("a"), task("b"), task("a1", "a"), task("a2", "a")])
    assert shown(found) == [("0-1", None, ["a", "b"]), ("0-1", "afterok:1_0", ["a1", "a2"])]


def test_many_bases_with_few_children_each_are_followed_index_by_index():
    todo = [*map(task, "abc"), task("a1", "a"), task("b1", "b"), task("c1", "c"), task("a2", "a"), task("c2", "c")]
    assert shown(submitted(todo)) == [
        ("0-2", None, ["a", "b", "c"]),
        ("0-2", "aftercorr:1", ["a1", "b1", "c1"]),
        ("0,2", "aftercorr:1", ["a2", "c2"]),
    ]


def test_arrays_are_as_large_as_the_cluster_allows_and_no_larger():
    bases = [task(f"b{index}") for index in range(5)]
    children = [task(f"c{index}", f"b{index}") for index in range(5)]
    assert shown(submitted([*bases, *children], size=2)) == [
        ("0-1", None, ["b0", "b1"]),
        ("0-1", None, ["b2", "b3"]),
        ("0", None, ["b4"]),
        ("0-1", "aftercorr:1", ["c0", "c1"]),
        ("0-1", "aftercorr:2", ["c2", "c3"]),
        ("0", "afterok:3_0", ["c4"]),
    ]
    many = submitted([task("a"), *(task(f"c{index}", "a") for index in range(5))], size=2)
    assert [array.dependency for array in many] == [None, *["afterok:1_0"] * 3]


def test_grandchildren_wait_for_children():
    found = submitted([task("child", "base"), task("grandchild", "child"), task("base")])
    assert shown(found) == [
        ("0", None, ["base"]),
        ("0", "afterok:1_0", ["child"]),
        ("0", "afterok:2_0", ["grandchild"]),
    ]


def test_what_is_under_way_is_waited_for_and_not_submitted_again():
    found = submitted([task("base"), task("child", "base"), task("other", "base")], {"base": "77_3", "other": "78_0"})
    assert shown(found) == [("0", "afterok:77_3", ["child"])]


def test_thousands_of_tasks_are_arranged_in_a_moment_and_each_once():
    bases = [task(f"b{index}") for index in range(2000)]
    children = [task(f"c{index}", f"b{index % 2000}") for index in range(8000)]
    found = submitted([*bases, *children])
    assert sorted(task.name for array in found for task in array.tasks.values()) == sorted(
        task.name for task in (*bases, *children)
    )
    assert len(found) == 2 + 2 * 4


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, None),
        (90, 5400),
        ("90", 5400),
        ("1:30", 90),
        ("2:00:05", 7205),
        ("1-2", 93600),
        ("1-2:03", 93780),
        ("1-02:03:04", 93784),
        ("0", 0),
        ("soon", None),
        ("1:soon", None),
        ("-5", None),
    ],
)
def test_time_limits_are_read_as_sbatch_reads_them(limit: Any, expected: int | None):
    assert seconds(limit) == expected


@pytest.mark.parametrize(("limit", "expected"), [(None, 90), ("0", 90), (60, 90), (4, 60), (1, 15), ("0:02", 1)])
def test_a_job_is_told_of_its_limit_early_but_not_so_early_that_nothing_gets_done(limit: Any, expected: int):
    assert Request({"time": limit}).warning == expected


@pytest.mark.usefixtures("hydra")
def test_a_task_is_written_down_and_read_back_as_it_is(tmp_path: Path):
    for found in tasks(plan([["policy=bn_params", "attack.eps=0.1"], ["policy=adv"]])):
        from_file = replace(found.run, base=ModelFile(tmp_path / "base.safetensors", "ab"))
        for original in (found, replace(found, run=from_file)):
            assert decoded(json.loads(json.dumps(encoded(original)))) == replace(original, needs=None)


@pytest.mark.usefixtures("hydra")
def test_a_job_finds_its_task_by_its_index(tmp_path: Path):
    everything = tasks(plan([["policy=bn_params"], ["policy=adv"]]))
    lines = [json.dumps({"index": 10 * place, **encoded(found)}) for place, found in enumerate(everything)]
    (tmp_path / "tasks").write_text("\n".join(lines) + "\n")
    for place, found in enumerate(everything):
        assert task_at(tmp_path / "tasks", 10 * place).name == found.name


def test_without_an_answer_of_slurm_the_store_is_still_shown(tmp_path, monkeypatch, capsys):
    """As on a laptop that has SLURM's commands and no cluster, or while the controller is away."""

    def silent() -> None:
        raise UnreachableError("squeue: Unable to contact slurm controller")

    monkeypatch.setattr("bnft.sweeps.slurm.cluster.queue", silent)
    store = Store(tmp_path)
    sweep = store.save_sweep([{"run": "adv-0123456789", "evaluation": "pgd-0123456789"}], [], "", None)
    assert [standing.state for standing in StoreStatus(store).statuses()] == ["not begun"], "nobody is asked"
    store.extend_sweep(sweep, arrays=[{"name": "bnft-0", "tasks": {"0": "adv-0123456789"}}])
    with pytest.raises(UnreachableError):
        StoreStatus(store)
    main(["status", "--store", str(tmp_path)])
    said = capsys.readouterr()
    assert "adv-0123456789" in said.out and "SLURM does not answer" in said.err

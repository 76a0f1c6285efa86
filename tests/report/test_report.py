"""The table and its formats, on synthetic stores: every number that is shown comes from result files."""

import csv
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import table2
from support.written import CIFAR10, DIGITS, EVALUATION, IMAGES, SCHEDULE, outcomes, rows, sweep, write

from bnft.common.errors import InputError
from bnft.common.intervals import wilson
from bnft.report.rows import select
from bnft.report.table import FORMATS, render
from bnft.runs.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "multirun")


@pytest.fixture
def whole(store: Store) -> Store:
    """All eleven rows, written in the opposite of the paper's order, and a sweep over them."""
    sweep(
        store,
        *(write(store, row.policy, round(2 * row.published.robust_error)) for row in reversed(table2.study().rows)),
    )
    return store


# the rows


def test_rows_stand_in_the_papers_order_beside_its_numbers(whole: Store) -> None:
    found = rows(whole)
    assert [row["policy"] for row in found] == [
        "normal",
        "normal_bn_only",
        "normal_bn_only_logits_conv1",
        "adv",
        "bn_only",
        "bn_only_logits_conv1",
        "bn_stats_no_reset",
        "bn_stats",
        "bn_only_params",
        "bn_params",
        "bn_params_logits_conv1",
    ]
    beside = {row["policy"]: (row["paper"]["clean_error"], row["paper"]["robust_error"]) for row in found}
    assert beside["normal"] == (4.11, 99.8)
    assert beside["adv"] == (17.67, 58.4)
    assert beside["bn_params"] == (29.67, 70.5)
    for row in found:
        assert row["robust_error"] == pytest.approx(row["paper"]["robust_error"], abs=0.5)


def test_one_object_a_row_for_programs(store: Store) -> None:
    sweep(store, write(store, "adv", 57, clean=20, seed=3, warnings=["the defence is dynamic"]))
    (row,) = rows(store)
    assert row["policy"] == "adv" and row["title"] == row["label"] == "ADV" and row["overrides"] == {}
    assert row["clean_error"] == 4.0 and row["clean_images"] == 500
    assert row["robust_error"] == 28.5 and row["robust_images"] == IMAGES
    assert row["clean_interval"] == pytest.approx(wilson(20, 500))
    assert row["robust_interval"] == pytest.approx(wilson(57, IMAGES))
    assert row["clean_sd"] is None and row["robust_sd"] is None
    assert row["seeds"] == [3] and len(row["runs"]) == 1
    assert row["paper"] == {"clean_error": 17.67, "robust_error": 58.4}
    assert row["learning_percent"] == pytest.approx(0.864, abs=5e-4) and row["parameters"] == 77_754
    assert row["seconds"] == 42.5 and row["warnings"] == ["the defence is dynamic"]


def test_seeds_aggregate(store: Store) -> None:
    counts = {0: (50, 10), 1: (60, 15), 2: (70, 20)}
    sweep(store, *(write(store, "bn_params", fallen, clean=clean, seed=s) for s, (fallen, clean) in counts.items()))
    (row,) = rows(store)
    assert row["seeds"] == [0, 1, 2] and len(row["runs"]) == 3
    assert row["robust_error"] == pytest.approx(30.0) and row["robust_sd"] == pytest.approx(5.0)
    assert row["clean_error"] == pytest.approx(3.0) and row["clean_sd"] == pytest.approx(1.0)
    assert row["robust_interval"] == pytest.approx(wilson(60, IMAGES))
    assert "30.0 ± 5.0 [" in render(select(store), "md")


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({"schedule": {**SCHEDULE, "epochs": 5}}, {}),
        ({"evaluation": {**EVALUATION, "n_images": 100}, "fallen": outcomes(50, 100)}, {}),
        ({"overrides": {"attack.eps": 0.1}}, {"attack.eps": 0.1}),
        ({"data": {**DIGITS, "sha256": "e" * 64}}, {}),
        ({"model": {"_target_": "bnft.models.resnet.ResNet", "width": 8}}, {}),
    ],
    ids=["schedule", "evaluation", "overrides", "data", "model"],
)
def test_only_equal_configurations_aggregate(store: Store, changed: dict[str, Any], kept: dict[str, Any]) -> None:
    sweep(store, write(store, "bn_params", seed=0), write(store, "bn_params", **{"seed": 1, **changed}))
    first, second = rows(store)
    assert (first["seeds"], second["seeds"]) == ([0], [1])
    assert first["robust_sd"] is None and second["robust_sd"] is None
    assert first["overrides"] == {} and second["overrides"] == kept


def test_rows_that_differ_in_what_is_free_are_told_apart(store: Store) -> None:
    entries = [write(store, "normal", schedule={"epochs": epochs, "lr": 0.1}) for epochs in (5, 20)]
    sweep(store, *entries)
    assert [row["label"] for row in rows(store)] == ["NORMAL [schedule.epochs=5]", "NORMAL [schedule.epochs=20]"]


def test_rows_that_differ_in_monitoring_are_told_apart(store: Store) -> None:
    monitor = {"every": 5, "images": 40, "keep": "last", "norm": "Linf", "eps": 0.15}
    base: dict[str, Any] = {"seed": 0}
    monitored = write(store, "bn_params", base={**base, "monitor": monitor}, monitor=monitor)
    best = write(store, "adv", monitor={**monitor, "keep": "best"})
    sweep(store, write(store, "adv", monitor=monitor), best, write(store, "bn_params", base=base), monitored)
    assert sorted(row["label"] for row in rows(store)) == [
        "ADV [monitor.keep=best]",
        "ADV [monitor.keep=last]",
        "BN PARAMS",
        "BN PARAMS [monitor.every=5, monitor.images=40, monitor.keep=last]",
    ]


def test_runs_with_overrides_follow_the_row_that_they_change_without_published_numbers(store: Store) -> None:
    changed = write(store, "normal", overrides={"freeze_policy.parameters": ["batchnorm", "first_conv"]})
    sweep(store, changed, write(store, "mine", title="MINE"), write(store, "adv"), write(store, "normal"))
    found = rows(store)
    assert [row["label"] for row in found] == [
        "NORMAL",
        "NORMAL [freeze_policy.parameters=[batchnorm,first_conv]]",
        "ADV",
        "MINE",
    ]
    assert [row["paper"] is not None for row in found] == [True, False, True, False]
    assert [row["study"] for row in found] == [*["table2"] * 3, None], "MINE is in no row of the study"
    assert found[1]["overrides"] == {"freeze_policy.parameters": ["batchnorm", "first_conv"]}


@pytest.mark.parametrize("form", FORMATS)
def test_overrides_show_in_every_format(store: Store, form: str) -> None:
    sweep(store, write(store, "normal", overrides={"attack.eps": 0.25}))
    assert "attack.eps=0.25" in render(select(store), form)


def test_runs_that_are_not_done_are_named(store: Store) -> None:
    missing = write(store, "adv", done=False)
    sweep(store, write(store, "normal"), missing)
    assert select(store).missing == (missing["run"],)
    for form in ("terminal", "md"):
        shown = " ".join(render(select(store), form).split())
        assert f"Not done yet: {missing['run']}." in shown and "NORMAL" in shown


def test_nothing_is_done_yet(store: Store) -> None:
    missing = write(store, "adv", done=False)
    sweep(store, missing)
    assert rows(store) == []
    assert missing["run"] in render(select(store), "terminal")


# what is compared with what


def test_a_line_says_when_data_or_model_are_not_the_papers(store: Store) -> None:
    sweep(store, write(store, "normal"))
    for form in ("terminal", "md", "tex"):
        shown = " ".join(render(select(store), form).split())
        assert "differ from the paper's in data (digits instead of CIFAR-10)" in shown
        assert "model (77,754 parameters instead of 4,327,754)" in shown
        assert "not absolute numbers" in shown


def test_it_says_so_for_what_differs_only(store: Store) -> None:
    sweep(store, write(store, "normal", data=CIFAR10))
    shown = render(select(store), "md")
    assert "model (77,754" in shown and "budget (Linf 0.15" in shown and "instead of CIFAR-10" not in shown
    papers = {**EVALUATION, "eps": 8 / 255}
    sweep(store, write(store, "normal", data=CIFAR10, parameters=4_327_754, seed=1, evaluation=papers))
    assert "differ from the paper's" not in render(select(store), "md")


def test_other_data_and_other_models_are_tables_of_their_own(store: Store) -> None:
    small = {"_target_": "bnft.models.resnet.ResNet", "width": 2}
    sweep(
        store,
        write(store, "normal"),
        write(store, "normal", data=CIFAR10),
        write(store, "normal", model=small, parameters=1_500),
    )
    shown = render(select(store), "md")
    headings = re.findall(r"\*\*(.*)\*\*", shown)
    assert headings == [
        "Table 2 on digits: 77,754 parameters, Linf eps 0.15",
        "Table 2 on cifar10: 77,754 parameters, Linf eps 0.15",
        "Table 2 on digits: 1,500 parameters, Linf eps 0.15",
    ]


def test_warnings_of_autoattack_are_shown(store: Store) -> None:
    sweep(store, write(store, "normal", warnings=["Square found much"]), write(store, "adv"))
    assert "Note: Square found much" in render(select(store), "md")


# formats


AWKWARD = {"freeze_policy.parameters": ["network.stages.0|1.*", "50%_of $x^2 & {y} #1 ~z \\w"]}


@pytest.fixture
def awkward(store: Store) -> Store:
    """Three rows, of which one has every character that some format gives a meaning to."""
    changed = write(store, "normal", overrides=AWKWARD)
    entries = [write(store, "normal", 200), write(store, "adv", 60), write(store, "adv", 64, seed=1), changed]
    sweep(store, *entries)
    return store


def test_csv(awkward: Store) -> None:
    text = render(select(awkward), "csv")
    lines = list(csv.DictReader(io.StringIO(text)))
    found = [line for line in lines if line["kind"] == "row"]
    assert [row["policy"] for row in found] == ["normal", "normal", "adv"]
    assert all(None not in row and None not in row.values() for row in lines)  # as many cells as there are names
    normal, changed, adv = found
    assert float(adv["robust_error"]) == 31.0 and float(adv["robust_sd"]) == pytest.approx(2**0.5)
    assert adv["seeds"] == "0 1" and float(adv["paper_robust"]) == 58.4
    assert float(normal["robust_low"]) < 100.0 and float(normal["robust_high"]) == 100.0
    assert normal["robust_sd"] == "" and changed["paper_clean"] == changed["paper_robust"] == ""
    assert "\\w" in changed["label"] and changed["robust_images"] == "200"


def test_md(awkward: Store) -> None:
    lines = render(select(awkward), "md").splitlines()
    tables: list[list[list[str]]] = [[]]
    for line in lines:
        if line.startswith("|"):
            assert line.endswith("|")
            tables[-1].append(re.split(r"(?<!\\)\|", line)[1:-1])
        elif tables[-1]:
            tables.append([])
    results, tested, *_ = tables
    for cells in (results, tested):
        assert len({len(line) for line in cells}) == 1
        assert all(set(cell.strip()) <= {"-", ":"} for cell in cells[1])
    assert len(results) == 2 + 3 and results[4][0].strip() == "ADV"
    assert len(tested) >= 3 and tested[2][-1].strip() == "holds for these two networks"


def test_tex(awkward: Store) -> None:
    text = render(select(awkward), "tex")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{l", r"\end{tabular}"):
        assert code.count(rule) == 2  # rows, and claims
    assert code.index(r"\toprule") < code.index(r"\midrule") < code.index(r"\bottomrule")
    body = code[code.index(r"\midrule") + len(r"\midrule") : code.index(r"\bottomrule")].strip().splitlines()
    assert len(body) == 3
    for line in body:
        assert line.endswith(r" \\") and len(re.findall(r"(?<!\\)&", line)) == 4
        plain = re.sub(r"\\textbackslash\{\}|\\textasciitilde\{\}|\\textasciicircum\{\}|\$\\pm\$", "", line)
        plain = re.sub(r"\\[&%$#_{}]", "", plain.removesuffix(r" \\"))
        assert not set(plain) & set("%$#_{}~^\\"), plain  # nothing special is left bare
    assert r"31.0 $\pm$ 1.4 [" in body[2] and "± " not in code
    unescaped = re.sub(r"\\[{}]", "", code)
    assert unescaped.count("{") == unescaped.count("}")


def test_terminal_is_plain_off_a_terminal(awkward: Store) -> None:
    text = render(select(awkward), "terminal")
    assert "\x1b" not in text
    assert "not measured" in text and "NORMAL" in text and "58.4" in text


# which results


def test_the_newest_sweep_is_the_default(store: Store) -> None:
    older = sweep(store, write(store, "normal"))
    newer = sweep(store, write(store, "adv"))
    assert [row["policy"] for row in rows(store)] == [row["policy"] for row in rows(store, newer)] == ["adv"]
    assert [row["policy"] for row in rows(store, older)] == ["normal"]
    assert [row["policy"] for row in rows(store, older, newer)] == ["normal", "adv"]


def test_all_and_runs_by_name(store: Store) -> None:
    alone = write(store, "bn_params")
    sweep(store, write(store, "adv"))
    assert [row["policy"] for row in rows(store, "all")] == ["adv", "bn_params"]
    assert [row["policy"] for row in rows(store, alone["run"])] == ["bn_params"]


def test_a_run_by_name_that_is_not_done(store: Store) -> None:
    entry = write(store, "bn_params", done=False)
    assert select(store, [entry["run"]]).missing == (entry["run"],)


def test_without_a_sweep_everything_is_shown(store: Store) -> None:
    write(store, "normal")
    write(store, "adv")
    found = rows(store)
    assert [row["policy"] for row in found] == ["adv", "normal"], "by name, because there is no study"
    assert all(row["paper"] is None and row["study"] is None for row in found)
    text = render(select(store), "md")
    assert text.startswith("**Runs on digits: 77,754 parameters, Linf eps 0.15**\n") and "paper" not in text


def test_rows_without_a_study_have_the_order_of_the_command(store: Store) -> None:
    policies = ("bn_params", "normal", "bn_stats", "adv")
    entries = [write(store, policy, seed=seed) for seed in (0, 1) for policy in policies]
    store.save_sweep(entries, [], "launch.py -m ...", None)
    assert [row["policy"] for row in rows(store)] == [*policies]


def test_an_entry_that_is_named_twice_counts_once(store: Store) -> None:
    entry = write(store, "normal")
    first, second = sweep(store, entry), sweep(store, entry, entry)
    (row,) = rows(store, first, second)
    assert row["seeds"] == [0]


@pytest.mark.parametrize("name", ["yesterday", "adv-0000000000", "sweeps"])
def test_a_name_that_is_neither_sweep_nor_run(store: Store, name: str) -> None:
    entry = write(store, "normal")
    made = sweep(store, entry)
    with pytest.raises(InputError, match=rf"^{name}: must be a sweep or a run in .*{made}.*{entry['run']}"):
        select(store, [name])


def test_only_result_files_are_needed(whole: Store) -> None:
    """Results, the outcomes of each image, and what was asked for together."""
    before = {(names, form): render(select(whole, names), form) for names in ((), ("all",)) for form in FORMATS}
    kept = {"result.json", "outcomes.safetensors"}
    others = [file for file in whole.root.glob("*-*/**/*") if file.is_file() and file.name not in kept]
    assert len(others) == len(table2.study().rows)
    for file in others:
        file.unlink()
    assert {(names, form): render(select(whole, names), form) for names, form in before} == before


def test_the_command_does_not_import_pytorch(whole: Store) -> None:
    """Reading results takes a blink, not the seconds that PyTorch takes to import."""
    program = (
        "import sys\n"
        "from bnft.cli import main\n"
        "main(sys.argv[1:])\n"
        "print(sorted({'torch', 'hydra', 'torchvision', 'altair'} & sys.modules.keys()), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", program, "table", "--store", str(whole.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "BN PARAMS + log + conv1" in done.stdout
    assert done.stderr == f"bnft: sweep {whole.sweeps()[-1]} (the newest)\n[]\n"


def test_rows_within_other_budgets_stand_beside_the_usual_one_and_not_beside_the_paper(tmp_path):
    store = Store(tmp_path)
    usual = {**EVALUATION, "eps": 8 / 255}
    for number in (2, 4, 8):
        write(store, "bn_stats", 180 + number, evaluation={**EVALUATION, "eps": number / 255})
    write(store, "adv", 100, evaluation=usual)
    table2.record(store)
    (study,) = select(store, ["all"]).studies()
    text = render(select(store, ["all"]), "md")
    assert "Linf eps 8/255" in text.splitlines()[0], "within which most rows were attacked, wherever it stands"
    shown = {
        line.split("|")[1].strip(): line.split("|")
        for line in text.splitlines()
        if re.match(r"\| BN STATS \(reset\) [|[]", line)
    }
    title = "BN STATS (reset)"
    assert list(shown) == [title, f"{title} [evaluation.eps=2/255]", f"{title} [evaluation.eps=4/255]"]
    robust = [cells[5].strip() for cells in shown.values()]
    assert robust == ["99.6", "", ""], "the paper's error is for its own eps"
    assert study.titled(title).budget == ("Linf", 8 / 255)

"""The figures and the table as a paper takes them in: vector, with fonts, a column or a page wide, through LaTeX."""

import re
import subprocess
from pathlib import Path

import pytest
from support.made_store import MadeStore, needed

from bnft.cli import main
from bnft.report.rows import select
from bnft.report.style import COLUMN, PAGE
from bnft.report.table import render
from bnft.report.write import report
from bnft.runs.store import Store

AWKWARD = {"freeze_policy.parameters": ["network.stages.0|1.*", "50%_of $x^2 & {y} #1 ~z \\w"]}
AWKWARD_TITLE = "50 % (of) my_own ± more"
WIDTHS = {"figure1": PAGE, "figure2": COLUMN, "figure3": PAGE, "errors": PAGE, "training": PAGE, "channels": PAGE}
WIDTHS |= {"cascade": PAGE, "cost": COLUMN, "spread": COLUMN, "eps": COLUMN}


def said(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """All rows over two seeds; some within two budgets; and one whose label has what means something to LaTeX."""
    made = MadeStore(Store(tmp_path_factory.mktemp("print") / "multirun"))
    made.add(seeds=(0, 1), eps=(0.1, 0.15)).add(("normal",), overrides=AWKWARD)
    made.add(("mine",), titles={"mine": AWKWARD_TITLE})
    record = made.store.sweep(name := made.sweep())
    study = {**record["study"], "rows": [*record["study"]["rows"], {"policy": "mine", "title": AWKWARD_TITLE}]}
    runs = [one if one.get("row") else {**one, "row": AWKWARD_TITLE} for one in record["runs"]]
    made.store.extend_sweep(name, study=study, runs=runs)
    return made


@pytest.fixture(scope="module")
def figures(made: MadeStore) -> dict[str, Path]:
    """The PDFs by name."""
    return {file.stem: file for file in (report(made.store, []).parent / "figures").glob("*.pdf")}


def test_every_figure_is_there_as_pdf_and_png(figures: dict[str, Path]) -> None:
    assert WIDTHS.keys() <= figures.keys()
    for file in figures.values():
        assert file.read_bytes().startswith(b"%PDF")
        assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_layer_and_rows_can_be_chosen(made: MadeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["report", "--store", str(made.store.root), "--output", str(tmp_path)]
    main([*chosen, "--layer", "3", "--rows", "adv, bn stats (RESET)", made.store.sweeps()[-1]])
    figures = {file.stem: said(needed("pdftotext"), "-layout", file, "-") for file in tmp_path.glob("figures/*.pdf")}
    assert "BN layer 3 of 9 (network.stages.0.0.bn2), after training (epoch 5), seed 0" in figures["figure1"]
    for name in ("figure1", "figure2", "figure3", "errors", "cascade", "training", "eps"):
        assert "ADV" in figures[name] and "BN STATS (reset)" in figures[name], name
        assert not re.search(r"NORMAL|BN PARAMS|ADV \+BN", figures[name]), name
    assert "channels" not in figures, "this figure has none of these rows"
    capsys.readouterr()
    for option, value, there in (
        ("--rows", "ADV, BN PARAM", "--rows=BN PARAM: must be one of NORMAL, NORMAL +BN ONLY, "),
        ("--layer", "network.stages.0.0.bn3", "network.stages.0.0.bn2?"),
        ("--layer", "10", "--layer=10: must be a BN layer: network.bn, "),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*chosen, option, value])
        errors = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2 and there in errors[-1] and errors[-1].startswith("bnft: ")
        assert sum(line.startswith(f"bnft: {option}") for line in errors) == 1


def test_figures_that_a_report_no_longer_has_are_cleared_away(made: MadeStore, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    for name in ("old.pdf", "old.png", "mine.txt"):
        (tmp_path / "figures" / name).write_text("of an earlier report")
    report(made.store, [made.store.runs()[0].name], tmp_path)
    left = {file.name for file in (tmp_path / "figures").iterdir()}
    assert "errors.pdf" in left and "mine.txt" in left
    assert not {"old.pdf", "old.png"} & left


def test_figures_are_a_column_or_a_page_wide(figures: dict[str, Path]) -> None:
    program = needed("pdfinfo")
    for name, file in figures.items():
        found = re.search(r"Page size: +([\d.]+) x ([\d.]+) pts", said(program, file))
        assert found is not None
        width, height = map(float, found.groups())
        assert min(abs(width - COLUMN), abs(width - PAGE)) <= 1.5, (name, width)
        assert name not in WIDTHS or abs(width - WIDTHS[name]) <= 1.5, (name, width)
        assert 60 < height < 650, (name, height)  # that is, no more than a page


def test_long_names_do_not_make_a_figure_wider(tmp_path: Path) -> None:
    made = MadeStore(Store(tmp_path / "multirun"))
    for blocks in ("[1,1,1]", "[2,2,2]"):
        name = {"freeze_policy.parameters": f"[batchnorm,first_conv,network.stages.0.0.conv1,{blocks}]"}
        made.add(("bn_params",), overrides=name)
    made.sweep()
    for file in report(made.store, []).parent.glob("figures/*.pdf"):
        width = float(re.findall(r"Page size: +([\d.]+)", said(needed("pdfinfo"), file))[0])
        assert min(abs(width - COLUMN), abs(width - PAGE)) <= 1.5, (file.stem, width)


def test_figures_are_vector_with_their_fonts(figures: dict[str, Path]) -> None:
    fonts, images = needed("pdffonts"), needed("pdfimages")
    for name, file in figures.items():
        lines = [line.split() for line in said(fonts, file).splitlines()[2:]]
        assert lines, name
        for line in lines:
            embedded, subset, unicode = line[-5:-2]
            assert (embedded, subset, unicode) == ("yes", "yes", "yes"), (name, line)
            assert "Type 3" not in " ".join(line), name
        assert said(images, "-list", file).splitlines()[2:] == [], name


def test_text_of_figures_can_be_read_and_searched(figures: dict[str, Path]) -> None:
    program = needed("pdftotext")
    text = {name: said(program, "-layout", file, "-") for name, file in figures.items()}
    expected = {
        "errors": ("clean error (%)", "robust error (%)", "NORMAL", "BN PARAMS + log + conv1"),
        "figure1": (
            "normalized weight m",
            "upper line: γ, lower line: γ − 1",
            "running variance σ²",
            "channels",
            "ADV",
        ),
        "figure2": ("BN layer", "mean of m", "BN PARAMS"),
        "figure3": ("confidence", "logits (%)", "ADV"),
        "training": ("cross-entropy", "epoch", "learning rate", "NORMAL", "BN STATS (reset)"),
        "channels": ("channels turned off (%)", "BN PARAMS"),
        "cascade": ("apgd-ce", "square", "robust error (%)", "ADV"),
        "cost": ("seconds per run", "training", "evaluation"),
        "eps": ("eps (pixel units)", "0.1", "0.15"),
        "spread": ("mean |γ|", "mean |γ − 1|"),
    }
    for name, words in expected.items():
        for word in words:
            assert word in text[name], (name, word)


def test_latex_takes_tables_and_figures(made: MadeStore, figures: dict[str, Path], tmp_path: Path) -> None:
    """Two columns, booktabs, tables across both, and every figure at its own size without running over."""
    latex = needed("pdflatex")
    (tmp_path / "table.tex").write_text(render(select(made.store), "tex"))
    lines = [r"\documentclass[twocolumn,10pt]{article}"]
    lines += [r"\usepackage[T1]{fontenc}", r"\usepackage{booktabs,graphicx}"]
    lines += [rf"\setlength\textwidth{{{PAGE + 2}bp}}\setlength\columnsep{{16bp}}", r"\begin{document}"]
    lines += [r"\begin{table*}\centering\scriptsize\input{table}\end{table*}"]
    for name, file in figures.items():
        kind = "figure*" if WIDTHS.get(name.rpartition("-")[2]) == PAGE else "figure"
        (tmp_path / f"{name}.pdf").write_bytes(file.read_bytes())
        lines += [rf"\begin{{{kind}}}\includegraphics{{{name}.pdf}}\caption{{x}}\end{{{kind}}}\clearpage"]
    (tmp_path / "paper.tex").write_text("\n".join([*lines, r"\end{document}", ""]))
    command = [latex, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-3000:]
    wide = [line for line in done.stdout.splitlines() if line.startswith("Overfull") and " 2--" not in line]
    assert wide == []  # but for the table, of which one label is longer than any should be
    text = said(needed("pdftotext"), "-layout", tmp_path / "paper.pdf", "-")
    for words in ("clean error (%)", "50%_of", "50 % (of) my_own ± more", "BN PARAMS + log + conv1", "±"):
        assert words in text, words

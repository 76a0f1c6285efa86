"""Write docs/results.md and its pictures from the results in docs/results/.

    python scripts/results_page.py             # write the page; `make page` does the same
    python scripts/results_page.py --check     # only check whether the page fits the results; exit code 1 if not

cog (https://cog.readthedocs.io) writes the tables of the page between its markers, which call the functions below.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cogapp import Cog
from omegaconf import OmegaConf
from PIL import Image

from bnft.common.intervals import unpaired
from bnft.config.compose import composing
from bnft.evaluation.pgd import LOSS_ITERATIONS
from bnft.report import costs, table
from bnft.report.content import StudyDrawings
from bnft.report.rows import Quantity, Rate, Study, select
from bnft.report.write import report
from bnft.runs.reference import with_reference
from bnft.runs.store import Store
from bnft.studies.check import checked

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "results.md"
PICTURES = {
    "cifar10": ("figure1", "figure2", "figure3", "errors")
}  # figures of the report of each store that are copied to docs/images/


def study(name: str) -> Study:
    """Return the only study in docs/results/<name>."""
    (only,) = select(Store(DOCS / "results" / name), ["all"]).studies()
    return only


def record(name: str) -> None:
    """Record the rows of Table 2 that the results belong to, which are older than studies."""
    store = Store(DOCS / "results" / name)
    values = OmegaConf.to_container(OmegaConf.load(DOCS.parent / "conf" / "study" / "table2.yaml"))
    with composing():
        definition = with_reference(checked("table2", values))
    titles = {row.policy: row.title for row in definition.rows}
    entries = []
    for result in select(store, ["all"]).results:
        run = result.run
        entry = {"run": run.name, "evaluation": result.folder.path.name, "row": titles[run.policy]}
        entries.append({**entry, **({"changed": run.overrides} if run.overrides else {})})
    store.save_study(definition.encoded(), entries)


def table2(name: str) -> str:
    """Return Table 2 with the paper's numbers, and the claims."""
    return table.render(select(Store(DOCS / "results" / name), ["all"]), "md").rstrip()


def differences(name: str) -> str:
    """Return our errors minus the paper's, with intervals for different images and the paper's numbers of images."""
    lines = []
    ours = study(name)
    setting = ours.definition.setting if ours.definition else None
    assert setting is not None and setting.clean_images is not None and setting.robust_images is not None
    for row, label in zip(ours.rows, ours.labels(), strict=True):
        published = ours.published(row)
        if published is not None:
            clean = _difference(row.clean, published.clean_error, setting.clean_images)
            robust = _difference(row.robust, published.robust_error, setting.robust_images)
            lines.append((label, clean, robust))
    return _markdown(("Model", "clean error, ours - paper", "robust error, ours - paper"), lines)


def _difference(ours: Rate, published: float, images: int) -> str:
    theirs = published / 100 * images
    middle, low, high = unpaired((ours.error / 100 * ours.images, ours.images), (theirs, images))
    return f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]"


def beside(name: str) -> str:
    """Return the further numbers: the constant classifier, the most predicted class, and errors on subsets."""
    quantities: tuple[Quantity, ...] = ("clean_error_900", "constant_error", "largest_class", "robust_error_correct")
    ours = study(name)
    lines = []
    for row, label in zip(ours.rows, ours.labels(), strict=True):
        values = [row.mean(quantity) for quantity in quantities]
        lines.append((label, *("" if value is None else f"{value:.1f}" for value in values)))
    header = ("Model", "clean error %, first 900", "constant classifier %", "most predicted class %")
    return _markdown((*header, "robust error % of correct images"), lines)


def seconds(name: str) -> str:
    """Return the duration of training and evaluation of each row, and of each attack."""
    lines = []
    for cost in costs.costs(study(name)):
        attacks = ", ".join(f"{attack} {spent:,.0f}" for attack, spent in cost.attacks.items())
        training, evaluation = (
            f"{value:,.0f}" if value is not None else "" for value in (cost.training, cost.evaluation)
        )
        lines.append((cost.label or cost.run, str(cost.epochs or ""), training, evaluation, attacks))
    return _markdown(("Model", "epochs", "training s", "AutoAttack s", "seconds per attack"), lines)


def losses(name: str) -> str:
    """Return the cross-entropy on PGD examples, for the rows in which it was measured."""
    ours = study(name)
    lines = [
        (label, f"{row.first.pgd_loss:.2f}")
        for row, label in zip(ours.rows, ours.labels(), strict=True)
        if row.first.pgd_loss is not None
    ]
    return _markdown(("Model", f"cross-entropy on PGD examples ({LOSS_ITERATIONS} iterations)"), lines)


def statements(name: str) -> str:
    """Return the paper's statements about distributions, and their measured values."""
    lines = []
    for statement in StudyDrawings(study(name)).groups[0].statements:
        published = "" if statement.published is None else f"{statement.published:+.3f}"
        lines.append((statement.text, statement.measured, published, statement.verdict))
    return _markdown(("statement of the paper", "measured", "paper", "verdict"), lines)


def commands(name: str) -> str:
    """Return the command of every run."""
    return "\n".join(["```sh", *(run.command for run in costs.reproductions(study(name))), "```"])


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    if not options.check:
        for name, pictures in PICTURES.items():
            record(name)
            with tempfile.TemporaryDirectory() as folder:
                figures = report(Store(DOCS / "results" / name), ["all"], Path(folder)).parent / "figures"
                for picture in pictures:
                    with Image.open(figures / f"{picture}.png") as image:  # few colours, for small files in git
                        few = image.convert("RGB").quantize(128)
                    few.save(DOCS / "images" / f"{name}-{picture}.png", optimize=True)
    how = ["--check"] if options.check else ["-r"]
    sys.exit(1 if Cog().main(["cog", *how, "-I", str(Path(__file__).parent), str(PAGE)]) else 0)


if __name__ == "__main__":
    main()

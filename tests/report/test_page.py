"""The report's page in a real browser, without a network: what it draws, what it says, and that all can read it."""

import itertools
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support import made_store, written
from support import table2 as published
from support.made_store import DEEP, KINDS, MadeStore, needed

from bnft.batchnorm.record import QUANTITIES
from bnft.cli import main
from bnft.common.intervals import wilson
from bnft.report import write
from bnft.report.figures.batchnorm import BINS
from bnft.report.groups import DRAWN_TOGETHER, groups
from bnft.report.rows import select
from bnft.report.style import COLOURS, PART_COLOURS, Look, looks
from bnft.runs.store import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDE, TABLET, PHONE = 1400, 800, 390
HOSTILE = '<script>alert(1)</script> & "x"'
BREAKING = "</script><img src=x onerror=alert(1)>"


@dataclass
class Written:
    """A report, what it is of, and the seconds of computing that it took."""

    made: MadeStore
    index: Path
    seconds: float

    def results(self) -> dict[str, list[dict[str, Any]]]:
        """What the result files say, by policy, the usual eps alone."""
        found: dict[str, list[dict[str, Any]]] = {}
        for file in sorted(self.made.store.root.glob("*/evaluation/*/result.json")):
            result = json.loads(file.read_text())
            if not result["run"]["overrides"]:
                found.setdefault(result["run"]["policy"], []).append(result)
        return found


Reporter = Callable[..., Written]
ROW_COLOURS = {row.policy: str(row.colour) for row in published.study().rows}


def own_looks() -> dict[str, Look]:
    """The look of each row of Table 2, by its policy."""
    study = published.study()
    by_title = looks(study.by_title, study)
    return {row.policy: by_title[row.title] for row in study.rows}


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reporter:
    """Make a store with a sweep and write its report; without files for print, unless `printed`."""

    def call(fill: Callable[[MadeStore], Any], printed: bool = False, command: str | None = None) -> Written:
        made = MadeStore(Store(tmp_path_factory.mktemp("store") / "multirun"))
        fill(made)
        made.sweep(*([command] if command else []))
        with pytest.MonkeyPatch.context() as patch:
            if not printed:
                patch.setattr(write, "PRINTED_GROUPS", 0)
            began = time.process_time()  # whatever else the machine is at
            index = write.report(made.store, [])
            return Written(made, index, time.process_time() - began)

    return call


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    program = needed("chromium", "chromium-browser", "google-chrome")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])  # which root cannot have
        yield found
        found.close()


@contextmanager
def opened(browser: "Browser", index: Path, width: int = WIDE, scheme: Any = "light") -> "Iterator[Page]":
    """The page in a browser without a network. At the end, it must have logged, asked for and thrown nothing."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, heard = context.new_page(), []
    page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("dialog", lambda dialog: heard.append(f"dialog: {dialog.message}"))
    page.on("dialog", lambda dialog: dialog.dismiss())
    page.on(
        "request",
        lambda request: (
            None
            if request.url in (index.as_uri(),) or request.url.startswith(("data:", "blob:"))
            else heard.append(f"request: {request.url}")
        ),
    )
    page.goto(index.as_uri())
    yield page
    assert heard == []
    context.close()


def scrolled(page: "Page") -> None:
    """Scroll over the whole page, and see that every chart is drawn when it comes into sight."""
    for place in range(page.locator(".chart").count()):
        chart = page.locator(".chart").nth(place)
        chart.scroll_into_view_if_needed()  # and stay: a busy browser skips the frames of what only flies by
        until(lambda chart=chart: chart.get_attribute("data-drawn") is not None, 60)  # type: ignore[misc]
    page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for what a browser does in its own time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


EMPTY_CHARTS = """() => [...document.querySelectorAll('.chart')]
    .filter((chart) => ![...chart.querySelectorAll('svg .role-mark path')].some(
        (path) => (path.getAttribute('d') || '').length > 8))
    .map((chart) => chart.getAttribute('aria-label'))"""
REPEATED_IDS = """() => { const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
    return ids.filter((id, place) => ids.indexOf(id) !== place); }"""
BROKEN_LINKS = """() => [...document.querySelectorAll('a[href^="#"]')].map((link) => link.getAttribute('href'))
    .filter((target) => !document.getElementById(target.slice(1)))"""


def whole_and_sound(page: "Page") -> None:
    """Every chart is drawn and holds marks, and every link within the page leads somewhere."""
    scrolled(page)
    assert page.locator(".chart").count() > 0
    assert page.evaluate(EMPTY_CHARTS) == []
    assert page.evaluate(REPEATED_IDS) == []
    assert page.evaluate(BROKEN_LINKS) == []


def rows(page: "Page", table: str = "table.results") -> list[list[str]]:
    """The cells of a table's body, as text on one line."""
    found = page.locator(f"{table} tbody tr").evaluate_all(
        "(lines) => lines.map((line) => [...line.cells].map((cell) => cell.textContent))"
    )
    return [[" ".join(cell.split()) for cell in line] for line in found]


def add_all(made: MadeStore) -> None:
    made.add()


@pytest.fixture(scope="module")
def table2(reported: Reporter) -> Written:
    """All eleven rows, with everything for print."""
    return reported(add_all, printed=True)


@pytest.fixture(scope="module")
def drawn(browser: "Browser", table2: Written) -> "Iterator[Page]":
    """Its page with every chart drawn, for tests that only look at it."""
    with opened(browser, table2.index) as page:
        scrolled(page)
        yield page


@pytest.fixture(scope="module")
def seeds(reported: Reporter) -> Written:
    return reported(lambda made: made.add(("normal", "adv", "bn_stats", "bn_params"), seeds=(0, 1, 2)))


# the whole of it


def test_the_page_is_quick_small_and_alone(table2: Written) -> None:
    assert table2.seconds < 10
    assert table2.index.stat().st_size < 5e6
    page = table2.index.read_text()
    linked = re.findall(r'href="(figures/[^"]+)"', page)
    assert linked and all((table2.index.parent / file).stat().st_size > 1000 for file in linked)


def test_every_chart_is_drawn_without_a_word(browser: "Browser", table2: Written) -> None:
    with opened(browser, table2.index) as page:
        whole_and_sound(page)
        titles = page.locator("figure h3").all_text_contents()
        for start in ("Robust against", "Figure 1", "Figure 2", "Figure 3", "Channels", "Training", "Cascade", "Cost"):
            assert any(title.startswith(start) for title in titles), start


def test_the_table_holds_the_numbers_of_the_result_files(table2: Written, drawn: "Page") -> None:
    results = table2.results()
    shown = rows(drawn)
    assert len(shown) == len(results) == len(KINDS)
    for policy, cells in zip(KINDS, shown, strict=True):  # which are in the paper's order
        (result,) = results[policy]
        clean, robust = result["clean"], result["robust"]
        assert cells[0] == result["run"]["title"]
        assert cells[1] == "{:.2f} [{:.1f}, {:.1f}]".format(clean["error"], *clean["interval"])
        assert cells[3].removeprefix("† ") == "{:.1f} [{:.1f}, {:.1f}]".format(robust["error"], *robust["interval"])
        counts = result["training"]["counts"]
        assert cells[5].strip("()") in {
            f"{100 * counts[key] / counts['parameters']:.3f}" for key in ("learning", "statistics")
        }
        assert cells[6] == "1"


def test_several_seeds_are_one_row_and_one_line(browser: "Browser", seeds: Written) -> None:
    results = seeds.results()
    with opened(browser, seeds.index) as page:
        whole_and_sound(page)
        for policy, cells in zip(("normal", "adv", "bn_stats", "bn_params"), rows(page), strict=True):
            for place, name, digits in ((1, "clean", 2), (3, "robust", 1)):
                errors = [result[name]["error"] for result in results[policy]]
                images = results[policy][0][name]["images"]
                low, high = wilson(fmean(errors) / 100 * images, images)
                expected = f"{fmean(errors):.{digits}f} ± {stdev(errors):.{digits}f} [{low:.1f}, {high:.1f}]"
                assert cells[place].removeprefix("† ") == expected
            assert cells[6] == "3"
        for panel in page.locator("figure[id$=training] .chart").all():
            assert panel.locator(".mark-line.role-mark path").count() == 4  # not one a seed
        shown = page.locator("figure[id$=training] figcaption").text_content() or ""
        assert "means over seeds" in shown


# Figure 1


SHOWN_ROWS = {"normal": "NORMAL", "adv": "ADV", "bn_params": "BN PARAMS"}


def expected_counts(made: MadeStore, policies: Sequence[str], layer: str, quantity: str) -> tuple[Any, Any]:
    """Figure 1's edges, and counts of shape (policies, epochs, bins), by NumPy's own histogram."""
    found = {policy: next(made.store.root.glob(f"{policy}-??????????")) for policy in (*SHOWN_ROWS, *policies)}
    read = {
        policy: made.store.run(folder.name).batchnorm().values(layer, quantity).astype(float)
        for policy, folder in found.items()
    }
    values = [read[policy] for policy in policies]
    pooled = np.concatenate([read[policy].ravel() for policy in SHOWN_ROWS])
    low, high = np.percentile(np.log10(pooled) if quantity == "variance" else pooled, [0.5, 99.5])
    edges = np.linspace(low, high, BINS + 1)
    edges = 10**edges if quantity == "variance" else edges
    counts = [[np.histogram(np.clip(line, edges[0], edges[-1]), edges)[0] for line in found] for found in values]
    return edges, np.array(counts)


def drawn_counts(page: "Page", panel: int) -> dict[str, list[float]]:
    """The heights of the bars in each lane of a panel of Figure 1, by colour, in pixels."""
    chart = page.locator("figure[id$=figure1] .chart").nth(panel)
    bars = chart.locator(".mark-rect.role-mark path").evaluate_all(
        "(paths) => paths.map((path) => [path.getAttribute('fill'), path.getAttribute('d')])"
    )
    found: dict[str, list[float]] = {}
    for colour, path in bars:
        height = re.search(r"v([-\d.]+)", path)
        assert height is not None
        found.setdefault(colour.upper(), []).append(abs(float(height[1])))
    return found


def test_figure_1_counts_the_channels_of_the_record(table2: Written) -> None:
    """The page has the counts of every row, layer, quantity and epoch. The rows that are shown give the bins."""
    page = table2.index.read_text()
    policies = {**SHOWN_ROWS, "normal_bn_only": "NORMAL +BN ONLY"}
    for number, quantity in enumerate(QUANTITIES):
        found = re.search(rf'id="study1-group1-figure1-{number}">(.*?)</script>', page)
        assert found is not None
        (lines,) = json.loads(found[1])["datasets"].values()
        layers = sorted({line["l"] for line in lines})
        assert len(layers) == 9 and len(lines) == 9 * len(KINDS)
        for layer in layers:
            edges, counts = expected_counts(table2.made, list(policies), layer, quantity)
            for label, expected in zip(policies.values(), counts, strict=True):
                (line,) = (line for line in lines if line["l"] == layer and line["row"] == label)
                assert line["c"] == expected.tolist() and line["e"] == [0, 1, 2, 3, 4, 5], (layer, quantity)
                assert (line["a"], line["z"]) == pytest.approx((edges[0], edges[-1]), rel=1e-3, abs=1e-4)
                assert all(sum(of_epoch) in (16, 32, 64) for of_epoch in line["c"])


def test_readers_choose_layer_epoch_and_rows_of_figure_1(browser: "Browser", table2: Written) -> None:
    with opened(browser, table2.index) as page:
        scrolled(page)
        figure = page.locator("figure[id$=figure1]")
        slider, layers = figure.locator("input[type=range]"), figure.locator("select").first
        said = figure.locator(".state")

        def check(layer: str, epoch: int, policies: Sequence[str] = tuple(SHOWN_ROWS)) -> dict[int, Any]:
            seen = {}
            for panel, quantity in enumerate(QUANTITIES):
                _, counts = expected_counts(table2.made, policies, layer, quantity)
                seen[panel] = heights = drawn_counts(page, panel)
                tallest = max(max(line) for line in heights.values())
                assert len(heights) == len(policies)
                for policy, expected in zip(policies, counts[:, epoch], strict=True):
                    drawn = np.array(heights[ROW_COLOURS[policy].upper()])
                    assert drawn / tallest == pytest.approx(expected / counts[:, epoch].max(), abs=0.01), quantity
            return seen

        assert said.text_content() == "BN layer 8 of 9 (network.stages.2.0.bn2), after training (epoch 5), seed 0"
        last = check("network.stages.2.0.bn2", 5)
        slider.focus()
        page.keyboard.press("Home")
        page.wait_for_timeout(SETTLES)
        assert "before training" in (said.text_content() or "")
        first = check("network.stages.2.0.bn2", 0)
        assert all(first[panel] != last[panel] for panel in first)
        page.keyboard.press("ArrowRight")
        layers.select_option("network.stages.0.0.bn1")
        page.wait_for_timeout(SETTLES)
        assert said.text_content() == "BN layer 2 of 9 (network.stages.0.0.bn1), after epoch 1, seed 0"
        check("network.stages.0.0.bn1", 1)
        figure.get_by_label("ADV", exact=True).uncheck()
        figure.get_by_label("NORMAL +BN ONLY", exact=True).check()
        page.wait_for_timeout(SETTLES)
        check("network.stages.0.0.bn1", 1, ("normal", "bn_params", "normal_bn_only"))


def test_readers_choose_the_seed_of_every_figure_of_rows(browser: "Browser", seeds: Written) -> None:
    with opened(browser, seeds.index) as page:
        scrolled(page)
        for figure in page.locator("figure:not([id$=spread]):not([id$=cost])").all():  # all seeds cost the same
            chosen, name = figure.locator("select[data-signal=seed]"), figure.get_attribute("id")
            before = figure.locator(".chart").first.inner_html()
            chosen.select_option("2")
            page.wait_for_timeout(SETTLES)
            assert figure.locator(".chart").first.inner_html() != before, name
            assert figure.locator("[data-row]").count() >= 1, name
        assert page.evaluate(EMPTY_CHARTS) == []
        errors = page.locator("figure[id$=errors]")
        points = errors.locator(".chart").first.locator(".mark-symbol.role-mark path")
        assert points.count() == 4  # without the small points of single seeds
        errors.get_by_label("ADV", exact=True).uncheck()
        page.wait_for_timeout(100)
        assert points.count() == 3


def test_gamma_has_labels_for_gamma_and_for_gamma_minus_1(drawn: "Page") -> None:
    """The learned parameter is the one in plain BN and the other in reparametrised BN."""
    charts = drawn.locator("figure[id$=figure1] .chart")
    titles = charts.nth(0).locator(".role-axis-title text").all_text_contents()
    texts = charts.nth(0).locator(".role-axis-label text")
    labels = texts.evaluate_all("(all) => all.map((text) => [...text.children].map((line) => line.textContent))")
    spread = drawn.locator("figure[id$=spread] .role-legend-label text").all_text_contents()
    assert titles == ["upper line: γ, lower line: γ − 1"]
    lines = [[float(line.replace("−", "-")) for line in label] for label in labels if label]
    assert len(lines) > 2
    assert [lower for _, lower in lines] == pytest.approx([upper - 1 for upper, _ in lines])
    assert {"mean |γ|", "mean |γ − 1|"} <= set(spread)


# what every reader needs

TOO_PALE = """([least, marks]) => {
    const channels = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
    const luminance = (rgb) => rgb.slice(0, 3).map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
    const contrast = (one, other) => {
        const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const ground = (element) => {
        for (let place = element; place; place = place.parentElement) {
            const found = channels(getComputedStyle(place).backgroundColor);
            if (found.length === 3 || found[3] > 0) return found;
        }
        return [255, 255, 255];
    };
    const pale = new Set();
    const check = (element, colour, what) => {
        const found = contrast(channels(colour), ground(element));
        if (found < least) pale.add(`${what}: ${colour} ${found.toFixed(2)}`);
    };
    if (marks) {
        for (const mark of document.querySelectorAll('.chart .role-mark path, .legend svg > *, .chip')) {
            const style = getComputedStyle(mark);
            const drawn = style.stroke !== 'none' ? style.stroke : style.fill;
            const colour = mark.matches('.chip') ? style.backgroundColor : drawn;
            check(mark.closest('figure, td'), colour, mark.closest('figure') ? mark.closest('figure').id : 'table');
        }
        return [...pale];
    }
    for (const text of document.querySelectorAll('.chart svg text')) {
        if (text.textContent.trim()) check(text.closest('figure'), getComputedStyle(text).fill, text.textContent);
    }
    for (const element of document.querySelectorAll('body *:not(script):not(option):not(select)')) {
        if (element.closest('svg')) continue;
        if ([...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()))
            check(element, getComputedStyle(element).color, element.textContent.slice(0, 40));
    }
    return [...pale];
}"""
CUT_OFF = """() => [...document.querySelectorAll('.chart')].flatMap((chart) => {
    const box = chart.getBoundingClientRect();
    return [...chart.querySelectorAll('svg text')].filter((text) => {
        const place = text.getBoundingClientRect();
        return place.width && (place.left < box.left - 2 || place.right > box.right + 2);
    }).map((text) => `${chart.getAttribute('aria-label')}: ${text.textContent}`);
})"""
OVERLAPPING = """() => [...document.querySelectorAll('.chart')].flatMap((chart) =>
    [...chart.querySelectorAll('.role-axis-label')].flatMap((axis) => {
        const shown = [...axis.querySelectorAll('text')].filter((text) => getComputedStyle(text).opacity !== '0'
            && getComputedStyle(text).display !== 'none').map((text) => text.getBoundingClientRect());
        return shown.some((one, place) => shown.slice(place + 1).some((other) => one.left < other.right - 1
            && other.left < one.right - 1 && one.top < other.bottom - 4 && other.top < one.bottom - 4))
            ? [chart.getAttribute('aria-label')] : [];
    }))"""


OUTSIDE = """(paper) => [...document.querySelectorAll('main *, header.top *')].filter((element) => {
    if (element.closest('svg') && element.tagName !== 'svg') return false;
    const scroll = element.closest('.scroll');
    if (!paper && scroll && element !== scroll && scroll.querySelector('.wide')) return false;  // can be scrolled
    return element.getBoundingClientRect().right > document.documentElement.clientWidth + 1
        || (element.matches('.scroll, .picture, .panel, td') && element.scrollWidth > element.clientWidth + 1
            && !(!paper && element.querySelector('.wide')));
}).map((element) => `${element.tagName}.${element.className}: ${element.textContent.trim().slice(0, 40)}`)"""
COLLIDING = """() => {
    const hits = (one, other) => one.left < other.right - 1 && other.left < one.right - 1
        && one.top < other.bottom - 1 && other.top < one.bottom - 1;
    const boxes = (root, selector) => [...root.querySelectorAll(selector)]
        .filter((element) => element.textContent.trim() && getComputedStyle(element).opacity !== '0'
            && element.checkVisibility()).map((element) => [element.textContent, element.getBoundingClientRect()]);
    const cards = boxes(document, '.picture');
    const found = cards.some(([, one], place) => cards.slice(place + 1).some(([, other]) => hits(one, other)))
        ? ['cards of the gallery'] : [];
    for (const chart of document.querySelectorAll('.chart'))
        for (const [title, box] of boxes(chart, '.role-axis-title text, .role-row-title text, .role-row-header text'))
            for (const [label, other] of boxes(chart, '.role-axis-label text'))
                if (title !== label && hits(box, other)) found.push(`${chart.dataset.spec}: ${title} over ${label}`);
    return found;
}"""
ON_THE_FRAME = """() => [...document.querySelectorAll('figure[id$=errors] .chart, figure[id$=cascade] .chart')]
    .filter((chart) => {
        const frame = chart.querySelector('.role-frame > g > path.background').getBoundingClientRect();
        return [...chart.querySelectorAll('.mark-symbol.role-mark path')].some((point) => {
            const box = point.getBoundingClientRect();
            return box.top < frame.top || box.bottom > frame.bottom || box.left < frame.left || box.right > frame.right;
        });
    }).map((chart) => chart.getAttribute('aria-label'))"""
SETTLES = 500  # milliseconds until charts show a choice
PAPER = 703  # the width of A4 within the margins of the page, in CSS pixels
GROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 20, 20)"}


def test_it_fits_and_can_be_read(browser: "Browser", table2: Written, tmp_path: Path) -> None:
    """At every width, on both grounds and on paper, nothing is cut off, nothing overlaps, and nothing is pale."""
    with opened(browser, table2.index) as page:
        scrolled(page)
        for width, media in ((WIDE, "screen"), (TABLET, "screen"), (PHONE, "screen"), (PAPER, "print")):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(media=media, color_scheme="dark" if media == "print" else "light")  # type: ignore[arg-type]
            page.wait_for_timeout(700)  # charts follow the width
            for check, argument in ((OUTSIDE, media == "print"), (COLLIDING, None), (CUT_OFF, None)):
                assert page.evaluate(check, argument) == [], (width, media)
            if media == "screen":
                assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), width
                assert page.evaluate(OVERLAPPING) == [] and page.evaluate(ON_THE_FRAME) == [], width
            else:
                assert page.evaluate("getComputedStyle(document.body).backgroundColor") == GROUNDS["light"]
            assert page.evaluate(TOO_PALE, [4.5, False]) == [] and page.evaluate(TOO_PALE, [3.0, True]) == []
        page.emulate_media(media="screen", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == GROUNDS["dark"]
        assert page.evaluate(TOO_PALE, [4.5, False]) == [] and page.evaluate(TOO_PALE, [3.0, True]) == []
        page.pdf(path=tmp_path / "page.pdf", format="A4")
    program = needed("pdftotext")
    words = subprocess.run([program, "-bbox", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True)
    places = [tuple(map(float, found)) for found in re.findall(r'xMin="([\d.-]+)".*xMax="([\d.]+)"', words.stdout)]
    assert len(places) > 500 and all(low >= 0 and high <= 595.5 for low, high in places)
    text = subprocess.run([program, "-layout", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True)
    pages = text.stdout.split("\f")
    for table in (("Model", "shift", "BN PARAMS"), ("claim", "Clean error of ADV +BN ONLY")):
        assert any(all(word in one for word in table) for one in pages), table


def test_axes_say_what_they_are_of(drawn: "Page") -> None:
    titles = set(drawn.locator(".role-axis-title text, .role-row-title text").all_text_contents())
    expected = {"clean error (%)", "robust error (%)", "channels", "BN layer", "mean of m", "confidence", "images (%)"}
    expected |= {
        "logit",
        "logits (%)",
        "channels turned off (%)",
        "epoch",
        "cross-entropy",
        "error (%)",
        "learning rate",
    }
    assert expected | {"seconds per run"} <= titles


def test_print_leaves_nothing_out(browser: "Browser", table2: Written, tmp_path: Path) -> None:
    """Charts that nobody has scrolled to are drawn too."""
    program = needed("pdftotext")
    with opened(browser, table2.index) as page:
        until(lambda: page.locator(".chart:not([data-drawn])").count() == 0)  # without scrolling
        page.pdf(path=tmp_path / "page.pdf")
    text = subprocess.run([program, tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True).stdout
    for title in ("robust error (%)", "channels", "mean of m", "confidence", "cross-entropy", "seconds per run"):
        assert title in text, title
    assert "fab-t" in text  # the last of the charts


# what sweeps may be


def test_titles_and_values_are_text(browser: "Browser", reported: Reporter) -> None:
    def fill(made: MadeStore) -> None:
        made.add(("normal", "adv")).add(("evil",), titles={"evil": HOSTILE})
        made.add(("adv",), overrides={"model.name": BREAKING})

    written = reported(fill, command=f"launch.py -m 'policy={BREAKING}'")
    with opened(browser, written.index) as page:
        whole_and_sound(page)
        labels = [cells[0] for cells in rows(page)]
        assert HOSTILE in labels
        assert any(BREAKING in label for label in labels)
        assert any(HOSTILE in text for text in page.locator(".legend li").all_text_contents())
        assert page.locator("main img[src=x]").count() == 0


def test_a_sweep_that_is_half_done_names_what_is_missing(browser: "Browser", reported: Reporter) -> None:
    written = reported(lambda made: made.add(("normal", "adv")).add(("bn_stats", "bn_params", "bn_only"), done=False))
    entries = written.made.store.sweep(written.made.store.sweeps()[-1])["runs"]
    with opened(browser, written.index) as page:
        whole_and_sound(page)
        said = page.locator(".missing").text_content() or ""
        assert "3 of 5 runs" in said
        assert all(entry["run"] in said for entry in entries[2:]) and entries[0]["run"] not in said
        assert [cells[0] for cells in rows(page)] == ["NORMAL", "ADV"]


def test_nothing_is_done_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = MadeStore(Store(tmp_path / "multirun")).add(("normal",), done=False)
    made.sweep()
    with pytest.raises(SystemExit) as ended:
        main(["report", "--store", str(made.store.root)])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "done" in said.err
    assert not (made.store.root / "reports").exists()


@pytest.mark.parametrize(
    "policies", [("bn_only_params",), ("adv",), ("bn_stats", "bn_stats_no_reset"), ("bn_only", "mine")], ids="+".join
)
def test_any_policies(browser: "Browser", reported: Reporter, policies: Sequence[str]) -> None:
    written = reported(lambda made: made.add(policies))
    with opened(browser, written.index) as page:
        whole_and_sound(page)
        assert len(rows(page)) == len(policies)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.locator("figure[id$=figure1] .legend li").count() == len(policies)


def test_several_eps_values(browser: "Browser", reported: Reporter) -> None:
    written = reported(lambda made: made.add(("normal", "adv", "bn_params"), eps=(0.05, 0.15)))
    with opened(browser, written.index) as page:
        whole_and_sound(page)
        trained = "[attack.eps=0.15, evaluation.eps=0.05]"
        changed = {"NORMAL": "[evaluation.eps=0.05]", "ADV": trained, "BN PARAMS": trained}
        expected = [label for title, values in changed.items() for label in (title, f"{title} {values}")]
        assert [cells[0] for cells in rows(page)] == expected
        assert page.locator("h2.group").all_text_contents() == ["evaluation.eps=0.15", "evaluation.eps=0.05"]
        curve = page.locator("figure[id$=eps] .chart")
        assert curve.locator(".mark-line.role-mark path").count() == 3
        assert {"0.05", "0.15"} <= set(curve.locator(".role-axis-label text").all_text_contents())
        assert page.locator("figure[id$=figure3]").count() == 2
        assert page.locator("figure[id$=figure1]").count() == 1  # the models are the same ones
        most = page.locator("figure:not([id$=spread]) .chart").evaluate_all(
            "(charts) => charts.map((chart) => chart.querySelectorAll('.mark-line.role-mark path').length)"
        )
        assert max(most) <= 3


def test_several_models(browser: "Browser", reported: Reporter) -> None:
    some = ("normal", "adv", "bn_params")
    written = reported(lambda made: made.add(some).add(some[:2], model=DEEP))
    with opened(browser, written.index, PHONE) as page:
        whole_and_sound(page)
        assert page.locator("section").count() == 2
        assert len(rows(page, "#study1 table.results")) == 3 and len(rows(page, "#study2 table.results")) == 2
        assert page.locator("nav a").count() == 2
        counts = [page.locator(f"#study{number} [id$=figure1] [data-signal=layer] option").count() for number in (1, 2)]
        assert counts == [9, 21]
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_many_policies_of_a_users_own(browser: "Browser", reported: Reporter) -> None:
    mine = [f"mine_{number}" for number in range(16)]
    written = reported(lambda made: made.add(("normal", *mine)))
    with opened(browser, written.index) as page:
        whole_and_sound(page)
        drawn = set()
        for legend in page.locator("figure[id$=errors] .legend").all():
            labels = [text.strip() for text in legend.locator("li").all_text_contents()]
            told = legend.locator("li svg").evaluate_all("(symbols) => symbols.map((symbol) => symbol.innerHTML)")
            assert len(labels) <= DRAWN_TOGETHER and len(set(told)) == len(told)
            drawn |= set(labels)
        assert len(drawn) == 17


def test_variants_of_one_policy_have_a_colour_each_in_table_and_figures(browser: "Browser", reported: Reporter) -> None:
    def fill(made: MadeStore) -> None:
        for overrides in ({}, {"attack.iterations": 2}, {"attack.iterations": 20}):
            made.add(("bn_params",), overrides=overrides)

    written = reported(fill)
    with opened(browser, written.index) as page:
        whole_and_sound(page)
        chips = page.locator("table.results .chip").evaluate_all(
            "(chips) => chips.map((chip) => getComputedStyle(chip).backgroundColor)"
        )
        lines = page.locator("figure[id$=figure1] .legend rect").evaluate_all(
            "(marks) => marks.map((mark) => getComputedStyle(mark).fill)"
        )
        assert chips == lines and len(set(chips)) == 3
        own = [int(ROW_COLOURS["bn_params"][place : place + 2], 16) for place in (1, 3, 5)]
        assert chips[0] == "rgb({}, {}, {})".format(*own)  # the paper's row keeps its own


@pytest.mark.long
def test_two_hundred_runs(browser: "Browser", reported: Reporter) -> None:
    written = reported(lambda made: made.add(seeds=range(6), eps=(0.1, 0.15, 0.2)), printed=True)
    assert len(written.made.results) == 198
    assert written.seconds < 60
    assert written.index.stat().st_size < 5e6
    with opened(browser, written.index, PHONE) as page:
        whole_and_sound(page)
        assert len(rows(page)) == 33
        most = page.locator(".chart").evaluate_all(
            "(charts) => charts.map((chart) => chart.querySelectorAll('.mark-line.role-mark path').length)"
        )
        assert max(most) == 11


# colours

# Machado, Oliveira and Fernandes (2009), "A Physiologically-based Model for Simulation of Color Vision Deficiency",
# severity 1, on linear RGB.
SIGHT = {
    "usual": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TOLD_APART = 15.0  # CIE76; a just noticeable difference is about 2.3, and thin lines and small points need several
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
WHITE_POINT = [0.95047, 1.0, 1.08883]


def linear(colour: str) -> Any:
    values = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(light: Any) -> Any:
    ratio = np.array(TO_XYZ) @ np.clip(light, 0, 1) / WHITE_POINT
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def difference(one: str, other: str, sight: str) -> float:
    seen = [lab(np.array(SIGHT[sight]) @ linear(colour)) for colour in (one, other)]
    return float(np.linalg.norm(seen[0] - seen[1]))


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(linear(colour) @ TO_XYZ[1]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("sight", SIGHT)
def test_the_colour_blind_tell_policies_apart(sight: str) -> None:
    """By colour alone the main ones, and all that have no other dash and shape."""
    compared = {"normal", "adv", "bn_stats", "bn_only_params", "bn_params"}
    look = own_looks()
    for one, other in itertools.combinations(ROW_COLOURS, 2):
        if {one, other} <= compared or look[one].dash == look[other].dash:
            assert difference(look[one].colour, look[other].colour, sight) > TOLD_APART, (one, other)
    own = looks(f"mine_{number}" for number in range(DRAWN_TOGETHER))
    for first, second in itertools.combinations(own.values(), 2):
        if first.dash == second.dash:
            assert difference(first.colour, second.colour, sight) > TOLD_APART, (first, second)
    for one, other in itertools.combinations(PART_COLOURS, 2):
        assert difference(one, other, sight) > 10, (one, other)


def test_rows_that_differ_in_what_is_free_have_a_colour_each(tmp_path: Path) -> None:
    """Two schedules, say: both rows are the paper's, and neither is more so."""
    for epochs in (5, 20):
        written.write(Store(tmp_path), "adv", schedule={"epochs": epochs, "lr": 0.1})
    (group,) = groups(written.study(Store(tmp_path)))
    assert len(group.series) == 2 and len({series.look for series in group.series}) == 2


def test_policies_of_one_family_differ_in_dash_and_shape() -> None:
    families = [
        ("normal", "normal_bn_only", "normal_bn_only_logits_conv1"),
        ("normal", "bn_stats", "bn_stats_no_reset"),
        ("adv", "bn_only", "bn_only_logits_conv1"),
        ("bn_params", "bn_params_logits_conv1"),
    ]
    look = own_looks()
    for family in families:
        assert len({look[policy].dash for policy in family}) == len(family)
        assert len({look[policy].shape for policy in family}) == len(family)


@pytest.mark.parametrize("ground", ["#ffffff", "#141414"])
def test_colours_stand_out_from_both_grounds(ground: str) -> None:
    for colour in (*ROW_COLOURS.values(), *COLOURS, *PART_COLOURS):
        assert contrast(colour, ground) >= 3, colour


def test_a_row_has_one_colour_whatever_stands_beside_it() -> None:
    study, whole = published.study(), own_looks()
    assert all(looks([row.title], study)[row.title] == whole[row.policy] for row in study.rows)
    assert len({(look.colour) for look in whole.values()}) == len(whole)
    assert not {*PART_COLOURS} & {*ROW_COLOURS.values(), *COLOURS}
    assert looks(["MINE", "ADV"])["MINE"].colour == COLOURS[0], "without a study, colours are in order"


def test_rows_that_were_evaluated_alike_are_drawn_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows that were evaluated again in another way take none of them out of the figures of the whole table."""
    made = MadeStore(Store(tmp_path / "multirun")).add()
    usual = made_store.ATTACKED
    monkeypatch.setattr(made_store, "ATTACKED", usual // 2)
    made.add(("normal", "adv", "bn_params"), seeds=(7, 8)).sweep()
    (study,) = select(made.store, ["all"]).studies()
    first, second = groups(study)
    assert len(first.series) == 11 and [one.label for one in second.series] == ["NORMAL", "ADV", "BN PARAMS"]
    assert all(one.row.first.evaluation.n_images == usual for one in first.series)
    row = study.titled("BN PARAMS")
    assert row is not None and row.first.evaluation.n_images == usual
    assert "base.seed" not in "".join(study.labels())


def test_claims_and_further_numbers_are_on_the_page(table2: Written) -> None:
    """One seed of every row: the claims speak of two networks, and say how they were tested."""
    text = " ".join(re.sub(r"<[^>]+>", " ", table2.index.read_text().partition("<script")[0]).split())
    for words in (
        "Further numbers",
        "constant classifier's error %",
        "Differences from the paper",
        "schedule.epochs=5 (paper: 150)",
        "holds for these two networks",
        "Clean error of ADV +BN ONLY is far below guessing",
        "Verdicts are at the 5 % level, adjusted for 15 claims (Holm)",
    ):
        assert words in text, words

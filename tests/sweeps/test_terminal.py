"""What a sweep shows while it runs: a table that fits a terminal, few lines elsewhere, nothing where nobody reads."""

import io
import os
import pty
import struct
import sys
import termios
import time
from fcntl import ioctl
from select import select

import pytest
from rich.console import Console
from support.command import ROOT, TINY
from support.programs import heeding_signals, statuses, until

from bnft.runs.reporter import duration
from bnft.sweeps.run_table import Line, table
from bnft.sweeps.terminal import Terminal, _Console

RUNS = [
    Line("normal-a6ce855286", "done", "", "1.00", "97.5"),
    Line("adv-034d397dfe", "evaluating", "apgd-ce, 151 of 200 images are robust so far", "", "≥ 24.5"),
    Line("normal_bn_only_logits_conv1-6f61d3a0b2", "training", "epoch 12 of 15, 1 min 20 s left, loss 0.123"),
    Line("bn_params_logits_conv1-bac07d1564", "interrupted", "Stopped: the sweep was stopped"),
    *(Line(f"bn_stats-{seed:010}", "waiting") for seed in range(7)),
]


def rendered(lines, width, height):
    shown = io.StringIO()
    console = Console(file=shown, width=width, height=height, force_terminal=True, color_system=None)
    console.print(table(lines, width, height))
    return shown.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(100, 30), (80, 24)])
def test_a_run_is_a_line_that_fits(width, height):
    shown = rendered(RUNS, width, height)
    assert len(shown) == 1 + len(RUNS) + 1
    assert max(map(len, shown)) <= width
    for line, text in zip(RUNS, shown[1:], strict=False):
        assert text.startswith(line.run[:12]) and line.run[-4:] in text, "what tells runs of one policy apart"
        assert all(part in text for part in (line.state, line.detail[:26], line.clean, line.robust))
    assert shown[-1].startswith("11 runs: 1 training, 1 evaluating, 1 interrupted, 7 waiting, 1 done")


def test_of_more_runs_than_fit_those_that_matter_are_shown():
    many = [Line(f"adv-{seed:010}", "done") for seed in range(50)]
    many += [Line("adv-failed", "failed"), *(Line(f"adv-at-work-{seed}", "training") for seed in range(4))]
    shown = rendered(many, 80, 24)
    assert len(shown) < 24
    assert sum("at-work" in text for text in shown) == 4 and any("adv-failed" in text for text in shown)
    assert shown[-1].startswith("55 runs: 4 training, 1 failed, 50 done")


def test_off_a_terminal_a_run_that_moves_is_a_line_now_and_then():
    shown = io.StringIO()
    console = Console(file=shown, width=300)
    with Terminal(["a"], console) as terminal:
        terminal.begins("a", "training", "all of it")
        for epoch in range(100):
            terminal.moves("a", f"epoch {epoch}")
        terminal.ends("a", "done", "done: well")
    assert shown.getvalue().splitlines() == ["a  training  all of it", "a  done: well"]


class Gone(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "Input/output error")])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_reader_that_is_gone_disturbs_nothing(error, is_terminal):
    with Terminal(["a"], _Console(file=Gone(error), force_terminal=is_terminal)) as terminal:
        terminal.begins("a", "training", "")
        terminal.notes("a", "something")
        terminal.ends("a", "done", "done")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def on_a_terminal(folder, *arguments):
    """The program in a session of its own on a new terminal; returns its process and the terminal's other end."""
    pid, terminal = pty.fork()
    if not pid:
        heeding_signals()
        os.chdir(folder)
        ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        os.execve(
            sys.executable, [sys.executable, str(ROOT / "launch.py"), *arguments], {**environment, "TERM": "xterm"}
        )
    return pid, terminal


def read(terminal, seconds):
    """What the terminal gets for some seconds; None once nobody writes to it any more."""
    if not select([terminal], [], [], seconds)[0]:
        return b""
    try:
        return os.read(terminal, 65536) or None
    except OSError:
        return None


@pytest.mark.long
def test_the_screen_while_a_sweep_runs_and_when_it_has_ended(tmp_path):
    pyte = pytest.importorskip("pyte")
    screen = pyte.Screen(100, 30)
    stream = pyte.ByteStream(screen)
    line = ("-m", "policy=normal,bn_stats", *TINY, "base_overrides=[schedule.epochs=30]", "schedule.epochs=30")
    pid, terminal = on_a_terminal(tmp_path, *line, "evaluation.iterations=300", "evaluation.batch_size=2")
    seen, end = set(), time.monotonic() + 100
    while (data := read(terminal, 1)) is not None and time.monotonic() < end:
        stream.feed(data)
        for text in screen.display:
            seen |= {
                word
                for word in ("waiting", "training", " of 30, ", " left", "images are robust so far", "≥ ")
                if word in text
            }
        assert sum(text.startswith("bn_stats-") for text in screen.display) <= 1, "the table is redrawn in its place"
    assert os.waitpid(pid, 0)[1] == 0
    assert seen == {"waiting", "training", " of 30, ", " left", "images are robust so far", "≥ "}
    text = "\n".join(screen.display)
    assert "Runs on digits" in text and "NORMAL" in text and "BN STATS (reset)" in text
    assert "waiting" not in text and "training" not in text, "only the final table remains"


@pytest.mark.long
def test_a_terminal_that_is_closed_stops_the_sweep_with_everything_saved(tmp_path):
    pid, terminal = on_a_terminal(tmp_path, "-m", "policy=normal", *TINY, "schedule.epochs=5000")
    until(lambda: read(terminal, 0.01) is None or any("epoch" in status for status in statuses(tmp_path).values()))
    os.close(terminal)
    os.waitpid(pid, 0)
    (status,) = statuses(tmp_path).values()
    assert status["state"] == "interrupted" and "killed" not in status["error"]
    assert list((tmp_path / "multirun").glob("*/checkpoint.safetensors"))

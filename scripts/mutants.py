"""Change the code in one place, and see whether the tests notice.

    python scripts/mutants.py [WORD ...]    # all mutants, or those of files whose path contains a word

`mutants.yaml` lists the mutants: a file, a text that occurs in it exactly once, another text in its place, and the
tests that should notice. Each mutant is applied to a copy of the repository. The same tests must pass on the unchanged
copy. The exit code is 1 if fewer than 95 % of the mutants are killed.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
COPIED = ("bnft", "conf", "hydra_plugins", "tests", "launch.py", "pyproject.toml")
PRELOADED = [  # once for all mutants
    *("torch", "torchvision.models", "sklearn.datasets", "scipy.special", "hydra", "pydantic"),
    *("pyautoattack", "pytest", "xdist.plugin", "anyio.pytest_plugin"),
]
WORKERS = 2
ENOUGH = 0.95  # the share of mutants that must be killed


@dataclass(frozen=True)
class Mutant:
    """One change of one file. `tests` are arguments of pytest."""

    file: str
    old: str
    new: str
    tests: str

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.old.split())} -> {' '.join(self.new.split()) or 'nothing'}"


def mutants(words: Iterable[str]) -> list[Mutant]:
    """The mutants of files whose path contains one of the words. Ends the program if an old text is not there once."""
    words, found = tuple(words), []
    for group in yaml.safe_load((ROOT / "scripts" / "mutants.yaml").read_text()):
        text = (ROOT / group["file"]).read_text()
        for change in group["changes"]:
            mutant = Mutant(group["file"], change["old"], change["new"], change.get("tests", group["tests"]))
            if (count := text.count(mutant.old)) != 1:
                sys.exit(f"{mutant.file}: {mutant.old!r} occurs {count} times, must occur once")
            if mutant.file.endswith(".py"):  # what does not compile would be killed by any test
                compile(text.replace(mutant.old, mutant.new), f"{mutant}", "exec")
            found.append(mutant)
    return [mutant for mutant in found if not words or any(word in mutant.file for word in words)]


def survives(mutant: Mutant, change: bool = True) -> bool:
    """Whether the tests of a mutant pass on a copy of the repository, with the change or without it.

    Call it in a process of its own, because it imports the copy. A test that does not end fails after its timeout.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        if change:
            place = copy / mutant.file
            place.write_text(place.read_text().replace(mutant.old, mutant.new))
        os.chdir(copy)
        os.environ |= {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        sys.path[:0], sys.dont_write_bytecode = [folder], True
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1), os.dup2(nowhere.fileno(), 2)
        import pytest

        files, _, expression = mutant.tests.partition(" -k ")
        selection = ["-k", expression] if expression else []
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files.split(), *selection]))
        os.chdir(ROOT)
    if code > 2:  # of pytest: 1 for failed tests, 2 for a file that cannot be imported
        raise ValueError(f"pytest {mutant.tests} ended with code {code}")
    return code == 0


def copied(folder: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder / name)
    return folder


def by_tests(listed: list[Mutant]) -> list[Mutant]:
    """One mutant for each of the tests."""
    return list({mutant.tests: mutant for mutant in listed}.values())


def main(words: list[str]) -> int:
    listed, started = mutants(words), time.monotonic()
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    survivors = []
    with ProcessPoolExecutor(WORKERS, context, max_tasks_per_child=1) as pool:
        unchanged = {pool.submit(survives, mutant, False): mutant for mutant in by_tests(listed)}
        changed = {pool.submit(survives, mutant): mutant for mutant in listed}
        try:
            for done in as_completed(unchanged | changed):
                mutant = (unchanged | changed)[done]
                if done in unchanged and not done.result():
                    raise ValueError(f"without a mutant, these tests fail: {mutant.tests}")
                if done in changed:
                    print("SURVIVED" if done.result() else "killed  ", mutant, flush=True)
                    survivors += [mutant] * done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    killed = len(listed) - len(survivors)
    print(f"{killed} of {len(listed)} mutants killed in {(time.monotonic() - started) / 60:.1f} minutes; survivors:")
    print("\n".join(map(str, survivors)) or "none")
    return int(killed < ENOUGH * len(listed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

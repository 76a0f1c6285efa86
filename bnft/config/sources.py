"""The source of a person's own components: the files that a `_target_` outside bnft computes with, by content.

These are the file of its module and of every module that this one imports, directly or not, also inside functions. They
are found by reading them, never by running them, so nothing depends on what a process has imported already. bnft, the
standard library and what is installed are left out; a component that is itself installed is known by the version of its
distribution. Not found: a module that is imported under a computed name, and data that the code reads from a file.
"""

import ast
import hashlib
import importlib
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import packages_distributions, version
from importlib.util import resolve_name
from pathlib import Path

from bnft.common.canonical import canonical
from bnft.common.errors import rejected

INSTALLED = {"site-packages", "dist-packages"}  # folders of what is installed, in whichever environment
STANDARD = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))

_BEGAN = time.time()
_imported: dict[str, str] = {}  # module to the SHA-256 of its file when this process imported it, as far as known


@dataclass(frozen=True)
class Source:
    """The file of one module; `name` is its place below the folder that it is imported from."""

    module: str
    name: str
    path: Path
    content: bytes

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def of(key: str, target: str) -> dict[str, str]:
    """What the component at `key` computes with: the SHA-256 of each file, or the version of each distribution.

    Empty for a component of bnft or of the standard library. Raises InputError for one that lies in no file.
    """
    top = target.partition(".")[0]
    if top in ("bnft", target):  # bnft's components have names without a dot
        return {}
    found = {source.name: source.sha256 for source in files(target)} or _distributions(top)
    if not found and top not in sys.stdlib_module_names:
        raise rejected(f"{key}._target_", target, "in a file that can be imported, since its source names the run")
    return found


def digest(found: dict[str, str]) -> str | None:
    """One SHA-256 over what `of` found; None if that is nothing."""
    return hashlib.sha256(canonical(found).encode()).hexdigest() if found else None


@cache
def files(target: str) -> tuple[Source, ...]:
    """The files of the component `target` ("package.module.name"), none if it is not a person's own."""
    importlib.invalidate_caches()  # files may be new
    found: dict[str, Source] = {}
    todo = [target.rpartition(".")[0]]
    while todo:
        for module, spec in _own(todo.pop()):
            if module not in found:
                path = Path(str(spec.origin))
                content = path.read_bytes()
                parts = module.split(".") if _is_package(spec) else module.split(".")[:-1]
                name = Path(*parts, path.name).as_posix()
                found[module] = Source(module, name, path, content)
                todo += _imports(content, module if _is_package(spec) else module.rpartition(".")[0])
    return tuple(sorted(found.values(), key=lambda source: source.name))


def forget() -> None:
    """Read the files anew when they are asked for next."""
    files.cache_clear()
    _distributions.cache_clear()


def check_imported(key: str, target: str) -> None:
    """Refuse to compute with code that is no longer in its file. To be called before the component is imported.

    If a module was imported elsewhere before, it counts as edited if its file is newer than this process. Raises
    InputError.
    """
    for source in files(target):
        if source.module not in sys.modules:
            _imported[source.module] = source.sha256
        elif source.module not in _imported:
            _imported[source.module] = source.sha256 if source.path.stat().st_mtime <= _BEGAN else ""
        if _imported[source.module] != source.sha256:
            must = f"as this process imported it, but {source.name} has been edited since; start a new process"
            raise rejected(f"{key}._target_", target, must)


def _own(module: str) -> Iterator[tuple[str, ModuleSpec]]:
    """A module and the packages around it, the outermost first, as far as they are there and a person's own."""
    parts = module.split(".")
    if parts[0] in ("", "bnft"):
        return
    spec = _top_level(parts[0])
    for depth in range(1, len(parts) + 1):
        if spec is None or (spec.has_location and _is_installed(Path(str(spec.origin)))):
            return
        if spec.has_location:
            yield ".".join(parts[:depth]), spec
        if not _is_package(spec) or depth == len(parts):
            return
        spec = PathFinder.find_spec(parts[depth], list(spec.submodule_search_locations or ()))


def _top_level(name: str) -> ModuleSpec | None:
    """As `importlib.util.find_spec`, but for what is imported already, which need not be what the files say."""
    found = (finder.find_spec(name, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((spec for spec in found if spec is not None), None)


def _is_package(spec: ModuleSpec) -> bool:
    return spec.submodule_search_locations is not None


def _is_installed(path: Path) -> bool:
    path = path.resolve()
    return not INSTALLED.isdisjoint(path.parts) or any(path.is_relative_to(folder) for folder in STANDARD)


def _imports(content: bytes, package: str) -> Iterator[str]:
    """The modules that a file in `package` may import; those that `from module import name` may mean are among them."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # no Python source, such as an extension module, or the import will tell
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                module = resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # beyond the outermost package
                continue
            yield from (f"{module}.{alias.name}" for alias in node.names)


@cache
def _distributions(top: str) -> dict[str, str]:
    """The distributions that install the package `top`, and their versions."""
    return {name: version(name) for name in sorted(set(packages_distributions().get(top, ())))}

"""The source of a user's own components: the content of the files that a `_target_` outside bnft computes with.

These are the file of its module and the files of all modules that it imports, directly or indirectly, including imports
inside functions. Files are found by reading the code, not by running it, so the result does not depend on what a
process has imported. bnft, the standard library and installed packages are left out. A component that is installed
itself is represented by the version of its distribution. Modules imported under a computed name, and data that the code
reads from files, are not found.
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

INSTALLED = {"site-packages", "dist-packages"}  # folders of installed packages, in any environment
STANDARD = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))

_BEGAN = time.time()
_imported: dict[str, str] = {}  # for each module, the SHA-256 of its file when this process imported it, if known


@dataclass(frozen=True)
class Source:
    """The file of a module. `name` is its path relative to the folder that it is imported from."""

    module: str
    name: str
    path: Path
    content: bytes

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def of(key: str, target: str) -> dict[str, str]:
    """Return the source of a component: the SHA-256 of each file, or the version of each distribution.

    It is empty for a component of bnft or of the standard library.

    Args:
        key: the key of the component, such as `model`.
        target: its `_target_`.

    Raises:
        InputError: if the component is not in a file.
    """
    top = target.partition(".")[0]
    if top in ("bnft", target):  # bnft's components have names without a dot
        return {}
    source = {file.name: file.sha256 for file in files(target)} or _distributions(top)
    if not source and top not in sys.stdlib_module_names:
        raise rejected(f"{key}._target_", target, "in a file that can be imported, because its source names the run")
    return source


def digest(source: dict[str, str]) -> str | None:
    """Return one SHA-256 of a source from `of`; None if the source is empty."""
    return hashlib.sha256(canonical(source).encode()).hexdigest() if source else None


@cache
def files(target: str) -> tuple[Source, ...]:
    """Return the files of a component ("package.module.name"); none if it is not a user's own."""
    importlib.invalidate_caches()  # there can be new files
    sources: dict[str, Source] = {}
    todo = [target.rpartition(".")[0]]
    while todo:
        for module, spec in _own(todo.pop()):
            if module not in sources:
                path = Path(str(spec.origin))
                content = path.read_bytes()
                parts = module.split(".") if _is_package(spec) else module.split(".")[:-1]
                name = Path(*parts, path.name).as_posix()
                sources[module] = Source(module, name, path, content)
                todo += _imports(content, module if _is_package(spec) else module.rpartition(".")[0])
    return tuple(sorted(sources.values(), key=lambda source: source.name))


def forget() -> None:
    """Clear the caches, so that files are read again."""
    files.cache_clear()
    _distributions.cache_clear()


def check_imported(key: str, target: str) -> None:
    """Check that the code of a component is still in its files. Must be called before the component is imported.

    A module that was imported elsewhere counts as edited if its file is newer than this process.

    Raises:
        InputError: if a file was edited after its module was imported.
    """
    for source in files(target):
        if source.module not in sys.modules:
            _imported[source.module] = source.sha256
        elif source.module not in _imported:
            _imported[source.module] = source.sha256 if source.path.stat().st_mtime <= _BEGAN else ""
        if _imported[source.module] != source.sha256:
            must = f"unchanged since this process imported it, but {source.name} was edited; start a new process"
            raise rejected(f"{key}._target_", target, must)


def _own(module: str) -> Iterator[tuple[str, ModuleSpec]]:
    """Yield a module after the packages that contain it, if they exist and are a user's own."""
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
    """Find a module like `importlib.util.find_spec`, but ignore imported modules, which can differ from the files."""
    specs = (finder.find_spec(name, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((spec for spec in specs if spec is not None), None)


def _is_package(spec: ModuleSpec) -> bool:
    return spec.submodule_search_locations is not None


def _is_installed(path: Path) -> bool:
    path = path.resolve()
    return not INSTALLED.isdisjoint(path.parts) or any(path.is_relative_to(folder) for folder in STANDARD)


def _imports(content: bytes, package: str) -> Iterator[str]:
    """Yield the modules that a file in `package` can import. `from module import name` can import `module.name`."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # not Python source, for example an extension module
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                module = resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # a relative import beyond the outermost package
                continue
            yield from (f"{module}.{alias.name}" for alias in node.names)


@cache
def _distributions(top: str) -> dict[str, str]:
    """Return the distributions that install the package `top`, and their versions."""
    return {name: version(name) for name in sorted(set(packages_distributions().get(top, ())))}

"""The folders of configuration: bnft's own conf/, and a user's own folders, which are searched before it."""

from pathlib import Path

SCHEME = "bnft"  # marks a user's own folders on Hydra's search path; see `hydra_plugins.bnft.OwnFolder`

_PACKAGE = Path(__file__).resolve().parents[1]
_given: list[Path] = []


def own() -> Path:
    """Return the folder of bnft's configuration: inside the package in a wheel, beside the package in a checkout."""
    inside = _PACKAGE / "conf"
    return inside if inside.is_dir() else _PACKAGE.parent / "conf"


def checkout() -> Path | None:
    """Return the checkout that bnft is imported from; None if it is installed from a wheel."""
    return None if own().parent == _PACKAGE else _PACKAGE.parent


def give(folder: str | None) -> None:
    """Set the folder that a command names with --config-dir; None if it names no folder."""
    _given[:] = [Path(folder).absolute()] if folder else []


def searched_first() -> list[Path]:
    """Return a user's own folders, in the order of search: that of --config-dir, then conf/ in the current folder."""
    return [folder for folder in (*_given, Path.cwd() / "conf") if folder.is_dir() and not folder.samefile(own())]

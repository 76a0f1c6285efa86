"""Where configuration lies: bnft's own folder conf/, and folders of a person's own that are searched before it."""

from pathlib import Path

SCHEME = "bnft"  # of the search path entries of a person's own folders; see `hydra_plugins.bnft.OwnFolder`

_PACKAGE = Path(__file__).resolve().parents[1]
_given: list[Path] = []


def own() -> Path:
    """The folder of bnft's configuration: inside the package if it comes from a wheel, beside it in a checkout."""
    inside = _PACKAGE / "conf"
    return inside if inside.is_dir() else _PACKAGE.parent / "conf"


def checkout() -> Path | None:
    """The checkout that bnft is imported from; None if it comes from a wheel."""
    return None if own().parent == _PACKAGE else _PACKAGE.parent


def give(folder: str | None) -> None:
    """Take note of the folder that a command names with --config-dir, or of None if it names none."""
    _given[:] = [Path(folder).absolute()] if folder else []


def searched_first() -> list[Path]:
    """The folders of a person's own, the first of which counts most: that of --config-dir, then conf/ here."""
    return [folder for folder in (*_given, Path.cwd() / "conf") if folder.is_dir() and not folder.samefile(own())]

"""A store in archives, for a campaign in slices: what goes home, and what the next slice goes on from."""

import io
import lzma
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bnft.common.errors import InputError
from bnft.common.files import sha256
from bnft.report.export import copy_model, export
from bnft.runs.store import Store

PUBLISHED = ("normal", "adv", "bn_params")  # policies whose models go home
SENT, FINISHED = ".sent", ".finished"  # in the store: digests of files that went home, of stages that are done
PART_BYTES = 15 * 2**20  # of an archive: what many ways of sending take
# xz, light; with a window so wide that the weights that a model shares with its base are kept once
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 128 * 2**20}]


def pack(store: Path, out: Path, slice_name: str) -> None:
    """Write `keep-*` and `resume-*` into `out`, in parts."""
    whole = Store(store)
    store.mkdir(parents=True, exist_ok=True)
    sent = listed(store / SENT)
    done = [run for run in whole.runs() if run.evaluations()]
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder)
        if done:
            export(whole, [run.name for run in done], Store(kept), ())
        for run in done:
            if run.trained and run.name.rpartition("-")[0] in PUBLISHED:  # one that went home is not here any more
                copy_model(run, Store(kept).run(run.name))
        results = [file for file in sorted(kept.rglob("*")) if file.is_file()]
        new = {file: digest for file in results if (digest := sha256(file)) not in sent}
        if new:
            _write(out / f"keep-{slice_name}", dict.fromkeys(new, kept))
        write_list(store / SENT, sent | set(new.values()))
        light = [file for file in results if file.name != "model.safetensors"]
        needed = [*(store / name for name in (SENT, FINISHED) if (store / name).exists()), *_needed(whole)]
        _write(out / f"resume-{slice_name}", {**dict.fromkeys(light, kept), **dict.fromkeys(needed, store)})


def listed(file: Path) -> set[str]:
    """The digests in a file; none if it is not there."""
    return set(file.read_text().split()) if file.exists() else set()


def write_list(file: Path, digests: set[str]) -> None:
    """Write digests into a file, for `listed`."""
    file.write_text("".join(f"{digest}\n" for digest in sorted(digests)))


def _needed(store: Store) -> list[Path]:
    """What a run that is not done goes on from, and NORMAL's model, from which most rows start."""
    found: list[Path] = []
    for run in store.runs():
        if not run.evaluations():
            found += [file for file in sorted(run.path.rglob("*")) if file.is_file()]
            continue
        found += sorted(run.path.glob("evaluation/*/cascade.safetensors"))
        if run.name.startswith("normal-") and run.trained:
            found.append(run.path / "model.safetensors")
    return found


def _write(stem: Path, files: Mapping[Path, Path]) -> None:
    """A compressed archive in parts, `<stem>.00` and so on; each file is named from the folder given with it."""
    packed = io.BytesIO()
    with (
        lzma.open(packed, "w", filters=XZ) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for file, root in files.items():
            archive.add(file, file.relative_to(root))
    stem.parent.mkdir(parents=True, exist_ok=True)
    content = packed.getvalue()
    for number, start in enumerate(range(0, len(content), PART_BYTES)):
        stem.with_name(f"{stem.name}.{number:02}").write_bytes(content[start : start + PART_BYTES])
    print(f"packed: {stem.name}, {len(content) / 1e6:.1f} MB")


def unpack(parts: Sequence[Path], store: Path) -> None:
    """Put the archives that these parts make up into a store, the oldest first.

    Raises InputError, with nothing of that archive written, where a part is missing or damaged.
    """
    for part in parts:
        if not part.is_file():
            raise InputError(f"{part}: must be a part of an archive; there is no such file")
    for stem in sorted({part.with_suffix("") for part in parts}, key=lambda stem: stem.name):
        joined = b"".join(part.read_bytes() for part in sorted(parts) if part.with_suffix("") == stem)
        try:
            content = lzma.decompress(joined)
        except lzma.LZMAError as error:
            raise InputError(f"{stem}.*: must be all parts of an archive, each whole ({error})") from None
        store.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(store, filter="data")

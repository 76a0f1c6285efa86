"""Archives of a store, for a campaign in slices: the results to keep, and the files that the next slice needs."""

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

PUBLISHED = ("normal", "adv", "bn_params")  # policies whose models are kept
SENT, FINISHED = ".sent", ".finished"  # in the store: digests of files that were packed, and of stages that are done
PART_BYTES = 15 * 2**20  # the size of a part, small enough for most ways of sending
# Fast xz compression. The window is large enough to store weights that a model shares with its base only once.
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 128 * 2**20}]


def pack(store: Path, out: Path, slice_name: str) -> None:
    """Write the archives `keep-*` and `resume-*` to `out`, in parts."""
    whole = Store(store)
    store.mkdir(parents=True, exist_ok=True)
    sent = listed(store / SENT)
    done = [run for run in whole.runs() if run.evaluations()]
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder)
        if done:
            export(whole, [run.name for run in done], Store(kept), ())
        for run in done:
            if run.trained and run.name.rpartition("-")[0] in PUBLISHED:  # packed models are not here any more
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
    """Return the digests in a file; none if it does not exist."""
    return set(file.read_text().split()) if file.exists() else set()


def write_list(file: Path, digests: set[str]) -> None:
    """Write digests to a file; see `listed`."""
    file.write_text("".join(f"{digest}\n" for digest in sorted(digests)))


def _needed(store: Store) -> list[Path]:
    """Return the files that unfinished runs continue from, and the model of NORMAL, from which most rows start."""
    files: list[Path] = []
    for run in store.runs():
        if not run.evaluations():
            files += [file for file in sorted(run.path.rglob("*")) if file.is_file()]
            continue
        files += sorted(run.path.glob("evaluation/*/cascade.safetensors"))
        if run.name.startswith("normal-") and run.trained:
            files.append(run.path / "model.safetensors")
    return files


def _write(stem: Path, files: Mapping[Path, Path]) -> None:
    """Write a compressed archive in parts, `<stem>.00` and so on. `files` maps each file to the root of its name."""
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
    """Unpack archives into a store, the oldest first.

    Raises InputError if a part is missing or damaged. Nothing of its archive is then written.
    """
    for part in parts:
        if not part.is_file():
            raise InputError(f"{part}: must be a part of an archive; there is no such file")
    for stem in sorted({part.with_suffix("") for part in parts}, key=lambda stem: stem.name):
        joined = b"".join(part.read_bytes() for part in sorted(parts) if part.with_suffix("") == stem)
        try:
            content = lzma.decompress(joined)
        except lzma.LZMAError as error:
            raise InputError(f"{stem}.*: must be all parts of an archive, undamaged ({error})") from None
        store.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(store, filter="data")

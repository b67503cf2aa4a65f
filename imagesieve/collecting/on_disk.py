"""The good images that lie in a class folder, and what its journal says of them."""

import concurrent.futures
import dataclasses
import logging
import re
from pathlib import Path

from imagesieve import files, images
from imagesieve.collecting.journal import HISTORY_NAME, JOURNAL_NAME, KEPT, Entry, read_entries
from imagesieve.cores import cpu_count
from imagesieve.errors import ImageError, UnreadableImageError
from imagesieve.images import fingerprints

_FINGERPRINT = re.compile(f"[0-9a-f]{{{2 * fingerprints.NUM_BYTES}}}")

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Image:
    """A good image on disk.

    Attributes:
        sha256: of the file.
        fingerprint: for near-duplicates.
        num_pixels: width times height.
        is_ours: whether it is what a journal says that we wrote; what others put there, or changed,
            is never replaced.
    """

    path: Path
    sha256: str
    fingerprint: bytes
    num_pixels: int
    is_ours: bool


def scan(
    folder: Path, limits: images.Limits, *, trusting: bool = False
) -> tuple[list[Image], list[Path]]:
    """Look at every file of a folder, hidden ones and subfolders aside.

    A file that is still what the journal says (by its SHA-256) is not decoded again.

    Args:
        trusting: believe the journal already when the size in bytes is the same.

    Returns:
        the good images in order of their names, and the paths of all other files, which are
        logged.
    """
    paths = [
        path
        for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if not path.name.startswith(".") and path.name != HISTORY_NAME and path.is_file()
    ]
    written = {entry["path"]: entry for entry in _written(folder)}

    def look(path: Path) -> Image | ImageError:
        try:
            return _look(path, written.get(path.name), limits, trusting)
        except ImageError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(cpu_count()) as pool:
        found = list(zip(paths, pool.map(look, paths), strict=True))
    for _, seen in found:
        if isinstance(seen, ImageError):
            _log.warning("not counted: %s", seen)
    good = [seen for _, seen in found if isinstance(seen, Image)]
    return good, [path for path, seen in found if isinstance(seen, ImageError)]


def _look(path: Path, entry: Entry | None, limits: images.Limits, trusting: bool) -> Image:
    if entry is not None and min(entry["width"], entry["height"]) >= limits.min_side:
        try:
            is_as_written = _is_as_written(path, entry, trusting=trusting)
        except OSError as error:
            reason = f"the file cannot be read ({error.strerror or error})"
            raise UnreadableImageError(reason, str(path)) from error
        if is_as_written:
            fingerprint = bytes.fromhex(entry["fingerprint"])
            num_pixels = entry["width"] * entry["height"]
            return Image(path, entry["sha256"], fingerprint, num_pixels, is_ours=True)
    image = images.decode(path, limits, image_size=fingerprints.CHECK_SIZE)
    fingerprint = fingerprints.fingerprint(image.pixels)
    return Image(path, image.sha256, fingerprint, image.width * image.height, is_ours=False)


def _is_as_written(path: Path, entry: Entry, *, trusting: bool = False) -> bool:
    is_same_size = path.stat().st_size == entry["bytes"]
    return is_same_size and (trusting or files.sha256_of(path) == entry["sha256"])


def _written(folder: Path) -> list[Entry]:
    """Give the journal's lines of images, in order, where they say all that is needed."""
    entries = read_entries(folder / JOURNAL_NAME)
    return [entry for entry in entries if entry.get("status") == KEPT and _is_complete(entry)]


def _is_complete(entry: Entry) -> bool:
    numbers = all(isinstance(entry.get(name), int) for name in ("bytes", "width", "height"))
    texts = all(isinstance(entry.get(name), str) for name in ("path", "sha256", "fingerprint"))
    return (
        numbers
        and texts
        and Path(entry["path"]).name == entry["path"]
        and _FINGERPRINT.fullmatch(entry["fingerprint"]) is not None
    )


def finish_replacements(folder: Path) -> None:
    """Remove an image whose larger copy was written just before the run was killed."""
    written = _written(folder)
    by_name = {entry["path"]: entry for entry in written}
    replaced: dict[str, str] = {}  # the smaller image -> the larger
    for entry in written:
        replaced.pop(entry["path"], None)  # it was kept once more, beside the larger
        if isinstance(old := entry.get("replaces"), str) and old in by_name:
            replaced[old] = entry["path"]
    with files.reporting_output_errors(folder):
        for pair in replaced.items():
            # Only if both are ours and unchanged: better a copy too many than a loss.
            if all(
                (folder / name).is_file() and _is_as_written(folder / name, by_name[name])
                for name in pair
            ):
                (folder / pair[0]).unlink()

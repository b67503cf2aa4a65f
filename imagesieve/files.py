"""Whole files or none: temporary name, fsync, rename; and locks, checksums, bounded reads."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeGuard

from imagesieve.errors import OutputError, UsageError

PARTIAL_PREFIX = ".partial-"  # hidden: no scan takes an unfinished folder for a finished one
_LOCK_NAME = ".writing"

_WRITE_FAILURES = {
    errno.ENOSPC: "no space is left on the disk: free some and try again",
    errno.EDQUOT: "the disk quota is used up: free some space and try again",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.EACCES: "permission is denied: choose a place you may write to",
    errno.EPERM: "permission is denied: choose a place you may write to",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "something else is already there",
    errno.EFBIG: "the file would be larger than the system allows",
}


def output_error(path: Path | str, error: OSError) -> OutputError:
    """Return an OutputError that says why `path` could not be written."""
    reason = _WRITE_FAILURES.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"Cannot write {path}: {reason}.")


def is_disk_error(error: BaseException) -> TypeGuard[OSError]:
    """Return whether an error means that a disk is full or may not be written to."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in full


@contextlib.contextmanager
def reporting_output_errors(path: Path | str) -> Iterator[None]:
    """Turn any OSError of the block into an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error


def write_bytes(path: Path, data: bytes, *, must_outlive_power: bool = True) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one.

    Unless it `must_outlive_power`, a power failure within the next seconds may bring the old state
    back; never a half file.

    Raises:
        OutputError: the file could not be written; an old one is untouched.
    """
    with reporting_output_errors(path):
        handle, temporary = new_partial(path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if must_outlive_power:
            fsync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; see `write_bytes`. What is not UTF-8 (file names) is escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write indented UTF-8 JSON atomically; see `write_bytes`. NaN and infinities are refused."""
    # A file name that is not UTF-8 has lone surrogates; `\udcff` is how JSON writes one.
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` to fill; it becomes `path` when the block ends well.

    If the block fails, the temporary folder is removed and `path` never exists. A process that is
    killed leaves a hidden `.partial-*` folder, which the next call in the same parent removes.

    Raises:
        OutputError: `path` exists already, or something could not be written.
    """
    # The error may carry a full disk from deep inside a library, so the block is covered too.
    with reporting_output_errors(path):
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        with scratch_folder(path.parent, path.name) as partial:
            yield partial
            for file in sorted(partial.rglob("*")):
                fsync(file)
            # Last, because without it a folder whose writer is killed is never recognised as stale.
            (partial / _LOCK_NAME).unlink()
            fsync(partial)
            partial.rename(path)
            fsync(path.parent)


@contextlib.contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a hidden folder that is removed after the block; see `new_folder` for killed ones."""
    with reporting_output_errors(parent / name):
        parent.mkdir(parents=True, exist_ok=True)
        remove_stale_partials(parent)
        partial = parent / f"{PARTIAL_PREFIX}{name}-{secrets.token_hex(8)}"
        partial.mkdir()
    try:
        with locked(partial / _LOCK_NAME):
            yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_stale_partials(parent: Path) -> None:
    """Remove `.partial-*` folders in `parent` whose writer, who locks a file inside, is dead."""
    for partial in parent.glob(f"{PARTIAL_PREFIX}*"):
        # An OSError: not such a folder, its writer lives, it is another user's, or just removed.
        with contextlib.suppress(OSError), locked(partial / _LOCK_NAME, wait=False, create=False):
            shutil.rmtree(partial, ignore_errors=True)


def list_files(folder: Path) -> list[Path]:
    """Return the files of a folder, at any depth, in order; hidden ones are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bytes(path: Path, most: int, what: str) -> bytes:
    """Return a file that a person names, of at most so many bytes; UsageErrors call it `what`."""
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"The {what} {path} cannot be read: {reason}.") from error
    if len(data) > most:
        raise UsageError(f"{path} has more than {most:,} bytes, which no {what} needs.")
    return data


def read_text(path: Path, most: int, what: str) -> str:
    """Return the text of a file as `read_bytes` does its bytes."""
    try:
        return read_bytes(path, most, what).decode("utf-8-sig")
    except UnicodeDecodeError:
        # Not `from`: that error carries the file's bytes, which may be keys, and a log may show it.
        raise UsageError(f"The {what} {path} is not UTF-8 text: save it as UTF-8.") from None


@contextlib.contextmanager
def locked(
    path: Path, *, wait: bool = True, shared: bool = False, create: bool = True
) -> Iterator[IO[bytes]]:
    """Lock a file for the length of the block; the system releases it if the process dies.

    Yields the file, open for reading and writing at its start, unbuffered; it stays when the block
    ends. `shared`: several processes may lock it at once, but none exclusively.

    Raises:
        BlockingIOError: another process has locked it, and `wait` is False.
        OSError: the file cannot be opened, or is a symbolic link.
    """
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    flags = os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    while True:
        with open(os.open(path, flags, 0o666), "r+b", buffering=0) as file:
            fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
            if _has_its_name(file, path):  # else another process removed it before our lock
                yield file
                return


def _has_its_name(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def new_partial(folder: Path) -> tuple[int, Path]:
    """Create and open a hidden file of a new name, with the permissions that any new file has."""
    path = folder / f"{PARTIAL_PREFIX}{secrets.token_hex(8)}"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    try:
        return os.open(path, flags, 0o666), path
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o666), path


def fsync(path: Path) -> None:
    """Wait until the disk has stored a file, or names in a folder: a crash may undo a rename."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
